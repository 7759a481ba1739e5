"""Orphans: processes whose parents have ended, so that the system has given them to this process.

The system gives them to process 1 of a container or to a child subreaper, which has to reap them.
Never reaps a process that this one has started itself.
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """Return the children of this process; an empty set if the system does not list them."""
    found: set[int] = set()
    with suppress(OSError):
        for file in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):  # the thread has ended
                found.update(map(int, file.read_text("ascii").split()))
    return found


def reap(own: Container[int]) -> None:
    """Reap the children that have ended, except for `own`, for which other code waits."""
    while (pid := _ended_child()) != 0:
        if pid in own:  # the system would name this one again and again
            for other in children():
                if other not in own:
                    _reap_one(other)
            return
        _reap_one(pid)


def _reap_one(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _ended_child() -> int:
    """Return a child that has ended, without reaping it; 0: there is none."""
    if not hasattr(os, "waitid"):  # PyPy may have none
        return 0
    with suppress(ChildProcessError):
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return 0 if ended is None else ended.si_pid
    return 0
