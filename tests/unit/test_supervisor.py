"""A supervisor handles signals, orders and exits; its workers are records of their calls."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.process import control, status_pipe, supervisor
from picowsgi.process.members import ChildProcess, OwnThreads
from picowsgi.process.restart import Command, Inherited
from picowsgi.process.service import Service
from picowsgi.system.signals import ALL, FEW
from support.children import SignalledChild

Event = Callable[[], Any] | int


class Record:
    """Records the calls of its methods in `calls`, which several of them share."""

    def __init__(self, name: str, calls: list[Any], **answers: Any) -> None:
        self._name, self._calls, self._answers = name, calls, answers

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._answers:
            if name.startswith("__"):
                raise AttributeError(name)

            def call(*arguments: Any, **keywords: Any) -> Any:
                self._calls.append((f"{self._name}.{name}", *arguments, *keywords.values()))

            return call
        return self._answers[name]

    def set(self, **answers: Any) -> None:
        self._answers.update(answers)


class StubSignals:
    """Gives a supervisor the events of the test, one in each turn of its loop."""

    def __init__(self, numbers: Any, *, whole_process: bool, earlier: int) -> None:
        self.numbers, self.whole_process, self.earlier = numbers, whole_process, earlier
        self.events: list[Event] = []
        self.calls: list[str] = []
        self.now = 1000.0
        reader, writer = os.pipe()
        self.reader, self.writer = reader, writer
        os.write(writer, b"x")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)

    def fileno(self) -> int:
        return self.reader

    def take(self) -> list[int]:
        if not self.events:
            raise EndOfTestError
        event = self.events.pop(0)
        if isinstance(event, int):
            return [event]
        event()
        return []


class EndOfTestError(Exception):
    """The events are used up."""


class StubFleet:
    """Members that do nothing on their own: the test decides each event."""

    def __init__(
        self, settings: Any, spawn: Any, target: int, on_exit: Any, count_restart: Any
    ) -> None:
        self.on_exit, self.count_restart = on_exit, count_restart
        self.settings, self.spawn, self.target = settings, spawn, target
        self.members: list[Any] = []
        self.open_requests = 0
        self.calls: list[Any] = []
        self.reasons: list[int] = []
        self.steps: list[float] = []
        self.ready = self.reloading = self.over = self.failed = False
        self.failure: AppImportError | None = None
        self.on_failure: Any = None
        self.wait = math.inf

    def adopt(self, one: Any) -> None:
        self.members.append(one)

    def processes(self) -> list[Any]:
        return [one for one in self.members if isinstance(one, ChildProcess)]

    def wait_for(self, _now: float) -> float:
        return self.wait

    def step(self, now: float) -> None:
        self.steps.append(now)

    def kill(self) -> None:
        self.calls.append("kill")

    def stop(self, now: float, *, others_accept: bool, within: float, hurry: bool) -> None:
        self.hurries = hurry
        self.calls.append(("stop", now, others_accept, within))

    def stop_now(self, now: float, *, within: float) -> None:
        self.calls.append(("stop now", now, within))

    def change(self, by: int, _now: float) -> None:
        self.calls.append(("change", by))

    def reload(self, spawn: Any = None, reason: int = -1) -> None:
        self.reasons.append(reason)
        self.calls.append(("reload", None if spawn is None else spawn.__name__))
        self.reloading = True

    def restart(self, now: float) -> None:
        self.calls.append(("restart", now))


class Threads(OwnThreads):
    """Threads of this process that serve nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[str] = []
        self.ready = False
        self.stuck = self.abandoned = False
        self.taken = 0
        self.last_heartbeat = 0.0

    def start(self) -> None:
        self.calls.append("start")
        self.ready = True

    @property
    def requests(self) -> int:
        return self.taken

    @property
    def is_stuck(self) -> bool:
        return self.stuck

    def reopen_logs(self) -> None:
        self.calls.append("reopen")


