"""What a child process that the application forks must not have of the server that it comes from.

A server belongs to the process that made it. In a child of the application (os.fork,
multiprocessing) its sockets are closed, its signal handlers are gone, and nothing is served.

Never forks itself. The server's own processes are forked inside of `own_process`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

from picowsgi.log import get_logger, write_standard_error


class Guarded(Protocol):
    """Something that a process has of a server, and its forked children must not have."""

    # Each may be called again before the next one is: a second call changes nothing.

    def before_fork(self) -> None:
        """Bring it into a state that a child can close."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Close it in this process, without touching what the parent has."""


#: Held from before a fork until after it, in the parent and in the child: one fork at a time.
#: Guards the two below. Taken before the lock of any core.
_forking = threading.RLock()
_guarded: WeakSet[Guarded] = WeakSet()
#: What the current fork has stopped.
_stopped: list[Guarded] = []
_thread = threading.local()


def guard(thing: Guarded) -> None:
    """Have the methods of `thing` called around each fork of this process, as long as it lives."""
    with _forking:
        _guarded.add(thing)


class ClosedInChildren:
    """Calls `close` in each forked child, as long as this object lives."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close
        guard(self)

    def before_fork(self) -> None:
        """Nothing has to be stopped."""

    def after_fork_in_parent(self) -> None:
        """Nothing was stopped."""

    def after_fork_in_child(self) -> None:
        """Close it in this process."""
        self._close()


@contextmanager
def own_process() -> Iterator[None]:
    """Leave a child that is forked inside of this all that its parent has: it serves, too."""
    _thread.forks_for_server = True
    try:
        yield
    finally:
        _thread.forks_for_server = False


def _before() -> None:
    _forking.acquire()
    _stopped[:] = _guarded
    for thing in _stopped:
        thing.before_fork()


def _after_in_parent() -> None:
    _forking.acquire()  # in a second call another thread may have it
    for thing in reversed(_stopped):
        thing.after_fork_in_parent()
    _release()


def _after_in_child() -> None:
    _forking.acquire()
    for thing in reversed(_stopped):
        if getattr(_thread, "forks_for_server", False):
            thing.after_fork_in_parent()
        else:
            thing.after_fork_in_child()
    _release()


def _release() -> None:
    _stopped.clear()
    with suppress(RuntimeError):  # it is not this thread's any more
        while True:
            _forking.release()


# Python drops an exception of such a function, one of a signal handler too, which may come at any
# point of it. So each is called twice, and the second call does what the first one has not done.
for _ in range(2):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )


def leave_child(error: BaseException | None = None) -> NoReturn:
    """End a child of the application that has come back to the server, whose code it cannot run.

    `error` is what the application has raised in the child. `sys.exit` there means what it says;
    anything else is an error of the application, and exit status 1. The child ends even if it
    cannot say why.
    """
    status = 1
    try:
        code = error.code if isinstance(error, SystemExit) else ""
        if code is None or isinstance(code, int):
            status = (code or 0) & 0xFF
        elif isinstance(error, SystemExit):
            write_standard_error(f"{code}\n")
        else:
            get_logger().error(
                "process %d, forked by the application, has returned to the server of its parent; "
                "it cannot serve and ends: call os._exit in it, or use multiprocessing",
                os.getpid(),
                exc_info=error,
            )
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
        finally:
            os._exit(status)
