"""Closes the server in a child process that the application forks.

A server belongs to the process that made it. In a child of the application (os.fork,
multiprocessing) its sockets are closed, the signals have their default handlers, and the child does
not serve.

Never forks itself. The server forks its own processes inside of `own_process`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

from picowsgi.line_output import end_outputs, flush_standard_streams
from picowsgi.log import get_logger, write_standard_error


class Guarded(Protocol):
    """A part of a server that the forked children of its process must not have."""

    # Each method may be called twice before the next one. The second call changes nothing.

    def before_fork(self) -> None:
        """Bring the object into a state that a child can close."""

    def after_fork_in_parent(self) -> None:
        """Continue in the parent."""

    def after_fork_in_child(self) -> None:
        """Close the object in the child, without an effect on the parent."""


#: Held from before a fork until after it, in the parent and in the child: one fork at a time.
#: Guards the next two objects. A thread takes this lock before the lock of a core.
_forking = threading.RLock()
_guarded: WeakSet[Guarded] = WeakSet()
#: The objects whose `before_fork` the current fork has called.
_stopped: list[Guarded] = []
_thread = threading.local()


def guard(thing: Guarded) -> None:
    """Call the methods of `thing` around each fork of this process, while `thing` exists."""
    with _forking:
        _guarded.add(thing)


class ClosedInChildren:
    """Calls `close` in each forked child, while this object exists."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close
        guard(self)

    def before_fork(self) -> None:
        """Do nothing."""

    def after_fork_in_parent(self) -> None:
        """Do nothing."""

    def after_fork_in_child(self) -> None:
        """Call `close`."""
        self._close()


@contextmanager
def own_process() -> Iterator[None]:
    """Keep the server open in a child that is forked inside of this, because it serves too."""
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
    _forking.acquire()  # in a second call another thread may hold the lock
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
    with suppress(RuntimeError):  # this thread does not hold it any more
        while True:
            _forking.release()


# A signal handler may raise an exception at any point of such a function, and Python drops the
# exception. Therefore Python calls each function twice, and the second call completes the first.
for _ in range(2):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )


def leave_child(error: BaseException | None = None) -> NoReturn:
    """End a child of the application that has returned to the server, because it cannot serve.

    `error` is the exception that the application has raised in the child. SystemExit gives the exit
    status. Any other exception, or a return, is an error: it is logged, and the exit status is 1.
    The child ends even if it cannot log the error.
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
            flush_standard_streams()
            end_outputs()
        finally:
            os._exit(status)
