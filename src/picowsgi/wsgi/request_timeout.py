"""Raises RequestTimeoutError in an application whose request takes too long.

Never raises it in the server's own code, where it would not end a request.
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

#: Whether this Python can interrupt a request. PyPy raises an exception in another thread later,
#: when the thread may run any code, even the code that sends a response.
CAN_INTERRUPT = sys.implementation.name == "cpython"

#: The functions that call the application. An exception in the application ends its request there.
_callers: set[CodeType] = set()
#: The modules of this package that are part of an application, and may be interrupted.
_APPLICATIONS = ("picowsgi.app.live_reload", "picowsgi.app.mount", "picowsgi.contrib.")


def calls_application(*functions: Callable[..., object]) -> None:
    """Register functions that call the application in a `try` with a `checkpoint` at its end."""
    _callers.update(function.__code__ for function in functions)


def checkpoint() -> None:
    """Do nothing. At a call Python raises the exception that another thread has set.

    Call this inside of a `try`.
    """


def interrupt_application(ident: int, guard: Guard | None) -> None:
    """Raise RequestTimeoutError in the thread `ident`, if it is in the application now.

    With the GIL, no other thread runs between the check of the frames and the exception, because
    this thread holds the GIL. Without it, `guard` is the thread's application.
    """
    import ctypes  # slow to import, and only a request that takes too long needs it

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
    """The application of one thread, in a Python without the GIL.

    Each thread has a lock of its own. Another thread holds that lock while it checks where the
    thread is and sets the exception. The thread takes the lock each time that it returns from the
    application to the server. Therefore an exception that was set in time is raised there at the
    latest, and none is set after that.
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
        """Leave the application. Raises RequestTimeoutError if another thread has set it."""
        with self.lock:
            pass
        checkpoint()


class _GuardedResult:
    """The iterable that an application has returned, guarded while the server iterates over it."""

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
