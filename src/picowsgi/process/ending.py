"""How a process ends: as Python would end it, but within a time.

A forked worker runs the `atexit` functions that were registered in it, and those of an application
that was loaded before the fork: without --preload it would have registered them itself. It never
runs what was registered before `mark`, which belongs to the program that forks.
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

_LEAST = 1.0  # seconds for the threads of an application, however late it is


@dataclass
class _End:
    """What the end of this process needs: there is one list of `atexit` functions in a process."""

    #: The process that is a forked worker.
    forked: int = 0
    status: int = 0
    #: Until when the threads of the application may go on.
    until: float = -math.inf


_end = _End()


def mark() -> None:
    """Keep what is registered by now from the processes that this one forks."""
    # `atexit` calls the last one first, so this one comes after all that are registered later.
    atexit.unregister(_end_of_forked)
    atexit.register(_end_of_forked)


def set_limit(until: float) -> None:
    """Let threads of the application go on until then (`time.monotonic`); the first call counts."""
    if _end.until == -math.inf:
        _end.until = until


def has_threads() -> bool:
    """Return whether there are threads that Python would wait for."""
    return bool(_application_threads())


def begin_forked() -> None:
    """Leave to the parent, in a process that it has forked, what it has to clean up."""
    _end.forked = os.getpid()
    # Finalizers of what was made before the fork, such as temporary directories. The function that
    # calls them may be registered before the mark; the next finalizer registers it again.
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    # multiprocessing would end its daemons, and wait for the others, which are not this one's.
    module = sys.modules.get("multiprocessing.process")
    if module is not None:
        with suppress(AttributeError):
            module._children.clear()


def leave(status: int) -> NoReturn:
    """End the process as Python would, but without waiting for threads beyond `set_limit`."""
    _end.status = status
    _end_threads(max(_end.until - time.monotonic(), _LEAST))
    with suppress(Exception):
        atexit._run_exitfuncs()
    _exit(status)


def _end_of_forked() -> None:
    if os.getpid() == _end.forked:
        _exit(_end.status)


def _end_threads(within: float) -> None:
    """Do what Python does before the functions of `atexit`, in a thread: it may take too long."""
    thread = threading.Thread(target=_wait_for_threads, daemon=True)
    with suppress(RuntimeError, MemoryError):  # the system has no room for it
        thread.start()
        thread.join(within)


def _wait_for_threads() -> None:
    # These end executors (concurrent.futures). threading._shutdown would wait for the main thread.
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
    logging.shutdown()
    flush_standard_streams()
    end_outputs()
    os._exit(status)
