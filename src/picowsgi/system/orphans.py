"""Orphans: processes whose parents have ended, and that the system has given to this process.

Process 1 of a container gets them, and so does a child subreaper; it has to reap them. Never waits
for a process that this one has started itself.
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """Return the children of this process; nothing where the system does not list them."""
    found: set[int] = set()
    with suppress(OSError):
        for file in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):  # the thread has ended
                found.update(map(int, file.read_text("ascii").split()))
    return found


def reap(own: Container[int]) -> None:
    """Reap the children that have ended, but for `own`: other code waits for those."""
    while (pid := _ended_child()) != 0:
        if pid in own:  # the system goes on naming this one
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
