"""The serving threads of a process: born when they are needed, all on one event loop.

Never reads a socket itself, and never lets a thread have two requests at a time.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.access import AccessLog
from picowsgi.environ import Kept, base_environ
from picowsgi.gateway import EXTENSIONS, Gateway, interrupt_application
from picowsgi.log import get_logger
from picowsgi.notice import log_notices

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config import Settings

_WATCHER = "picowsgi-watch"
_NOTHING: Mapping[str, Any] = {}
_LOOK = 0.25  # seconds: how soon join() sees that a stop was asked for


class Worker:
    """Serves `application` on `sockets`, which stay the caller's, with up to `settings.threads`.

    `environ` is added to that of each request. `make_gateway` is called in each serving thread with
    what `Gateway` is made of.
    Raises OSError where the system refuses what the core needs.
    """

    def __init__(
        self,
        application: WSGIApplication,
        sockets: Sequence[socket.socket],
        settings: Settings,
        *,
        multiprocess: bool = False,
        balance: core.Balance | None = None,
        environ: Mapping[str, Any] = _NOTHING,
        make_gateway: Callable[..., Gateway] = Gateway,
    ) -> None:
        self._application = application
        self._settings = settings
        self._make_gateway = make_gateway
        self._access = AccessLog(settings)
        self._core = core.CoreServer(sockets, settings, self._access, balance)
        common = {
            **EXTENSIONS,
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": multiprocess,
            **environ,
        }
        self._bases = [base_environ(sock, common) for sock in sockets]
        self._kept = Kept()
        #: Guards the three below, and the closing of the log.
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        #: Whether a request did not end though its time was up: the process has to be replaced.
        self.is_stuck = False
        self._running = 0
        self._over = threading.Event()
        self._deadline: float | None = None
        #: Why a serving thread ended though nobody asked for it.
        self.error: BaseException | None = None
        #: Called by the last thread that ends.
        self.on_end: Callable[[], object] = lambda: None

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return bool(self._threads)

    @property
    def requests(self) -> int:
        """How many requests have been taken."""
        return self._core.requests

    def share(self, source: socket.socket, target: socket.socket) -> None:
        """Take connections from other processes, and at the end leave them to others.

        The two are a pair of the type SOCK_STREAM that all of them have, until it is shut down.
        """
        self._core.share(source, target)

    def start(self) -> None:
        """Begin to serve."""
        self._bear_serving()
        self._bear(_WATCHER, self._watch)

    def stop(self) -> None:
        """Drain and end; a second call ends at once. From any thread, or a signal handler."""
        now = time.monotonic()
        self._deadline = now + self._settings.timeout_graceful if self._deadline is None else now
        self._core.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until serving has ended; False when `timeout` seconds were not enough.

        Requests that are still in the application at the end of a drain are given up: their
        threads are named in the log, and left.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._over.wait(_LOOK if timeout is None else min(_LOOK, timeout)):
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline + _LOOK:
                self._give_up()
                return True
            if until is not None and now >= until:
                return False
        for thread in self._threads:
            thread.join(_LOOK)
        self.close()
        return True

    def close(self) -> None:
        """Close the log; of a worker that was started, `join` does it."""
        with self._lock:
            self._access.close()

    def reopen_logs(self) -> None:
        """Open the access log's file anew, as after a rotation."""
        self._access.reopen(self._core.log_to)

    def _bear(self, name: str, target: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
        with self._lock:
            self._threads.append(thread)
            self._running += 1
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.remove(thread)
                self._running -= 1
            raise

    def _run(self, target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as error:  # not an application's: those end with their request
            get_logger().critical("a thread of the server has failed", exc_info=error)
            self.error = error
            self._core.stop()
            self._core.stop()
        finally:
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if last:
                self._over.set()
                self.on_end()

    def _serve(self, number: int) -> None:
        thread = core.CoreThread(self._core, number)
        debug = self._settings.debug
        self._make_gateway(self._application, thread, self._bases, self._kept, debug=debug).run()
        log_notices(self._core, self._settings)  # the watcher may have ended before

    def _bear_serving(self) -> None:
        number = len(self._threads)
        self._bear(f"picowsgi-{number}", partial(self._serve, number))

    def _watch(self) -> None:
        while True:
            what, number = self._core.watch()
            if what == core.WATCH_STOP:
                return
            if what == core.WATCH_NOTICE:
                log_notices(self._core, self._settings)
            elif what == core.WATCH_BIRTH:
                try:
                    self._bear_serving()
                except RuntimeError as error:  # the system has no room for another thread
                    get_logger().error("one more thread is needed but cannot be had: %s", error)
            else:
                self._interrupt(self._threads[number], stuck=what == core.WATCH_STUCK)

    def _interrupt(self, thread: threading.Thread, *, stuck: bool) -> None:
        """Raise RequestTimeoutError in a thread whose request takes too long."""
        seconds = self._settings.timeout_request
        stack = _stack_of(thread)
        if not stack:
            return
        if stuck:
            self.is_stuck = True
            text = "a request of %s has not ended %g s after its time was up; the thread is at:\n%s"
        else:
            text = "a request of %s has run for %g s and is interrupted at:\n%s"
        get_logger().error(text, thread.name, seconds, stack)
        if not stuck:
            interrupt_application(thread.ident or 0)

    def _give_up(self) -> None:
        for thread in self._threads:
            stack = _stack_of(thread)
            if stack and thread.name != _WATCHER:
                get_logger().error(
                    "%s has not ended and is left behind at:\n%s", thread.name, stack
                )


def _stack_of(thread: threading.Thread) -> str:
    """Where a thread is, as a traceback shows it; empty when it has ended."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
