"""Starts the processes that serve: forked workers, and new processes of the command.

Never watches them.
"""

from __future__ import annotations

import atexit
import dataclasses
import gc
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from picowsgi import core
from picowsgi.log import get_logger
from picowsgi.process import ending
from picowsgi.process.members import ChildProcess, Member
from picowsgi.process.restart import Command, Inherited, Role, describe
from picowsgi.process.service import Service
from picowsgi.process.status_pipe import StatusPipe, make_pair
from picowsgi.system import fork_guard
from picowsgi.system.signals import Signals


def freeze() -> None:
    """Exclude all current objects from garbage collection, so that forks share their memory."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


class Spawner:
    """Starts the processes of one supervisor. A forked worker calls `work` with its status pipe."""

    def __init__(
        self, service: Service, signals: Signals, work: Callable[[StatusPipe], int]
    ) -> None:
        self._service = service
        self._signals = signals
        self._work = work

    def _command(self) -> Command:
        if self._service.command is None:
            raise RuntimeError("only a command can be started again")
        return self._service.command

    def fork(self, others: Sequence[Member]) -> ChildProcess:
        """Fork a worker, which closes the sockets to `others`. Raises OSError."""
        parent = os.getpid()
        ours, its = make_pair()
        self._signals.block()
        try:
            with fork_guard.own_process():
                pid = os.fork()
            if pid == 0:
                os.close(ours)
                self._be_worker(StatusPipe(its, parent), others)
        except OSError:
            os.close(ours)
            raise
        finally:
            self._signals.unblock()
            os.close(its)
        if self._service.balance is None:
            raise RuntimeError("forked workers share a balance")
        return ChildProcess(pid, ours, on_end=self._note_end)

    def _note_end(self, pid: int) -> None:
        if self._service.balance is not None:
            self._service.balance.forget(pid)
        if self._service.metrics is not None:
            self._service.metrics.memory.retire(pid)

    def _be_worker(self, pipe: StatusPipe, others: Sequence[Member]) -> NoReturn:
        status = 1
        try:
            self._signals.forget()
            self._signals.unblock()
            core.die_with_parent(signal.SIGTERM)
            ending.begin_forked()
            if self._service.metrics is not None:
                self._service.metrics.leave_to_parent()
            for other in others:
                if isinstance(other, ChildProcess):
                    other.close()
            status = self._work(pipe)
        except BaseException:
            get_logger().critical("a worker has failed", exc_info=True)
        finally:
            ending.leave(status)

    def start(self, role: Role) -> ChildProcess:
        """Start the service's command. Raises OSError."""
        ours, its = make_pair()
        metrics = self._service.metrics
        try:
            inherited = Inherited(
                role,
                os.getpid(),
                describe(self._service.sockets, with_files=role == "successor"),
                channel=its,
                metrics=None if metrics is None else metrics.pass_on(role),
            )
            pid = self._command().start(inherited, [its, *inherited.metrics_descriptors()])
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(its)
        return ChildProcess(pid, ours, program=True, on_end=self._note_end)

    def become_keeper(self, child: ChildProcess) -> NoReturn:
        """Execute the command in this process, which then only watches `child`."""
        metrics = self._service.metrics
        inherited = Inherited(
            "keeper",
            os.getpid(),
            describe(self._service.sockets, with_files=True),
            child=(child.pid, child.channel),
            signals=self._signals.fileno(),
            settings=_plain(self._service),
            metrics=None if metrics is None else metrics.pass_on("keeper"),
        )
        if metrics is not None:
            metrics.memory.retire(os.getpid())  # its threads serve no more
        self._signals.outlive_exit()
        with suppress(Exception):
            atexit._run_exitfuncs()  # those of the application, which the exec removes
        self._signals.block()
        descriptors = [child.channel, inherited.signals, *inherited.metrics_descriptors()]
        self._command().become(inherited, descriptors)


def _plain(service: Service) -> dict[str, object]:
    values = dataclasses.asdict(service.settings)
    values["sources"] = dict(service.settings.sources)
    return values
