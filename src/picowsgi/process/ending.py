"""How a process ends: as Python would end it, but with a time limit.

A forked worker runs the `atexit` functions that were registered in it. It also runs those that an
application registered before the fork: without --preload the worker would have registered them
itself. It never runs the functions that were registered before `mark`, because these belong to the
program that forks.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from picowsgi.line_output import end_outputs, flush_standard_streams
from picowsgi.system import debugger

_LEAST = 1.0  # seconds for the threads of an application, even after the time limit


@dataclass
class _End:
    """The state of this process's end. A process has one list of `atexit` functions."""

    #: The number of this process if it is a forked worker.
    forked: int = 0
    status: int = 0
    #: The time at which the threads of the application have to end.
    until: float = -math.inf


_end = _End()


def mark() -> None:
    """Keep forked workers from calling the `atexit` functions that are registered by now."""
    # `atexit` calls the last function first. In a worker, `_end_of_forked` runs after the functions
    # that were registered later, and ends the process before those that were registered earlier.
    atexit.unregister(_end_of_forked)
    atexit.register(_end_of_forked)


def set_limit(until: float) -> None:
    """Let threads of the application run until then (`time.monotonic`); the first call counts."""
    if _end.until == -math.inf:
        _end.until = until


def has_threads() -> bool:
    """Return whether Python would wait for a thread at its exit."""
    return bool(_application_threads())


def begin_forked() -> None:
    """Prepare the end of a forked worker, which leaves its parent's clean-up to its parent."""
    _end.forked = os.getpid()
    # Finalizers of objects from before the fork, such as temporary directories. The function that
    # calls them may be registered before the mark. The next finalizer registers it again.
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    # At exit multiprocessing ends its daemons and waits for its other children. They belong to the
    # parent.
    module = sys.modules.get("multiprocessing.process")
    if module is not None:
        with suppress(AttributeError):
            module._children.clear()


def leave(status: int) -> NoReturn:
    """End the process as Python would, but wait for threads only until the time of `set_limit`."""
    _end.status = status
    _end_threads(max(_end.until - time.monotonic(), _LEAST))
    with suppress(Exception):
        atexit._run_exitfuncs()
    _exit(status)


def _end_of_forked() -> None:
    if os.getpid() == _end.forked:
        _exit(_end.status)


def _end_threads(within: float) -> None:
    """Do Python's steps before `atexit`, in a thread, because they may take too long."""
    thread = threading.Thread(target=_wait_for_threads, daemon=True)
    with suppress(RuntimeError, MemoryError):  # the system cannot start one more thread
        thread.start()
        thread.join(within)


def _wait_for_threads() -> None:
    # These functions end executors (concurrent.futures). threading._shutdown is not an option: it
    # would wait for the main thread.
    for end in reversed(list(getattr(threading, "_threading_atexits", ()))):
        end()
    for one in _application_threads():
        one.join()


def _application_threads() -> list[threading.Thread]:
    return [
        one
        for one in threading.enumerate()
        if not one.daemon and one is not threading.main_thread()
    ]


def _exit(status: int) -> NoReturn:
    if debugger.is_open_here():
        debugger.restore_terminal()
    logging.shutdown()
    flush_standard_streams()
    end_outputs()
    os._exit(status)
