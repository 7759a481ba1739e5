"""The actions of a supervisor: on a signal, on an order of its own supervisor, after a change.

The members that serve are threads of this process or forked workers. After a reload of a process
that has loaded the application itself, the member is a new process of the same command. All of them
are treated in the same way. Never waits: `supervisor` has the loop.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from picowsgi import core, log
from picowsgi.log import get_logger
from picowsgi.process import ending, status_pipe
from picowsgi.process.members import ChildProcess, OwnThreads
from picowsgi.process.service import Service
from picowsgi.process.spawner import Spawner, freeze
from picowsgi.process.upgrade import Upgrade
from picowsgi.process.workers import Workers
from picowsgi.system import debugger, orphans
from picowsgi.system.signals import ALL, FEW, STOP, Signals
from picowsgi.system.sockets import close_backlog
from picowsgi.system.terminal import DEVELOPER_GRACE, SAME_INTERRUPT, is_foreground

if TYPE_CHECKING:
    from collections.abc import Callable

    from picowsgi.process.status_pipe import StatusPipe
    from picowsgi.reload.reloader import Reloader

_AT_ONCE = 1.0  # seconds to end without draining
_EXPLAIN_AFTER = 0.35  # seconds after Ctrl-C until the log says for what the server waits
_STANDARD_ERROR = 2


class Phase(IntEnum):
    """The phase of a supervisor's life. It only moves down this list."""

    #: No request to stop has come.
    SERVING = auto()
    #: The supervisor stops as soon as its successor serves, or has failed.
    AWAITING_SUCCESSOR = auto()
    #: The members serve for --drain-delay, and health checks get a 503.
    DELAYED = auto()
    #: All members drain, or end.
    STOPPING = auto()


