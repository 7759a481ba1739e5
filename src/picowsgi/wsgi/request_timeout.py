"""Raises RequestTimeoutError in an application whose request takes too long.

Never raises it in the server's own code, where no request could be ended by it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import CodeType
from typing import TYPE_CHECKING, Any

from picowsgi.errors import RequestTimeoutError
from picowsgi.wsgi.response import FileWrapper

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Whether it can. PyPy raises an exception in another thread only some time later, when that thread
#: may be anywhere, in the middle of a response too.
CAN_INTERRUPT = sys.implementation.name == "cpython"

#: The functions that call the application, and can end a request at any point of its run.
_callers: set[CodeType] = set()
#: Of the modules here these are part of an application, and may be interrupted as one.
_APPLICATIONS = ("picowsgi.app.mount", "picowsgi.contrib.")


def calls_application(*functions: Callable[..., object]) -> None:
    """Note functions that call the application inside of a `try` with a `checkpoint` at its end."""
    _callers.update(function.__code__ for function in functions)


def checkpoint() -> None:
    """A call, at which Python raises what another thread has set: inside of a `try`, that is."""


def interrupt_application(ident: int, guard: Guard | None) -> None:
    """Raise RequestTimeoutError in the thread `ident`, if it is in the application now.

    Where Python has its lock, nothing runs between the look and the raising, because this thread
    has it; elsewhere the thread's application has to be a `guard`.
    """
    import ctypes  # only where a request takes too long

    with guard.lock if guard is not None else nullcontext():
        frame = sys._current_frames().get(ident)
        top = True
        while frame is not None and not _is_ours(frame.f_globals.get("__name__", "")):
            frame, top = frame.f_back, False
        if top or frame is None or frame.f_code not in _callers:
            return
        raised = ctypes.py_object(RequestTimeoutError)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)


def _is_ours(module: str) -> bool:
    return module.startswith("picowsgi.") and not module.startswith(_APPLICATIONS)


class Guard:
    """An application of one thread, to be interrupted where Python has no lock.

    Who interrupts it looks where it is, and raises, holding a lock that is of this thread alone; it
    takes that lock on each way from the application to the server. So what has been raised in time
    comes up there at the latest, and afterwards nothing more is.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self.lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        def start(*arguments: Any, **keywords: Any) -> Callable[[bytes], object]:
            self.leave()
            write = start_response(*arguments, **keywords)

            def guarded_write(data: bytes) -> None:
                self.leave()
                write(data)

            return guarded_write

        try:
            result = self._application(environ, start)
        finally:
            self.leave()
        if isinstance(result, (list, tuple, FileWrapper)):
            return result
        return _GuardedResult(result, self)

    def leave(self) -> None:
        """Leave the application; raises RequestTimeoutError where that is due."""
        with self.lock:
            pass
        checkpoint()


class _GuardedResult:
    """What an application has returned, to be iterated by the server."""

    def __init__(self, result: Any, guard: Guard) -> None:
        self._result = result
        self._guard = guard

    def __iter__(self) -> Iterator[bytes]:
        try:
            self._items = iter(self._result)
        finally:
            self._guard.leave()
        return self

    def __next__(self) -> bytes:
        try:
            item: bytes = next(self._items)
        finally:
            self._guard.leave()
        return item

    def close(self) -> None:
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._guard.leave()


calls_application(
    Guard.__call__, _GuardedResult.__iter__, _GuardedResult.__next__, _GuardedResult.close
)
