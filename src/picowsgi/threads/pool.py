"""The serving threads of a process, which start when they are needed, on one or several loops.

Never reads a socket itself, and never gives a thread two requests at a time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.log import get_logger
from picowsgi.threads import loop
from picowsgi.threads.access_log import AccessLog
from picowsgi.threads.incidents import describe_lost_lines
from picowsgi.wsgi.gateway import EXTENSIONS, Gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings

_NOTHING: Mapping[str, Any] = {}
_LOG_MOST = 2.0  # seconds at the end for unwritten lines of the access log
_LOG_QUIET = 0.3  # seconds of these without a line that can be written
_LOOK = 0.25  # seconds: how soon join() notices a call of stop()
_GRACE = 1.0  # seconds for a thread to come back after its stream is cut off
_SHORT_GRACE = 0.2


class ThreadPool:
    """Serves `application` on `sockets`, with up to `settings.threads` threads.

    The caller keeps the sockets. The environ of each request contains `environ`. Each serving
    thread calls `make_gateway` with the arguments of `Gateway`. Raises OSError if the system
    refuses a resource.
    """

    def __init__(
        self,
        application: WSGIApplication,
        sockets: Sequence[socket.socket],
        settings: Settings,
        *,
        multiprocess: bool = False,
        balance: core.Balance | None = None,
        metrics: core.Metrics | None = None,
        environ: Mapping[str, Any] = _NOTHING,
        make_gateway: Callable[..., Gateway] = Gateway,
    ) -> None:
        self._settings = settings
        #: The process that owns the threads and sockets. In a forked child there is nothing to end.
        self._process = os.getpid()
        self._access = AccessLog(settings)
        common = {
            **EXTENSIONS,
            "SCRIPT_NAME": settings.root_path.encode().decode("latin-1"),
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": multiprocess,
            **environ,
        }
        parts = loop.share_out(settings)
        if len(parts) > 1 and balance is None:
            balance = core.Balance()
        self._loops = [
            loop.Loop(
                "picowsgi" if len(parts) == 1 else f"picowsgi-{number}",
                application,
                sockets,
                part,
                access=self._access.output,
                balance=balance,
                metrics=metrics,
                common=common,
                make_gateway=make_gateway,
            )
            for number, part in enumerate(parts)
        ]
        #: Guards the next two fields, and the closing of the log.
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._is_closed = False
        #: All threads have ended, or all that are left will not come back.
        self._over = threading.Event()
        self._deadline: float | None = None
        self._cuts_streams = False
        #: Threads were left behind, because their requests did not end.
        self.gave_up = False
        #: The exception that has ended a thread of the server.
        self.error: BaseException | None = None
        #: Called by the last thread that ends.
        self.on_end: Callable[[], object] = lambda: None

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return bool(self._threads)

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    @property
    def requests(self) -> int:
        """The number of requests that the threads have taken."""
        return sum(one.core.requests for one in self._loops)

    @property
    def is_stuck(self) -> bool:
        """Whether a request has run for twice `timeout_request`, so this process must go."""
        return any(one.is_stuck for one in self._loops)

    def share(self, source: socket.socket, target: socket.socket) -> None:
        """Take connections from other processes, and leave connections to them at the end.

        `source` and `target` are a pair of the type SOCK_STREAM. All these processes have the pair,
        until it is shut down.
        """
        for one in self._loops:
            one.core.share(source, target)

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError in a forked child of the process that made this."""
        if self._is_forked:
            raise RuntimeError("the server belongs to the process that has made it")
        with self._lock:
            self._running += 1  # for this thread: one loop may end before the next one begins
        try:
            self._access.start()
            for one in self._loops:
                one.start(self._start_thread)
        finally:
            self._note_end()

    @property
    def open_requests(self) -> int:
        """The number of requests that have begun and whose responses are not sent or cut off."""
        return sum(one.core.open_requests for one in self._loops)

    def announce_stop(self) -> None:
        """Answer health checks with 503 and close connections after a response; serve as before."""
        for one in self._loops:
            one.core.announce_stop()

    def stop(self, *, others_accept: bool = False) -> None:
        """Drain and end. Another call during the drain changes nothing.

        The threads serve all connections that the system has accepted, also those that wait for
        room. `others_accept`: other processes continue to accept from the sockets, and take the
        connections that wait for room here. Any thread or signal handler may call this.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + self._settings.timeout_graceful
        self._stop_loops(core.LEAVE if others_accept else core.DRAIN)

    def cut_streams(self, *, hurry: bool) -> None:
        """Cut off responses that stream, now and later, because a developer restarts or stops.

        The connections are closed at once, even if a thread is blocked in the application. `hurry`:
        the end of the server waits only a moment for these threads, and not a second. Call this
        before `stop`.
        """
        self._cuts_streams = True
        for one in self._loops:
            one.core.cut_streams(_SHORT_GRACE if hurry else _GRACE)

    def stop_now(self) -> None:
        """End at once, and cut open requests. Any thread or signal handler may call this."""
        self._deadline = time.monotonic()
        self._stop_loops(core.END)

    def _stop_loops(self, how: int) -> None:
        for one in self._loops:
            one.core.stop(how)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads have ended. Return False after `timeout` seconds; None: no limit.

        Requests that are still in the application at the end of a drain are left behind, with their
        threads. The log has the stacks of these threads.
        """
        if self._is_forked:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        while not self._over.wait(_LOOK if timeout is None else min(_LOOK, timeout)):
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline + _LOOK:
                self._leave_threads()
                return True
            if until is not None and now >= until:
                return False
        if self._running:
            self._leave_threads()
            return True
        for thread in self._threads:
            thread.join(_LOOK)
        self.close()
        return True

    def _leave_threads(self) -> None:
        self.gave_up = True
        if not self._cuts_streams:  # a developer knows why
            for one in self._loops:
                one.log_stuck()
        self.close()

    def close(self) -> None:
        """Close the access log. After `start`, `join` does it.

        Threads that were left behind write no more lines to it.
        """
        if self._is_forked:
            return
        with self._lock:
            is_first = not self._is_closed
            self._is_closed = True
            lost = sum(one.core.end_log(_LOG_MOST, _LOG_QUIET) for one in self._loops)
            lost += self._access.close(_LOG_MOST, _LOG_QUIET)
        dropped = sum(one.core.dropped_headers for one in self._loops)
        if dropped and is_first:
            get_logger().warning(
                "%d headers with an underscore in their name were dropped (--underscore-fields)",
                dropped,
            )
        refused = sum(one.core.refused_by_proxy_protocol for one in self._loops)
        if refused and is_first:
            get_logger().warning(
                "connections closed because of their PROXY header, or because their peer is not in "
                "--forwarded-allow-ips (--proxy-protocol): %d",
                refused,
            )
        if lost:
            get_logger().warning("%s", describe_lost_lines(lost, "no process read it at the end"))

    def reopen_logs(self) -> None:
        """Open the file of the access log again, after a rotation."""
        self._access.reopen(self._log_to)

    def _log_to(self, descriptor: int) -> None:
        for one in self._loops:
            one.core.log_to(descriptor)

    def _start_thread(self, name: str, target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive() or not one.ident]
            self._threads.append(thread)
            self._running += 1
        try:
            thread.start()
        except BaseException:
            # Ctrl-C may come while `start` waits for a thread that runs already.
            if thread.ident is None and thread not in threading.enumerate():
                with self._lock:
                    self._threads.remove(thread)
                    self._running -= 1
            raise
        return thread

    def _run(self, target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as error:  # not the application's: an exception there ends a request
            self.error = error
            self._stop_loops(core.END)
            get_logger().critical("a thread of the server has failed", exc_info=error)
        finally:
            self._note_end()

    def _note_end(self) -> None:
        with self._lock:
            self._running -= 1
            left = self._running
        # The last ones may be threads that are stuck, or whose stream is cut off.
        if left in (0, sum(one.left_behind for one in self._loops)):
            self._over.set()
            self.on_end()