class Control:
    """The state of a supervisor, and the actions that change it.

    `forked`: the process is a worker, and serves itself. `be_worker` serves in a forked worker, and
    returns its exit status.
    """

    def __init__(
        self, service: Service, be_worker: Callable[[StatusPipe], int], *, forked: bool
    ) -> None:
        self._service = service
        self._forked = forked
        self._is_keeper = service.inherited is not None and service.inherited.role == "keeper"
        self._phase = Phase.SERVING
        #: The end of the phase DELAYED (`time.monotonic`).
        self._stop_at = math.inf
        #: The time of the last SIGINT (`time.monotonic`).
        self._interrupted = -math.inf
        #: The time to say for what the server waits after a SIGINT (`time.monotonic`).
        self._explain_at = math.inf
        #: Files that have changed while a debugger was at its prompt.
        self._changed: list[str] = []
        #: This worker reports the number of requests that are not answered yet.
        self._reports_requests = False
        self._announced = False
        self._reloading = False
        #: Children of this process that the application has started.
        self._application_children: set[int] = set()
        self._last_heartbeat = -math.inf
        #: The threads of this process are stuck, and it has asked for a replacement.
        self._replaced = False
        #: The threads that serve in this process; None: other processes serve.
        self._inline: OwnThreads | None = None
        #: This process has loaded the application, and a newer process serves instead.
        self._application_is_stale = False
        self._signals = Signals(
            ALL if service.command is not None or service.has_workers or forked else FEW,
            whole_process=forked or (service.command is not None and service.command.is_running),
            earlier=-1 if service.inherited is None else service.inherited.signals,
        )
        #: This process reaps orphans. It cannot if the application runs in it, because then it does
        #: not know which children belong to the application.
        self._reaps = (
            not forked
            and service.command is not None
            and service.command.is_running
            and (service.has_workers or self._is_keeper)
            and core.gets_orphans()
        )
        self._spawner = Spawner(service, self._signals, be_worker)
        self._upgrade = Upgrade(service, self._spawner)
        # A terminal that closes sends SIGHUP too, which is no request to reload.
        self._in_terminal = sys.stderr is not None and os.isatty(_STANDARD_ERROR)
        settings = service.settings
        self._requests_most = settings.max_requests if forked else 0
        if self._requests_most:
            self._requests_most += random.randint(0, settings.max_requests_jitter)  # noqa: S311
        self._signals.expect()  # signals may come while the application is loaded
        try:
            self._workers = self._make_workers()
        except BaseException:
            self._signals.restore()
            raise

    def _make_workers(self) -> Workers:
        service, settings = self._service, self._service.settings
        inherited = service.inherited
        notes = self._note_exit, self._count_restart
        if inherited is not None and self._is_keeper:
            workers = Workers(settings, self._start_program, 1, *notes)
            child = ChildProcess(*inherited.child, program=True)
            child.ready = workers.ready = self._announced = True
            workers.adopt(child)
            return workers
        reloader = service.reloader
        if service.has_workers and not self._forked:
            ending.mark()
            if settings.preload:
                before = orphans.children()
                application = service.load()
                self._application_children = orphans.children() - before
                service.load = lambda: application
            service.balance = core.Balance()
            freeze()
            workers = Workers(settings, self._fork, settings.workers, *notes)
            workers.on_failure = None if reloader is None else reloader.note_failure
            return workers
        inline = OwnThreads(
            service.load() if reloader is None else reloader.load(service.load),
            service.sockets,
            settings,
            self._signals.wake,
            service.balance,
            None if reloader is None else reloader.connections,
            None if service.metrics is None else service.metrics.memory,
        )
        workers = Workers(settings, None, 1, *notes)
        workers.adopt(inline)
        self._inline = inline
        return workers

    def _note_exit(self, pid: int, status: int) -> None:
        debugger.restore_terminal(unless_open=True)
        self._service.hooks.call("worker_exit", pid, status)

    def _count_restart(self, reason: int) -> None:
        if self._service.metrics is not None:
            self._service.metrics.memory.note_restart(reason)

    def _start_program(self) -> ChildProcess:
        return self._spawner.start("worker")

    def _fork(self) -> ChildProcess:
        if not self._service.settings.preload:
            ending.mark()  # the application has registered no functions in this process
        return self._spawner.fork([*self._workers.members, *self._upgrade.processes()])

    def _end_inline(self) -> None:
        """Note that no thread of this process serves any more."""
        if self._inline is not None:
            self._service.left_threads = self._inline.abandoned
            self._inline = None
            self._service.hooks.call("worker_stop")

    def _others_listen(self) -> bool:
        inherited = self._service.inherited
        if (
            inherited is not None
            and inherited.role == "successor"
            and os.getppid() == inherited.parent
        ):
            return True
        return self._upgrade.lives()

    # ---------------------------------------------------------------- signals and orders

    def _on_signal(self, number: int) -> None:
        if number in STOP:
            self._on_stop(number)
        elif number == signal.SIGHUP:
            if self._in_terminal and not os.isatty(_STANDARD_ERROR):
                self._stop()
            elif self._phase < Phase.DELAYED:
                if self._service.status_pipe is None:
                    self._service.hooks.call("on_reload")
                self._reload()
        elif number == signal.SIGUSR1:
            log.reopen()
            if self._inline is not None:
                self._inline.reopen_logs()
            self._forward(number)
        elif number == signal.SIGQUIT:
            self._forward(number)
        elif number == signal.SIGUSR2:
            if self._phase < Phase.DELAYED:
                self._upgrade.start()
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            self._change(number)

    def _forward(self, number: int) -> None:
        for one in self._workers.processes():
            if one.ready:
                one.signal(number)

    def _on_stop(self, number: int) -> None:
        """Drain, even if the signal comes several times. Only a second Ctrl-C ends at once."""
        pipe = self._service.status_pipe
        if pipe is not None:
            # The terminal sends SIGINT to the supervisor too, and the supervisor decides.
            if number == signal.SIGTERM and self._phase is not Phase.STOPPING:
                self._on_stop_of_worker(pipe)
            return
        interrupted = number == signal.SIGINT
        if interrupted and (self._is_second_interrupt() or debugger.is_open()):
            self._stop_now()
        elif self._phase is Phase.SERVING and self._upgrade.is_starting():
            get_logger().info("stopping when the successor serves")
            self._phase = Phase.AWAITING_SUCCESSOR
        else:
            self._begin_stop(time.monotonic(), interrupted=interrupted)

    def _on_stop_of_worker(self, pipe: StatusPipe) -> None:
        """Stop this worker. With --drain-delay, ask the supervisor for a replacement instead.

        The supervisor then starts another worker first. If it has got the signal too, it stops all
        workers together.
        """
        if (
            self._service.settings.drain_delay
            and self._announced
            and pipe.ask_for_replacement(core.RESTART_SIGNAL)
        ):
            return
        pipe.send(status_pipe.STOPPING)
        self._stop()

    def _begin_stop(self, now: float, *, interrupted: bool = False) -> None:
        """Stop, or first serve for --drain-delay while health checks get a 503.

        If a successor serves on the same sockets, there is no delay: clients need no other server.
        """
        delay = self._service.settings.drain_delay
        if not delay or self._upgrade.serves():
            self._stop(interrupted=interrupted)
        elif self._phase < Phase.DELAYED:
            get_logger().info("stopping in %g s; health checks get a 503 until then", delay)
            self._phase, self._stop_at = Phase.DELAYED, now + delay
            self._workers.warn()

    def _is_second_interrupt(self) -> bool:
        now = time.monotonic()
        if now - self._interrupted < SAME_INTERRUPT:
            return False
        is_first = self._interrupted == -math.inf
        self._interrupted = now
        return not is_first and is_foreground()

    def _follow_orders(self, pipe: StatusPipe) -> None:
        """Follow the orders of this worker's supervisor, or drain if the supervisor is gone."""
        for order in pipe.read_orders():
            if order == status_pipe.NOW:
                self._stop_now()
            elif order == status_pipe.WARN:
                self._workers.warn()
            elif order == status_pipe.GREETED:
                self._service.after_greeting()
            elif order in (status_pipe.CUT, status_pipe.HURRY):
                ending.set_limit(time.monotonic() + DEVELOPER_GRACE)
                hurry = order == status_pipe.HURRY
                self._reports_requests |= hurry
                for one in self._workers.members:
                    one.cut_streams(hurry=hurry)
            else:
                self._stop(others_accept=order == status_pipe.LEAVE)
        if not pipe.is_supervisor_gone():
            return
        if self._phase is not Phase.STOPPING:
            get_logger().warning("the supervisor is gone")
            self._stop()
        # Also after a SIGTERM: the system sends it for the end of a thread of the supervisor, while
        # the supervisor is still this worker's parent.
        if debugger.is_open_here():
            self._stop_now()  # the keys go to another program now

    def _stop(self, *, others_accept: bool = False, interrupted: bool = False) -> None:
        """Drain and end. A repetition changes nothing. `others_accept`: see `ThreadPool.stop`."""
        settings = self._service.settings
        hurry = interrupted and (settings.reload or settings.debug)
        within = math.inf
        if hurry and "timeout_graceful" not in settings.sources:
            within = DEVELOPER_GRACE
        if self._phase is not Phase.STOPPING:
            self._phase = Phase.STOPPING
            ending.set_limit(time.monotonic() + min(within, settings.timeout_graceful))
            get_logger().debug("stopping")
            if not self._upgrade.succeed():
                self._service.notifier.stopping()
            if self._service.status_pipe is None and not self._others_listen():
                close_backlog(self._service.sockets)
            # From now on the system refuses a client that connects, so it does not wait.
            for sock in self._service.sockets:
                sock.close()
        if interrupted and self._explain_at == math.inf:
            self._explain_at = time.monotonic() + _EXPLAIN_AFTER
        if self._service.reloader is not None and not self._forked:
            self._service.reloader.end_transfer()
        others_accept = others_accept or self._upgrade.serves()
        self._workers.stop(
            time.monotonic(), others_accept=others_accept, within=within, hurry=hurry
        )

    def _stop_now(self) -> None:
        """End at once, and cut open requests."""
        self._stop()
        self._workers.stop_now(time.monotonic(), within=_AT_ONCE)

    def _change(self, number: int) -> None:
        """Add a worker (SIGTTIN), or remove one (SIGTTOU)."""
        if self._phase >= Phase.DELAYED:
            return
        if self._inline is not None:
            get_logger().warning("this server has no workers; start it with --workers 2 or more")
        elif any(one.program for one in self._workers.processes()):
            self._forward(number)
        else:
            self._workers.change(1 if number == signal.SIGTTIN else -1, time.monotonic())

    def _reload(self, reason: int = core.RESTART_RELOAD) -> None:
        """Replace all members by new ones, which load the application again."""
        service, workers = self._service, self._workers
        if self._phase >= Phase.DELAYED:
            return
        if service.status_pipe is not None:
            service.status_pipe.ask_for_replacement(reason)  # the supervisor replaces this worker
            return
        if service.reloader is not None:
            service.reloader.failure = None
            service.reloader.end_generation()
        self._reloading = True
        service.notifier.reloading()
        holds_application = self._inline is not None or (
            service.settings.preload and not self._is_keeper
        )
        if holds_application and service.command is not None:
            # A process cannot unload its modules, so a new process has to load them again.
            workers.reload(self._start_program, reason)
            self._application_is_stale = True
        else:
            workers.reload(reason=reason)

    def _reload_changes(self, reloader: Reloader, now: float) -> None:
        """Replace all workers at once after a change, so that no request gets the old code."""
        is_waiting = bool(self._changed)
        self._changed += reloader.read_changes()
        if not self._changed or self._phase is Phase.STOPPING:
            return
        names = [os.path.relpath(path) for path in self._changed[:3]]
        more = f" and {len(self._changed) - 3} more" if len(self._changed) > 3 else ""
        if not debugger.is_open():
            self._changed = []
            self._workers.restart(now)
            reloader.end_generation()
            get_logger().info(
                "changed: %s%s; loading the application again", ", ".join(names), more
            )
        elif not is_waiting:
            get_logger().info(
                "changed: %s%s; the reload waits until the debugger's prompt has ended",
                ", ".join(names),
                more,
            )

    def _drop_application(self) -> None:
        """After a reload by a new process, release this one's application, threads and memory."""
        workers = self._workers
        if workers.reloading or self._phase is Phase.STOPPING or self._upgrade.lives():
            return
        programs = [one for one in workers.processes() if one.program]
        if not programs:
            self._application_is_stale = False  # the reload has failed
        elif len(workers.members) == 1 and not programs[0].stopping:
            self._end_inline()
            self._spawner.become_keeper(programs[0])