class Desk:
    """A supervisor with all objects that it uses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.calls: list[Any] = []
        self.now = 1000.0
        self.ready: list[list[socket.socket]] = []
        self.closed: list[Any] = []
        self.loads = 0
        self.link: Record | None = None
        self.orders = b""
        parts = {"command": None, "link": False, "given": None, "reloader": None, "forked": False}
        given = {name: options.pop(name, default) for name, default in parts.items()}
        self.upgrade = Record(
            "upgrade",
            self.calls,
            lives=lambda: False,
            is_starting=lambda: False,
            serves=lambda: False,
            processes=list,
            succeed=lambda: False,
        )
        self.spawner = Record("spawner", self.calls)
        self.notifier = Record("notifier", self.calls, interval=0.0)
        self.sockets = [Record("socket", self.calls)]
        for name, value in {
            "Signals": StubSignals,
            "Workers": StubFleet,
            "OwnThreads": Threads,
            "Spawner": lambda *_: self.spawner,
            "Upgrade": lambda *_: self.upgrade,
            "close_backlog": lambda sockets: self.calls.append(("close backlog", len(sockets))),
            "freeze": lambda: self.calls.append("freeze"),
        }.items():
            monkeypatch.setattr(control, name, value)
        monkeypatch.setattr(control.ending, "leave", self._leave)
        monkeypatch.setattr(supervisor.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(control, "is_foreground", lambda: True)
        self.service = Service(
            self._load,
            Settings(**options),
            self.sockets,  # type: ignore[arg-type]
            self.notifier,  # type: ignore[arg-type]
            self.ready.append,
        )
        self.service.command = given["command"]
        self.service.inherited = given["given"]
        self.service.reloader = given["reloader"]
        if given["link"]:
            self.link = Record(
                "link",
                self.calls,
                fileno=lambda: -1,
                is_supervisor_gone=lambda: False,
                read_orders=self._take_orders,
                send=self._note_word,
                ask_for_replacement=self._note_request,
            )
            self.service.status_pipe = self.link  # type: ignore[assignment]
        self.said: list[int] = []
        self.reasons: list[int] = []
        self.supervisor = supervisor._Supervisor(self.service, forked=given["forked"])
        self.fleet: StubFleet = self.supervisor._workers  # type: ignore[assignment]
        self.signals: StubSignals = self.supervisor._signals  # type: ignore[assignment]

    def _load(self) -> Any:
        self.loads += 1
        return f"application {self.loads}"

    def _leave(self, status: int) -> None:
        raise SystemExit(f"leave {status}")

    def _take_orders(self) -> bytes:
        orders, self.orders = self.orders, b""
        return orders

    def _note_word(self, byte: int) -> bool:
        self.said.append(byte)
        return True

    def _note_request(self, reason: int) -> bool:
        self.reasons.append(reason)
        return self._note_word(status_pipe.REPLACE)

    @property
    def words(self) -> list[int]:
        """The messages of a worker, without its heartbeats."""
        return [byte for byte in self.said if byte != status_pipe.HEARTBEAT]

    @property
    def threads(self) -> Threads:
        (one,) = self.fleet.members
        assert isinstance(one, Threads)
        return one

    def run(self, *events: Event) -> list[Any]:
        """Let the events happen, and return the calls since the start."""
        self.signals.events = [*events]
        del self.calls[:]
        with pytest.raises(EndOfTestError):
            self.supervisor.run()
        return self.calls

    def end(self, *events: Event) -> int:
        """Let the events happen, then no member is left; return the exit status."""

        def over() -> None:
            self.fleet.over = True

        self.signals.events = [*events, over]
        return self.supervisor.run()

    def later(self, seconds: float) -> Callable[[], None]:
        def move() -> None:
            self.now += seconds

        return move

    def become_ready(self) -> None:
        self.fleet.ready = True
        for one in self.fleet.members:
            one.ready = True
            one.last_heartbeat = self.now


def acts(calls: list[Any]) -> list[Any]:
    """The calls without those that belong to every turn of the loop."""
    return [call for call in calls if call[0] not in {"upgrade.check", "notifier.ping"}]


Make = Callable[..., Desk]
COMMAND = Command(("picowsgi",), "/", {}, is_running=True)
EMBEDDED = Command(("picowsgi",), "/", {}, is_running=False)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[Desk] = []

    def make(**options: Any) -> Desk:
        made.append(Desk(monkeypatch, **options))
        return made[-1]

    yield make
    for one in made:
        os.close(one.signals.reader)
        os.close(one.signals.writer)


def given(role: Any) -> Any:
    return Inherited(role, os.getppid(), ())


# Members that serve


def test_one_process_serves_with_its_own_threads(desk: Make) -> None:
    one = desk()
    assert (one.fleet.target, one.fleet.spawn) == (1, None)
    assert one.threads.arguments[0] == "application 1"
    one.run()
    assert one.threads.calls == ["start"]
    assert one.fleet.calls == ["kill"]
    assert one.signals.calls == ["expect", "install", "restore"]


@pytest.mark.parametrize(
    ("options", "numbers", "whole"),
    [
        ({}, FEW, False),
        ({"command": COMMAND}, ALL, True),
        ({"command": EMBEDDED}, ALL, False),
        ({"workers": 2}, ALL, False),
        ({"forked": True}, ALL, True),
    ],
)
def test_the_supervisor_handles_the_signals_that_the_process_can_act_on(
    desk: Make, options: dict[str, Any], numbers: Any, whole: bool
) -> None:
    one = desk(**options)
    assert (one.signals.numbers, one.signals.whole_process) == (numbers, whole)


def test_workers_are_forked_before_an_application_is_loaded(desk: Make) -> None:
    one = desk(workers=3)
    assert (one.loads, one.fleet.target) == (0, 3)
    assert one.service.balance is not None
    one.fleet.members.append("other")
    one.upgrade.set(processes=lambda: ["successor"])
    one.fleet.spawn()
    assert one.calls[-1] == ("spawner.fork", ["other", "successor"])
    assert "freeze" in one.calls


def test_workers_share_a_preloaded_application(desk: Make) -> None:
    one = desk(workers=2, preload=True)
    assert one.loads == 1
    assert [one.service.load(), one.service.load()] == ["application 1"] * 2
    assert one.loads == 1


def test_a_worker_serves(desk: Make) -> None:
    one = desk(workers=3, forked=True, link=True)
    assert one.threads.arguments[0] == "application 1"


def test_handlers_are_restored_when_the_application_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, desk: Make
) -> None:
    made: list[StubSignals] = []

    class Noted(StubSignals):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    def fail(_desk: Desk) -> None:
        monkeypatch.setattr(control, "Signals", Noted)
        raise AppImportError("broken")

    one = desk()
    monkeypatch.setattr(control, "Signals", Noted)
    one.service.load = lambda: fail(one)  # type: ignore[assignment,return-value]
    with pytest.raises(AppImportError):
        supervisor.supervise(one.service)
    assert made[0].calls == ["expect", "restore"]
    os.close(made[0].reader)
    os.close(made[0].writer)


# The beginning and the end


def test_the_supervisor_reports_once_that_all_serve(desk: Make) -> None:
    one = desk()
    calls = one.run(lambda: None, one.become_ready, lambda: None, lambda: None)
    assert one.ready == [one.sockets]
    assert calls.count(("notifier.ready",)) == 1
    assert len(one.fleet.steps) == 5


def test_a_worker_reports_to_its_supervisor_that_it_serves(desk: Make) -> None:
    one = desk(link=True)
    one.run(one.become_ready, lambda: None)
    assert one.said.count(status_pipe.READY) == 1


def test_a_successor_reports_to_the_old_process(desk: Make) -> None:
    reports: list[str] = []
    one = desk(given=given("successor"))
    object.__setattr__(one.service.inherited, "report_ready", lambda: reports.append("ready"))
    one.run(one.become_ready, lambda: None)
    assert reports == ["ready"]


@pytest.mark.parametrize(("failed", "status"), [(False, 0), (True, 1)])
def test_the_exit_status_shows_whether_something_has_failed(
    desk: Make, failed: bool, status: int
) -> None:
    one = desk()
    one.fleet.failed = failed
    assert one.end() == status
    assert one.fleet.calls == ["kill"]
    assert one.service.files_are_ours


def test_the_reason_of_a_failed_start_is_raised(desk: Make) -> None:
    one = desk()
    one.fleet.failure = AppImportError("broken")
    with pytest.raises(AppImportError, match="broken"):
        one.end()


def test_abandoned_threads_do_not_delay_the_end_of_a_command(desk: Make) -> None:
    one = desk()
    assert one.end() == 0
    assert not one.service.left_threads
    other = desk(command=COMMAND)
    other.threads.abandoned = True
    assert other.end() == 0
    assert other.service.left_threads, "expected the command to know of the threads"


def test_the_last_process_that_listens_owns_the_files(desk: Make) -> None:
    one = desk()
    one.upgrade.set(lives=lambda: True)
    one.end()
    assert not one.service.files_are_ours
    successor = desk(given=given("successor"))
    successor.end()
    assert not successor.service.files_are_ours, "expected the first process to live"
    orphan = desk(given=Inherited("successor", 1 << 30, ()))
    orphan.end()
    assert orphan.service.files_are_ours
    worker = desk(given=given("worker"))
    worker.end()
    assert worker.service.files_are_ours


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_sockets_and_drains(desk: Make, number: int) -> None:
    one = desk()
    calls = one.run(number)
    assert acts(calls) == [("notifier.stopping",), ("close backlog", 1), ("socket.close",)]
    assert one.fleet.calls == [("stop", 1000.0, False, math.inf), "kill"]


def test_a_repeated_signal_never_cuts(desk: Make) -> None:
    one = desk()
    calls = one.run(*[signal.SIGTERM] * 3)
    assert calls.count(("socket.close",)) == 1
    assert one.fleet.calls == [("stop", 1000.0, False, math.inf)] * 3 + ["kill"]


def test_two_interrupts_from_a_terminal_end_at_once(desk: Make) -> None:
    one = desk()
    one.run(signal.SIGINT, one.later(0.2), signal.SIGINT)
    assert ("stop now", 1000.2, 1.0) in one.fleet.calls


def test_one_interrupt_may_arrive_twice(desk: Make) -> None:
    one = desk()
    one.run(signal.SIGINT, one.later(0.05), signal.SIGINT, one.later(0.06), signal.SIGTERM)
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"] * 3


def test_interrupts_of_a_background_program_only_drain(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk()
    monkeypatch.setattr(control, "is_foreground", lambda: False)
    one.run(signal.SIGINT, one.later(1), signal.SIGINT)
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"] * 2


def test_shared_sockets_stay_open_for_others(desk: Make) -> None:
    one = desk()
    one.upgrade.set(lives=lambda: True, serves=lambda: True, succeed=lambda: True)
    calls = one.run(signal.SIGTERM)
    assert acts(calls) == [("socket.close",)], "expected no change of the backlog and the service"
    assert one.fleet.calls[0] == ("stop", 1000.0, True, math.inf)


def test_the_stop_waits_for_a_successor_that_starts(
    desk: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "picowsgi")
    one = desk()
    one.upgrade.set(is_starting=lambda: True)
    one.run(signal.SIGTERM, lambda: None)
    assert one.fleet.calls == ["kill"]
    assert caplog.messages == ["stopping when the successor serves"]
    one = desk()
    one.upgrade.set(is_starting=lambda: True)
    one.run(signal.SIGTERM, lambda: one.upgrade.set(is_starting=lambda: False), lambda: None)
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"]
    one = desk()
    one.upgrade.set(is_starting=lambda: True)
    one.run(signal.SIGTERM, signal.SIGTERM)
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"], (
        "expected the second one to be urgent"
    )


def test_a_worker_leaves_an_interrupt_to_its_supervisor(desk: Make) -> None:
    one = desk(link=True)
    one.run(signal.SIGINT)
    assert one.fleet.calls == ["kill"]
    assert one.words == []


def test_a_worker_that_a_signal_stops_reports_it_once(desk: Make) -> None:
    one = desk(link=True)
    calls = one.run(signal.SIGTERM, signal.SIGTERM)
    assert one.words == [status_pipe.STOPPING]
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"]
    assert ("close backlog", 1) not in calls, "expected other workers to accept"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (status_pipe.DRAIN, [("stop", 1000.0, False, math.inf)]),
        (status_pipe.LEAVE, [("stop", 1000.0, True, math.inf)]),
        (status_pipe.NOW, [("stop", 1000.0, False, math.inf), ("stop now", 1000.0, 1.0)]),
    ],
)
def test_a_worker_follows_the_orders_of_its_supervisor(
    desk: Make, order: int, expected: list[Any]
) -> None:
    one = desk(link=True)
    one.orders = bytes([order])
    one.run()
    assert one.fleet.calls == [*expected, "kill"]


def test_a_worker_without_a_supervisor_drains_once(
    desk: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = desk(link=True)
    assert one.link is not None
    one.link.set(is_supervisor_gone=lambda: True)
    one.run(lambda: None)
    assert one.fleet.calls == [("stop", 1000.0, False, math.inf), "kill"]
    assert caplog.messages == ["the supervisor is gone"]


# Reloading


def test_a_hangup_replaces_workers_by_forks(desk: Make) -> None:
    one = desk(workers=2, command=COMMAND)
    calls = one.run(signal.SIGHUP)
    assert one.fleet.calls == [("reload", None), "kill"]
    assert acts(calls) == [("notifier.reloading",)]


@pytest.mark.parametrize("options", [{}, {"workers": 2, "preload": True}])
def test_a_preloaded_application_is_replaced_by_a_program(
    desk: Make, options: dict[str, Any]
) -> None:
    one = desk(command=COMMAND, **options)
    one.run(signal.SIGHUP)
    assert one.fleet.calls[0] == ("reload", "_start_program")
    one.supervisor._start_program()
    assert one.calls[-1] == ("spawner.start", "worker")
    other = desk(**options)
    other.run(signal.SIGHUP)
    assert other.fleet.calls[0] == ("reload", None), "expected no program without a command"


def test_the_service_manager_learns_when_a_reload_is_over(desk: Make) -> None:
    one = desk(workers=2)

    def end() -> None:
        one.fleet.reloading = False

    calls = one.run(one.become_ready, signal.SIGHUP, lambda: None, end, lambda: None)
    messages = [name for name, *_ in calls if name.startswith("notifier") and "ping" not in name]
    assert messages == ["notifier.ready", "notifier.reloading", "notifier.ready"]


def test_a_worker_asks_its_supervisor_for_a_reload(desk: Make) -> None:
    one = desk(link=True, forked=True)
    one.run(signal.SIGHUP)
    assert one.words == [status_pipe.REPLACE]
    assert one.reasons == [core.RESTART_RELOAD]
    assert one.fleet.calls == ["kill"]


def test_nothing_is_reloaded_or_changed_or_started_during_a_stop(desk: Make) -> None:
    one = desk(workers=2, command=COMMAND)
    calls = one.run(signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR2, lambda: None)
    assert one.fleet.calls == [("stop", 1000.0, False, math.inf), "kill"]
    assert ("upgrade.start",) not in calls
    assert ("notifier.reloading",) not in calls


@pytest.mark.parametrize(("still", "expected"), [(True, "reload"), (False, "stop")])
def test_a_hangup_of_a_closed_terminal_stops_the_server(
    desk: Make, monkeypatch: pytest.MonkeyPatch, still: bool, expected: str
) -> None:
    terminals = [True, still]
    monkeypatch.setattr(os, "isatty", lambda number: number == 2 and terminals.pop(0))
    one = desk(workers=2)
    one.run(signal.SIGHUP)
    assert one.fleet.calls[0][0] == expected


def test_without_a_terminal_a_hangup_reloads(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control.sys, "stderr", None)
    monkeypatch.setattr(os, "isatty", lambda _number: True)
    one = desk(workers=2)
    monkeypatch.setattr(os, "isatty", lambda _number: False)
    one.run(signal.SIGHUP)
    assert one.fleet.calls[0][0] == "reload"


# After a reload of a process that has loaded the application itself


def test_the_process_becomes_a_keeper_when_the_program_alone_serves(desk: Make) -> None:
    one = desk(command=COMMAND)
    program = SignalledChild(5, program=True)

    def replaced() -> None:
        one.fleet.reloading = False
        one.fleet.members[:] = [program]

    calls = one.run(one.become_ready, signal.SIGHUP, lambda: None, replaced, lambda: None)
    assert calls.count(("spawner.become_keeper", program)) == 2


@pytest.mark.parametrize("why", ["reloading", "stopping", "successor", "old", "drains"])
def test_the_process_does_not_become_a_keeper_earlier(desk: Make, why: str) -> None:
    one = desk(command=COMMAND)
    program = SignalledChild(5, program=True)
    old = one.threads

    def replaced() -> None:
        one.fleet.reloading = why == "reloading"
        one.fleet.members[:] = [program, old] if why == "old" else [program]
        one.upgrade.set(lives=lambda: why == "successor")
        program.stopping = why == "drains"

    events = [signal.SIGTERM] if why == "stopping" else []
    calls = one.run(signal.SIGHUP, *events, replaced, lambda: None)
    assert "spawner.become_keeper" not in [name for name, *_ in calls]


def test_a_cancelled_reload_does_not_change_the_process(desk: Make) -> None:
    one = desk(command=COMMAND)
    program = SignalledChild(5, program=True)

    def failed() -> None:
        one.fleet.reloading = False

    def later() -> None:
        one.fleet.members[:] = [program]

    calls = one.run(signal.SIGHUP, failed, lambda: None, later, lambda: None)
    assert "spawner.become_keeper" not in [name for name, *_ in calls]


def test_a_keeper_watches_the_program_that_it_inherited(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ChildProcess", ChildProcess)
    one = desk(command=COMMAND, given=Inherited("keeper", os.getpid(), (), child=(77, -1)))
    (child,) = one.fleet.members
    assert (child.pid, child.program, child.ready) == (77, True, True)
    assert (one.fleet.target, one.fleet.spawn.__name__) == (1, "_start_program")
    assert one.loads == 0
    calls = one.run(lambda: None, signal.SIGHUP)
    assert one.ready == [], "expected no second start line"
    assert "spawner.become_keeper" not in [name for name, *_ in calls]
    assert ("notifier.ready",) not in calls[:1]
    assert one.fleet.calls[0] == ("reload", None)


# Other signals


def test_all_processes_reopen_log_files(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(control.log, "reopen", lambda: opened.append("log"))
    one = desk()
    one.run(signal.SIGUSR1)
    assert (opened, one.threads.calls) == (["log"], ["start", "reopen"])
    other = desk(workers=2)
    ready, loading = SignalledChild(1), SignalledChild(2)
    loading.ready = False
    other.fleet.members[:] = [ready, loading]
    other.run(signal.SIGUSR1, signal.SIGQUIT)
    assert opened == ["log"] * 2
    assert (ready.sent, loading.sent) == ([signal.SIGUSR1, signal.SIGQUIT], [])


def test_a_second_command_can_be_started_and_is_watched(desk: Make) -> None:
    calls = desk(command=COMMAND).run(signal.SIGUSR2, lambda: None)
    assert calls.count(("upgrade.start",)) == 1
    assert calls.count(("upgrade.check",)) == 3, "expected a check in each turn"


@pytest.mark.parametrize(("number", "by"), [(signal.SIGTTIN, 1), (signal.SIGTTOU, -1)])
def test_the_number_of_workers_can_go_up_and_down_by_one(desk: Make, number: int, by: int) -> None:
    one = desk(workers=2)
    one.run(number)
    assert one.fleet.calls[0] == ("change", by)
    other = desk(workers=2)
    program = SignalledChild(1, program=True)
    other.fleet.members[:] = [program]
    other.run(number)
    assert (other.fleet.calls, program.sent) == (["kill"], [number]), (
        "expected the message to be passed on"
    )


def test_a_server_without_workers_says_how_to_get_some(
    desk: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = desk(command=COMMAND)
    one.run(signal.SIGTTIN)
    assert one.fleet.calls == ["kill"]
    assert "start it with --workers 2" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGWINCH])
def test_other_signals_only_wake_the_supervisor(desk: Make, number: int) -> None:
    one = desk(workers=2)
    assert acts(one.run(number)) == []
    assert one.fleet.calls == ["kill"]


# Heartbeats


def pings(calls: list[Any]) -> list[float]:
    return [now for name, *more in calls if name == "notifier.ping" for now in more]


def test_a_serving_process_sends_the_watchdog_message(desk: Make) -> None:
    one = desk()
    calls = one.run(one.become_ready, one.later(5), one.later(5))
    assert pings(calls) == [1000.0, 1000.0, 1005.0, 1010.0], "expected its threads to be ready"


def test_silent_workers_stop_the_watchdog_messages(desk: Make) -> None:
    one = desk(workers=2)
    child = SignalledChild(1)
    child.last_heartbeat = 1000.0
    one.fleet.members[:] = [child]
    assert pings(one.run(one.later(1.9), one.later(0.2))) == [1000.0, 1001.9]
    other = desk(workers=2)
    other.notifier.set(interval=10.0)
    child.last_heartbeat = 1000.0
    other.fleet.members[:] = [child]
    assert pings(other.run(other.later(9.9), other.later(0.2))) == [1000.0, 1009.9]
    child.ready = False
    child.last_heartbeat = 1010.1
    assert pings(other.run(lambda: None)) == []


def test_a_worker_sends_a_heartbeat_every_second(desk: Make) -> None:
    one = desk(link=True, forked=True)
    one.threads.ready = True
    one.run(one.later(0.5), one.later(0.45), one.later(0.5), one.later(0.5))
    assert one.said.count(status_pipe.HEARTBEAT) == 3, "expected one at 0, 0.95 and 1.95 s"


def test_a_worker_asks_for_a_replacement_after_its_requests(desk: Make) -> None:
    one = desk(link=True, forked=True, max_requests=10)

    def take(count: int) -> Callable[[], None]:
        def change() -> None:
            one.threads.taken = count

        return change

    early: list[int] = []
    one.run(take(9), lambda: early.extend(one.said), take(10), take(11), take(12))
    assert status_pipe.REPLACE not in early
    assert one.reasons == [core.RESTART_REQUESTS]


def test_a_worker_asks_again_when_its_message_was_lost(desk: Make) -> None:
    one = desk(link=True, forked=True, max_requests=1)
    one.threads.taken = 5
    asked: list[int] = []

    def deaf(reason: int) -> bool:
        asked.append(reason)
        return False

    assert one.link is not None
    one.link.set(ask_for_replacement=deaf)
    one.run(lambda: None, lambda: None)
    assert asked == [core.RESTART_REQUESTS] * 3


def test_only_workers_count_requests_and_jitter_is_added(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def most(low: int, high: int) -> int:
        asked.append((low, high))
        return high

    monkeypatch.setattr(control.random, "randint", most)
    one = desk(link=True, forked=True, max_requests=10, max_requests_jitter=5)
    one.threads.taken = 14
    early: list[int] = []

    def take_one_more() -> None:
        early.extend(one.said)
        one.threads.taken = 15

    one.run(lambda: None, take_one_more, lambda: None)
    assert status_pipe.REPLACE not in early
    assert status_pipe.REPLACE in one.said
    assert asked == [(0, 5)]
    single = desk(max_requests_jitter=5)
    single.run()
    assert asked == [(0, 5)]


def test_a_process_with_a_stuck_request_is_replaced_once(desk: Make) -> None:
    one = desk(link=True, forked=True)
    one.threads.stuck = True
    one.run(lambda: None)
    assert one.reasons == [core.RESTART_TIMEOUT]
    command = desk(command=COMMAND)
    command.threads.stuck = True
    command.run(lambda: None)
    assert command.fleet.calls == [("reload", "_start_program"), "kill"]
    assert command.fleet.reasons == [core.RESTART_TIMEOUT]
    embedded = desk()
    embedded.threads.stuck = True
    embedded.run(lambda: None)
    assert embedded.fleet.calls == ["kill"], "expected no other message"


# Waiting


class Poll:
    """Stands for select.poll, and never waits."""

    waits: list[float | None]
    registered: list[int]

    def register(self, descriptor: int, _events: int) -> None:
        Poll.registered.append(descriptor)

    def poll(self, milliseconds: float | None) -> list[Any]:
        Poll.waits.append(milliseconds)
        return []


@pytest.fixture
def poll(monkeypatch: pytest.MonkeyPatch) -> type[Poll]:
    Poll.waits, Poll.registered = [], []
    monkeypatch.setattr(supervisor.select, "poll", Poll)
    return Poll


@pytest.mark.parametrize(
    ("options", "due", "expected"),
    [
        ({}, math.inf, None),
        ({}, 5.0, 5001),
        ({}, 0.0, 1),
        ({"link": True, "forked": True}, math.inf, 1001),
        ({"link": True, "forked": True}, 0.5, 501),
        ({"link": True, "forked": True, "max_requests": 5}, math.inf, 201),
        ({"timeout_request": 9.0}, math.inf, 1001),
        ({"timeout_request": 9.0, "workers": 2}, math.inf, None),
    ],
)
def test_the_supervisor_waits_until_a_task_is_due(
    desk: Make, poll: type[Poll], options: dict[str, Any], due: float, expected: float | None
) -> None:
    one = desk(**options)
    one.fleet.wait = due
    one.run()
    assert poll.waits == [expected]
    assert poll.registered == [one.signals.reader]


def test_the_supervisor_wakes_for_the_watchdog(desk: Make, poll: type[Poll]) -> None:
    one = desk()
    one.notifier.set(interval=0.25)
    one.run()
    assert poll.waits == [251]


def test_the_supervisor_waits_for_all_that_can_send_a_message(desk: Make, poll: type[Poll]) -> None:
    one = desk(workers=2, link=True)
    assert one.link is not None
    one.link.set(fileno=lambda: 101)
    read: list[int] = []

    class Talking(SignalledChild):
        def read(self) -> None:
            read.append(self.pid)

    child, silent, successor = Talking(1), Talking(2), Talking(3)
    child.channel, successor.channel = 102, 103
    one.fleet.members[:] = [child, silent]
    one.upgrade.set(processes=lambda: [successor])
    one.run()
    assert poll.registered == [one.signals.reader, 101, 102, 103]
    assert read == [1, 2, 3]
    child.channel = successor.channel = -1


# Changed files


def reloader(calls: list[Any], changes: list[list[str]]) -> Record:
    return Record(
        "reloader",
        calls,
        changes=104,
        connections=None,
        load=lambda load: load(),
        read_changes=lambda: changes.pop(0) if changes else [],
        failure="the old one",
    )


def test_a_change_restarts_the_workers_and_is_reported(
    desk: Make, poll: type[Poll], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "picowsgi")
    names = [str(Path.cwd() / name) for name in "abcde"]
    changes = [[], names[:1], names[:3], names[:4], names]
    one = desk(reload=True, reloader=reloader([], changes), command=COMMAND)
    one.run(*[lambda: None] * 4)
    assert one.fleet.calls == [("restart", 1000.0)] * 4 + ["kill"]
    assert 104 in poll.registered
    assert caplog.messages == [
        "changed: a; loading the application again",
        "changed: a, b, c; loading the application again",
        "changed: a, b, c and 1 more; loading the application again",
        "changed: a, b, c and 2 more; loading the application again",
    ]
    assert one.fleet.on_failure is not None


def test_only_the_supervisor_handles_changes_and_not_during_a_stop(
    desk: Make, poll: type[Poll]
) -> None:
    worker = desk(reload=True, reloader=reloader([], [["a"]] * 9), forked=True, link=True)
    worker.run(lambda: None)
    assert worker.fleet.calls == ["kill"]
    assert 104 not in poll.registered
    one = desk(reload=True, reloader=reloader([], [[], ["a"]]))
    one.run(signal.SIGTERM, lambda: None)
    assert [call[0] for call in one.fleet.calls[:-1]] == ["stop"]


@pytest.mark.parametrize(
    ("number", "sources", "within"),
    [
        (signal.SIGINT, {}, 2.0),
        (signal.SIGTERM, {}, math.inf),
        (signal.SIGINT, {"timeout_graceful": "--timeout-graceful"}, math.inf),
    ],
)
def test_a_development_server_does_not_wait_long_after_an_interrupt(
    desk: Make, poll: type[Poll], number: int, sources: dict[str, str], within: float
) -> None:
    calls: list[Any] = []
    one = desk(reload=True, reloader=reloader(calls, []), sources=sources)
    one.run(number)
    assert one.fleet.calls[0] == ("stop", 1000.0, False, within)
    assert ("reloader.end_transfer",) in calls
    assert poll.waits


def test_a_worker_under_reload_reports_its_imports(desk: Make, poll: type[Poll]) -> None:
    calls: list[Any] = []
    one = desk(reload=True, reloader=reloader(calls, []), forked=True, link=True)
    one.threads.ready = True
    one.run()
    assert calls == [("reloader.report_modules",)]
    assert poll.waits


# A process that was forked to serve


def test_a_forked_worker_is_not_a_service_of_its_own(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk(workers=2, command=COMMAND)
    made: list[tuple[Service, bool]] = []

    class Stub:
        def __init__(self, service: Service, *, forked: bool) -> None:
            made.append((service, forked))

        def run(self) -> int:
            return 7

    monkeypatch.setattr(supervisor, "_Supervisor", Stub)
    link: Any = Record("link", one.calls)
    assert one.supervisor._be_worker(link) == 7
    ((service, forked),) = made
    assert forked
    assert (service.status_pipe, service.command, service.pid_file, service.inherited) == (
        link,
        *[None] * 3,
    )
    service.on_ready([])
    assert one.ready == []
    assert ("notifier.disable",) in one.calls


def test_a_forked_worker_reports_why_it_has_no_application(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk(workers=2)
    error = AppImportError("broken")

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(supervisor, "_Supervisor", fail)
    assert one.supervisor._be_worker(Record("link", one.calls)) == 1  # type: ignore[arg-type]
    assert ("link.send_failure", error) in one.calls
