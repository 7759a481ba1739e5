"""Serving processes: forked ones, programs, and a process that becomes a keeper."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.log import configure
from picowsgi.process import spawner as module
from picowsgi.process.members import ChildProcess
from picowsgi.process.spawner import Spawner
from picowsgi.process.status_pipe import READY, StatusPipe, make_pair
from support import wait_until

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


class StubSignals:
    """Records the calls about signals of this process."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)

    def fileno(self) -> int:
        return 77


class StubCommand:
    """Records the arguments of a program."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.refusal: OSError | None = None

    def start(self, given: Any, descriptors: list[int]) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.given.append((given, descriptors, [os.fstat(one).st_ino for one in descriptors]))
        return 77

    def become(self, given: Any, descriptors: list[int]) -> None:
        self.given.append((given, descriptors))
        raise SystemExit("another program")


class Site:
    """A spawner and the objects that it uses."""

    def __init__(self, work: Callable[[StatusPipe], int] = lambda _link: 0) -> None:
        self.signals, self.command = StubSignals(), StubCommand()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.service = SimpleNamespace(
            command=self.command,
            balance=core.Balance(),
            metrics=None,
            sockets=[self.listener],
            settings=Settings(workers=3, sources={"workers": "--workers"}),
        )
        self.spawner = Spawner(self.service, self.signals, work)  # type: ignore[arg-type]


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    gc.collect()
    made: list[Site] = []

    def make(*arguments: Any) -> Site:
        made.append(Site(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()


def test_a_forked_worker_runs_and_exits_with_its_status(site: Callable[..., Site]) -> None:
    parent = os.getpid()

    def work(link: StatusPipe) -> int:
        link.send(READY)
        return 5 if os.getpid() != parent and not link.is_supervisor_gone() else 6

    one = site(work)
    child = one.spawner.fork([])
    assert child.has_ended(wait=True)
    assert (child.ready, child.end, child.program) == (True, "ended with status 5", False)
    assert one.signals.calls == ["block", "unblock"]


def test_a_worker_has_only_its_own_status_pipe(
    site: Callable[..., Site],
) -> None:
    ours, its = make_pair()
    other = ChildProcess(1, ours)
    held: list[int] = []

    def work(_link: StatusPipe) -> int:
        return 5 if other.channel == -1 else 6

    one = site(work)
    child = one.spawner.fork([other, object()])  # type: ignore[list-item]
    held.append(child.channel)
    assert child.has_ended(wait=True)
    assert child.end == "ended with status 5"
    assert other.channel == ours
    other.close()
    os.close(its)


def test_a_worker_notices_the_exit_of_its_supervisor(site: Callable[..., Site]) -> None:
    def work(link: StatusPipe) -> int:
        link.send(READY)
        wait_until(
            lambda: link.read_orders() or link.is_supervisor_gone(),
            "the end of the supervisor",
        )
        return 5

    one = site(work)
    child = one.spawner.fork([])
    wait_until(lambda: child.read() or child.ready, "a worker")
    child.close()
    assert child.has_ended(wait=True)
    assert child.end == "ended with status 5"


def test_a_worker_that_fails_exits_with_status_1_and_a_traceback(
    site: Callable[..., Site], capfd: pytest.CaptureFixture[str]
) -> None:
    def work(_link: StatusPipe) -> int:
        configure("info")
        raise KeyError("broken")

    child = site(work).spawner.fork([])
    assert child.has_ended(wait=True)
    assert child.end == "ended with status 1"
    assert "KeyError: 'broken'" in capfd.readouterr().err


def test_a_worker_drops_the_signal_handlers_and_exit_functions_of_its_parent(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one = site(lambda _link: 5 if one.signals.calls == ["block", "forget", "unblock"] else 6)
    died: list[int] = []
    monkeypatch.setattr(core, "die_with_parent", died.append)
    cleared: list[int] = []
    monkeypatch.setattr(module.ending, "begin_forked", lambda: cleared.append(1))
    monkeypatch.setattr(
        module.ending, "leave", lambda status: os._exit(status + len(died + cleared))
    )
    child = one.spawner.fork([])
    assert child.has_ended(wait=True)
    assert child.end == "ended with status 7"
    assert capfd.readouterr().err == ""


def test_the_exit_of_a_worker_reaches_the_processes_that_share_connections(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[int] = []
    monkeypatch.setattr(core.Balance, "forget", lambda _balance, pid: forgotten.append(pid))
    child = site().spawner.fork([])
    assert forgotten == []
    assert child.has_ended(wait=True)
    assert forgotten == [child.pid]


def test_a_fork_that_the_system_refuses_leaves_nothing_open(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[tuple[int, int]] = []

    def make() -> tuple[int, int]:
        pairs.append(make_pair())
        return pairs[-1]

    def refuse(*_arguments: Any) -> int:
        raise OSError("no more processes")

    one = site()
    monkeypatch.setattr(module, "make_pair", make)
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError, match="no more processes"):
        one.spawner.fork([])
    assert one.signals.calls == ["block", "unblock"]
    one.command.refusal = OSError("no more programs")
    with pytest.raises(OSError, match="no more programs"):
        one.spawner.start("worker")
    for descriptor in [end for pair in pairs for end in pair]:
        with pytest.raises(OSError):  # noqa: PT011
            os.fstat(descriptor)


# Programs


@pytest.mark.parametrize("role", ["worker", "successor"])
def test_a_program_inherits_the_sockets_and_an_end_of_the_channel(
    site: Callable[..., Site], role: Any
) -> None:
    one = site()
    child = one.spawner.start(role)
    ((given, descriptors, inodes),) = one.command.given
    assert (given.role, given.parent, given.child) == (role, os.getpid(), (-1, -1))
    assert descriptors == [given.channel]
    assert given.listeners == ((one.listener.fileno(), None, False),)
    assert (child.pid, child.program) == (77, True)
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(given.channel)
    assert os.fstat(child.channel).st_ino != inodes[0]
    child.close()


def test_only_a_successor_may_remove_the_files_of_sockets(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def describe(_sockets: Any, *, with_files: bool) -> tuple[()]:
        asked.append(with_files)
        return ()

    monkeypatch.setattr(module, "describe", describe)
    one = site()
    for role in ("worker", "successor"):
        one.spawner.start(role).close()  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        one.spawner.become_keeper(ChildProcess(5, -1))
    assert asked == [False, True, True]


def test_only_a_command_can_be_started_again(site: Callable[..., Site]) -> None:
    one = site()
    one.service.command = None
    with pytest.raises(RuntimeError, match="only a command can be started again"):
        one.spawner.start("worker")


def test_a_keeper_gets_the_child_and_the_settings_and_the_signals(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(module.atexit, "_run_exitfuncs", lambda: order.append("exit functions"))
    one = site()
    child = ChildProcess(5, os.dup(one.listener.fileno()))
    with pytest.raises(SystemExit, match="another program"):
        one.spawner.become_keeper(child)
    ((given, descriptors),) = one.command.given
    assert (given.role, given.parent) == ("keeper", os.getpid())
    assert given.child == (5, child.channel)
    assert given.signals == one.signals.fileno()
    assert descriptors == [child.channel, given.signals]
    assert given.read_settings() == one.service.settings
    assert given.settings["sources"] == {"workers": "--workers"}
    assert order == ["exit functions"]
    assert one.signals.calls == ["outlive_exit", "block"]
    child.close()
