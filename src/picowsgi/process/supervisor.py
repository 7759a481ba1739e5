"""The loop of a supervisor: it waits for signals and messages, and does the work that is due.

It treats threads of this process, forked workers and other processes that serve in the same way.
Never touches a connection.
"""

from __future__ import annotations

import math
import select
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.errors import AppImportError
from picowsgi.log import get_logger
from picowsgi.process import status_pipe
from picowsgi.process.control import Control, Phase
from picowsgi.process.service import Service
from picowsgi.system import debugger, orphans
from picowsgi.system.terminal import describe_wait

if TYPE_CHECKING:
    from picowsgi.process.status_pipe import StatusPipe

_HEARTBEAT = 1.0  # seconds between two heartbeats
_COUNT = 0.2  # seconds between two checks of the number of requests
_REPORT = 0.1  # seconds between two reports of a worker for whose end a developer waits


def supervise(service: Service) -> int:
    """Serve until a signal, or until no member can serve. Returns the exit status.

    Raises AppImportError if the application cannot be loaded at the start.
    """
    return _Supervisor(service).run()


class _Supervisor(Control):
    """The control thread of one process. `forked`: the process is a worker, and serves itself."""

    def __init__(self, service: Service, *, forked: bool = False) -> None:
        super().__init__(service, self._be_worker, forked=forked)

    def _be_worker(self, pipe: StatusPipe) -> int:
        """Serve in a forked worker. Returns its exit status."""
        service = replace(
            self._service, status_pipe=pipe, command=None, pid_file=None, inherited=None
        )
        service.on_ready = lambda _sockets: None
        service.notifier.disable()
        try:
            return _Supervisor(service, forked=True).run()
        except AppImportError as error:
            pipe.send_failure(error)
            return 1

    def run(self) -> int:
        """Start, supervise and end the service. Returns the exit status."""
        workers = self._workers
        self._signals.install()
        try:
            if self._inline is not None:
                self._service.hooks.call("worker_start")
                self._inline.start()
            while True:
                self._step(time.monotonic())
                if workers.over:
                    break
                self._wait()
                for number in self._signals.take():
                    self._on_signal(number)
        finally:
            workers.kill()
            self._end_inline()
            self._service.files_are_ours = not self._others_listen()
            self._signals.restore()
            if not self._forked:
                debugger.restore_terminal()
        if workers.failure is not None:
            raise workers.failure
        return 1 if workers.failed else 0

    def _wait(self) -> None:
        """Wait until a signal or a message comes, or until a step is due."""
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        pipe = self._service.status_pipe
        if pipe is not None and pipe.fileno() >= 0:
            poll.register(pipe.fileno(), select.POLLIN)
        processes = [*self._workers.processes(), *self._upgrade.processes()]
        for one in processes:
            if one.channel >= 0:
                poll.register(one.channel, select.POLLIN)
        reloader = self._service.reloader
        if reloader is not None and not self._forked and reloader.changes >= 0:
            poll.register(reloader.changes, select.POLLIN)
        wait = self._time_to_step(time.monotonic())
        poll.poll(None if wait == math.inf else wait * 1000 + 1)
        for one in processes:
            one.read()

    def _time_to_step(self, now: float) -> float:
        """Return the seconds until a step is due, which may be infinite."""
        pipe, reloader = self._service.status_pipe, self._service.reloader
        wait = self._workers.wait_for(now)
        if self._phase is Phase.DELAYED:
            wait = min(wait, max(0.0, self._stop_at - now))
        if pipe is not None:
            wait = min(wait, _COUNT if self._requests_most else _HEARTBEAT)
        if self._inline is not None and self._service.settings.timeout_request:
            wait = min(wait, _HEARTBEAT)
        if self._reports_requests:
            wait = min(wait, _REPORT)
        if self._changed:
            wait = min(wait, debugger.CHECK)
        if self._forked and reloader is not None and not reloader.has_reported:
            wait = min(wait, _REPORT)
        wait = min(wait, max(0.0, self._explain_at - now))
        if self._service.notifier.interval:
            wait = min(wait, self._service.notifier.interval)
        return wait

    def _step(self, now: float) -> None:
        """Do the work that is due."""
        service, workers, pipe = self._service, self._workers, self._service.status_pipe
        self._upgrade.check()
        if self._phase is Phase.AWAITING_SUCCESSOR and not self._upgrade.is_starting():
            self._begin_stop(now)
        if self._phase is Phase.DELAYED and now >= self._stop_at:
            self._stop(interrupted=self._interrupted > -math.inf)
        if pipe is not None:
            self._follow_orders(pipe)
        if service.reloader is not None and not self._forked:
            self._reload_changes(service.reloader, now)
        workers.step(now)
        self._reap_orphans()
        if workers.ready and not self._announced:
            self._announce()
        self._share_metrics()
        if self._reloading and not workers.reloading:
            self._reloading = False
            service.notifier.ready()
        if self._application_is_stale:
            self._drop_application()
        self._explain_wait(now)
        self._send_heartbeat(now)
        if self._inline is not None and self._inline.is_stuck and not self._replaced:
            self._replaced = True  # Python cannot end a thread, but a new process can replace it
            if pipe is not None or service.command is not None:
                self._reload(core.RESTART_TIMEOUT)

    def _share_metrics(self) -> None:
        """Leave the page of --metrics to the newest process that serves."""
        metrics, inherited = self._service.metrics, self._service.inherited
        if metrics is not None:
            is_successor = inherited is not None and inherited.role == "successor"
            metrics.pause((is_successor and not self._announced) or self._upgrade.serves())

    def _announce(self) -> None:
        """Report that the server is ready: to the user, the service manager, and a supervisor."""
        service, pipe = self._service, self._service.status_pipe
        self._announced = True
        service.on_ready(service.sockets)
        service.notifier.ready()
        if pipe is not None:
            pipe.send(status_pipe.READY)
        if service.inherited is not None:
            service.inherited.report_ready()
        # Below the banner, a process that has loaded the application may log more.
        for one in self._workers.processes():
            one.greet()
        if self._inline is not None and not self._forked:
            service.after_greeting()

    def _explain_wait(self, now: float) -> None:
        """Some time after Ctrl-C, say for how many requests the server waits.

        A worker reports the number to its supervisor.
        """
        if self._reports_requests and self._service.status_pipe is not None:
            known = min(self._workers.open_requests, status_pipe.REQUESTS_MOST)
            self._service.status_pipe.send(status_pipe.REQUESTS + known)
        if now >= self._explain_at:
            self._explain_at = math.inf
            count = self._workers.open_requests
            if count:
                get_logger().info("%s", describe_wait(count))

    def _reap_orphans(self) -> None:
        if self._reaps:
            own = {one.pid for one in (*self._workers.processes(), *self._upgrade.processes())}
            orphans.reap(self._application_children | own)

    def _send_heartbeat(self, now: float) -> None:
        """Send heartbeats to the service manager and the supervisor, if a member is alive."""
        service, inline = self._service, self._inline
        interval = max(_HEARTBEAT + 1, service.notifier.interval)
        if not any(
            one.ready and (one is inline or now - one.last_heartbeat < interval)
            for one in self._workers.members
        ):
            return
        service.notifier.ping(now)
        pipe = service.status_pipe
        if pipe is None:
            return
        if service.reloader is not None and not service.reloader.has_reported:
            service.reloader.report_modules()
        if now - self._last_heartbeat >= _HEARTBEAT - 0.1:
            self._last_heartbeat = now
            pipe.send(status_pipe.HEARTBEAT)
            if service.reloader is not None:
                service.reloader.report_modules()
        has_served_enough = inline is not None and 0 < self._requests_most <= inline.requests
        if has_served_enough and pipe.ask_for_replacement(core.RESTART_REQUESTS):
            self._requests_most = 0  # one request for a replacement is enough
