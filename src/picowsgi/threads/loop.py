"""One event loop of a process, and the threads that serve on it.

Never shares a lock or a cache that a request needs with another loop.
"""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.log import get_logger, log_stack, show
from picowsgi.system.cpus import has_gil, usable_cpus
from picowsgi.threads.incidents import log_incidents
from picowsgi.wsgi.environ import SharedState, base_environ
from picowsgi.wsgi.request_id import WithId
from picowsgi.wsgi.request_timeout import CAN_INTERRUPT, Guard, interrupt_application

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings
    from picowsgi.wsgi.gateway import Gateway

#: Starts a thread with this name, which runs this function.
StartThread = Callable[[str, Callable[[], object]], threading.Thread]

_WATCHER = "picowsgi-watch"
_NO_THREAD = "one more thread is needed but cannot be started: %s"


def share_out(settings: Settings) -> list[Settings]:
    """Return the settings of each loop of a process: its part of threads, connections and memory.

    Without `loops` there are as many loops as can run at once: one with the GIL, otherwise one for
    each CPU that is left to the process. Each loop has at least one thread and one connection.
    """
    wanted = settings.loops
    if wanted == 0:
        wanted = 1 if has_gil() else max(1, usable_cpus() // settings.workers)
    count = min(wanted, settings.threads, settings.max_connections)
    return [
        replace(
            settings,
            threads=_part(settings.threads, number, count),
            max_connections=_part(settings.max_connections, number, count),
            head_memory_total=_part(settings.head_memory_total, number, count),
            body_memory_total=_part(settings.body_memory_total, number, count),
        )
        for number in range(count)
    ]


def warn(settings: Settings) -> None:
    """Warn about loops that cannot start, or have no effect."""
    if settings.loops > 1 and has_gil():
        get_logger().warning(
            "--loops %d: only one thread of this Python runs at a time, because it has its lock "
            "(GIL), so more loops than one gain nothing",
            settings.loops,
        )
    count = len(share_out(settings))
    if settings.loops > count:
        get_logger().warning(
            "--loops is lowered from %d to %d: each needs a thread (--threads %d) and a connection "
            "(--max-connections %d)",
            settings.loops,
            count,
            settings.threads,
            settings.max_connections,
        )


def _part(whole: int, number: int, count: int) -> int:
    return whole // count + (number < whole % count)


class Loop:
    """Serves `application` on `sockets`, with up to `settings.threads` threads.

    The environ of each request contains `common`. Each serving thread calls `make_gateway` with the
    arguments of `Gateway`. Raises OSError if the system refuses a resource.
    """

    def __init__(
        self,
        name: str,
        application: WSGIApplication,
        sockets: Sequence[socket.socket],
        settings: Settings,
        *,
        access: core.AccessOutput,
        balance: core.Balance | None,
        metrics: core.Metrics | None,
        common: Mapping[str, Any],
        make_gateway: Callable[..., Gateway],
    ) -> None:
        self._name = name
        self._application = application
        self._settings = settings
        self._make_gateway = make_gateway
        self._has_ids = access.request_ids
        self.core = core.CoreServer(sockets, settings, access, balance, metrics)
        self._bases = [base_environ(sock, common) for sock in sockets]
        self._shared = SharedState(self.core)
        #: The serving threads by their number in the core, and their guards. A new thread gets the
        #: number of a thread that has ended.
        self._threads: list[threading.Thread] = []
        self._guards: dict[int, Guard] = {}
        #: The core's request object of each thread, by the thread's number.
        self._requests: dict[int, Any] = {}
        #: A request has run for twice `timeout_request`, so the process must be replaced.
        self.is_stuck = False
        #: The number of threads with stuck requests that are left at the end of the server.
        self.left_behind = 0

    def start(self, start_thread: StartThread) -> None:
        """Begin to serve, in threads that `start_thread` starts."""
        self._start_serving_thread(start_thread)
        start_thread(_WATCHER, partial(self._watch, start_thread))

    def log_stuck(self) -> None:
        """Log the stacks of the serving threads that have not ended."""
        for number, thread in enumerate(self._threads):
            stack = _stack_of(thread)
            if stack:
                text = f"{thread.name} has not ended and is left behind at:"
                log_stack(text, stack, self._request_id(number))

    def _request_id(self, number: int) -> str:
        request = self._requests.get(number)
        return "" if request is None else core.request_id(request)

    def _start_serving_thread(self, start_thread: StartThread) -> None:
        ended = (number for number, one in enumerate(self._threads) if not one.is_alive())
        number = next(ended, len(self._threads))
        thread = start_thread(f"{self._name}-{number}", partial(self._serve, number))
        self._threads[number : number + 1] = [thread]

    def _serve(self, number: int) -> None:
        try:
            gateway = self._gateway_of(number)
        except Exception as error:
            if number == 0:  # the first thread: without it the server cannot start
                raise
            get_logger().error(_NO_THREAD, show(error))
            return
        gateway.run()
        log_incidents(self.core, self._settings)  # the watcher may have ended earlier

    def _gateway_of(self, number: int) -> Gateway:
        thread = core.CoreThread(self.core, number)
        application, settings = self._application, self._settings
        if settings.timeout_request and not has_gil():
            application = self._guards[number] = Guard(application)
        if self._has_ids:
            self._requests[number] = thread.request
            application = WithId(application, thread.request)
        return self._make_gateway(
            application, thread, self._bases, self._shared, debug=settings.debug
        )

    def _watch(self, start_thread: StartThread) -> None:
        while True:
            what, number = self.core.watch()
            if what == core.WATCH_STOP:
                self.left_behind = number
                return
            try:
                self._act(start_thread, what, number)
            except Exception as error:  # such as no memory; the threads still need a watcher
                message = "an error in the watcher thread, which continues"
                get_logger().error(message, exc_info=error)

    def _act(self, start_thread: StartThread, what: int, number: int) -> None:
        if what == core.WATCH_INCIDENT:
            log_incidents(self.core, self._settings)
        elif what == core.WATCH_START:
            try:
                self._start_serving_thread(start_thread)
            except (RuntimeError, MemoryError) as error:  # the system cannot start a thread
                self.core.note_failed_thread()
                get_logger().error(_NO_THREAD, show(error))
        else:
            self._interrupt(number, stuck=what == core.WATCH_STUCK)

    def _interrupt(self, number: int, *, stuck: bool) -> None:
        """Log a request that takes too long, and raise RequestTimeoutError in its thread.

        On PyPy, or if an earlier exception did not end the request (`stuck`), this only logs.
        """
        thread = self._threads[number]
        seconds = self._settings.timeout_request
        stack = _stack_of(thread)
        if not stack:
            return
        if stuck:
            self.is_stuck = True
            text = f"has not ended {seconds:g} s after its time was up; the thread is at:"
        elif CAN_INTERRUPT:
            text = f"has run for {seconds:g} s and is interrupted at:"
        else:
            text = f"has run for {seconds:g} s; PyPy cannot interrupt it; it is at:"
        log_stack(f"a request of {thread.name} {text}", stack, self._request_id(number))
        if CAN_INTERRUPT and not stuck:
            interrupt_application(thread.ident or 0, self._guards.get(number))


def _stack_of(thread: threading.Thread) -> str:
    """Return the stack of a thread, formatted as a traceback; empty: it has ended."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
