"""A supervisor's data about its workers: children of the test stand in for workers."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.process import members
from picowsgi.process.members import ChildProcess, OwnThreads
from picowsgi.process.status_pipe import StatusPipe, make_pair
from support import TIMEOUT, wait_until

Start = Callable[..., tuple[ChildProcess, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(code)` runs Python code as a child; returns it and the worker's end of its channel."""
    made: list[tuple[subprocess.Popen[bytes], ChildProcess, int]] = []

    def run(code: str = "import time; time.sleep(60)", **options: Any) -> tuple[ChildProcess, int]:
        ours, its = make_pair()
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        one = ChildProcess(child.pid, ours, **options)
        made.append((child, one, its))
        return one, its

    yield run
    for child, one, its in made:
        child.kill()
        child.wait()
        child.stdin.close()  # type: ignore[union-attr]
        one.close()
        os.close(its)


def test_a_new_worker_is_neither_ready_nor_due_for_replacement(start: Start) -> None:
    before = time.monotonic()
    one, _ = start()
    assert not any(
        (one.ready, one.retiring, one.stopping, one.stopped_by_signal, one.needs_replacement)
    )
    assert before <= one.last_heartbeat <= time.monotonic()
    assert (one.silent, one.program, one.failure) == (False, False, None)
    assert one.kill_at == math.inf
    assert (str(one), one.end) == (f"worker {one.pid}", "runs")
    assert not one.has_ended()


def test_a_program_has_more_time_to_start_than_a_fork() -> None:
    assert ChildProcess(0, -1, program=True).extra_time > ChildProcess(0, -1).extra_time
    assert ChildProcess(0, -1, program=True).program


def test_each_message_of_a_worker_is_a_heartbeat(start: Start) -> None:
    one, its = start()
    one.last_heartbeat = 0.0
    one.read()
    assert one.last_heartbeat == 0.0, "expected no heartbeat without a message"
    for word in (b".", b"R", b"X", b"T"):
        one.last_heartbeat = 0.0
        os.write(its, word)
        one.read()
        assert one.last_heartbeat > 0.0
    assert (one.ready, one.needs_replacement, one.stopped_by_signal) == (True, True, True)


@pytest.mark.parametrize("reason", range(6))
def test_a_worker_asks_for_a_replacement_with_its_reason(start: Start, reason: int) -> None:
    one, its = start()
    os.write(its, b"X")
    one.read()
    assert (one.needs_replacement, one.reason) == (True, core.RESTART_REQUESTS)
    assert StatusPipe(its, os.getpid()).ask_for_replacement(reason)
    one.read()
    assert (one.needs_replacement, one.reason) == (True, reason)


def test_the_end_is_reported_before_the_process_is_reaped(start: Start) -> None:
    seen: list[str] = []

    def look(pid: int) -> None:
        seen.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])

    one, _ = start("", on_end=look)
    assert one.has_ended(wait=True)
    assert one.has_ended()
    assert seen == ["Z"]


def test_the_end_is_noticed_on_a_system_without_waitid(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "waitid")
    seen: list[int] = []
    one, _ = start("import sys; sys.stdin.read(1); sys.exit(3)", on_end=seen.append)
    assert not one.has_ended()
    one.kill()
    assert one.has_ended(wait=True)
    assert (seen, one.status) == ([one.pid], -9)
    assert one.has_ended()
    assert seen == [one.pid]


def test_messages_after_an_unknown_one_are_ignored(start: Start) -> None:
    one, its = start()
    os.write(its, b"..?RX")
    one.read()
    assert (one.ready, one.needs_replacement) == (False, False)
    os.write(its, b"R")
    one.read()
    assert one.ready


def test_an_exit_is_noticed_once_and_described(start: Start) -> None:
    ended: list[int] = []
    one, its = start("raise SystemExit(3)", on_end=ended.append)
    os.write(its, b"R")
    wait_until(one.has_ended, "the end")
    assert one.has_ended()
    assert ended == [one.pid]
    assert one.end == "ended with status 3"
    assert one.ready, "expected the last messages to be read"
    assert one.channel == -1
    assert one.failure is None
    one.signal(signal.SIGTERM)  # by now it may be the number of another process
    one.read()
    one.close()


def test_a_failure_is_read_after_the_exit(start: Start) -> None:
    one, its = start("pass")
    os.write(its, b'.F["it failed", ')
    one.read()
    assert one.failure is None
    os.write(its, b'"Traceback"]')
    wait_until(one.has_ended, "the end")
    assert (str(one.failure), one.failure.application_traceback) == ("it failed", "Traceback")  # type: ignore[union-attr]


def test_an_incomplete_failure_is_a_failure_too(start: Start) -> None:
    for text in (b"F", b'F["it', b'F["a"]'):
        one, its = start("pass")
        os.write(its, text)
        wait_until(one.has_ended, "the end")
        assert "the application could not be loaded" in str(one.failure), text


def test_the_supervisor_can_wait_for_the_exit(start: Start) -> None:
    one, _ = start("import sys; sys.stdin.read()")
    assert not one.has_ended()
    one.kill()
    assert one.has_ended(wait=True)
    assert one.end == "was killed by signal 9 (Killed)"
    other, _ = start()
    channel = other.channel
    other.signal(signal.SIGHUP)
    assert other.has_ended(wait=True)
    assert other.end == "was killed by signal 1 (Hangup)"
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(channel)


def test_a_signal_ends_only_a_worker_that_has_not_loaded_its_application(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, its = start()
    loading.stop(others_accept=True)
    assert loading.has_ended(wait=True)
    assert loading.end.startswith("was killed by signal 15")
    assert os.read(its, 10) == b"L"
    assert loading.stopping
    serving, its = start()
    serving.ready = True
    sent: list[int] = []
    monkeypatch.setattr(serving, "signal", sent.append)
    serving.stop(others_accept=False)
    serving.stop(others_accept=True)
    serving.stop_now()
    assert os.read(its, 10) == b"DLN"
    assert sent == []
    serving.close()
    serving.stop(others_accept=False)
    assert sent == [signal.SIGTERM], "expected a signal to a worker that cannot get messages"


def test_an_immediate_stop_sends_one_message(start: Start) -> None:
    one, its = start()
    one.stop_now()
    assert one.stopping
    assert os.read(its, 10) == b"N"


def test_a_signal_to_a_process_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    one = ChildProcess(child.pid, -1)
    one.signal(signal.SIGTERM)
    assert one.has_ended()
    assert one.end == "ended with status 0"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_is_that_of_the_process_and_0_when_it_is_unknown() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    size = pages * os.sysconf("SC_PAGESIZE")
    assert size / 2 < ChildProcess(os.getpid(), -1).memory() < size * 2
    assert ChildProcess(2**30, -1).memory() == 0


# Threads of this process


class Pool:
    """Stands for the threads that serve."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options
        self.calls: list[Any] = []
        self.error: BaseException | None = None
        self.ends = False
        self.requests = 7
        self.is_stuck = False
        self.gave_up = False
        self.on_end: Callable[[], object] = lambda: None

    def start(self) -> None:
        self.calls.append("start")

    def share(self, *connections: Any) -> None:
        self.calls.append(("share", *connections))

    def stop(self, *, others_accept: bool) -> None:
        self.calls.append(("stop", others_accept))

    def stop_now(self) -> None:
        self.calls.append("stop now")

    def reopen_logs(self) -> None:
        self.calls.append("reopen")

    def close(self) -> None:
        self.calls.append("close")

    def join(self, timeout: float | None) -> bool:
        self.calls.append(("join", timeout))
        return self.ends


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    made: list[Pool] = []

    def make(*arguments: Any, **options: Any) -> Pool:
        made.append(Pool(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(members, "ThreadPool", make)
    return made


def inline(workers: int = 1, connections: Any = None) -> tuple[OwnThreads, list[str]]:
    ends: list[str] = []
    settings = Settings(workers=workers)
    one = OwnThreads("app", [], settings, lambda: ends.append("end"), None, connections)  # type: ignore[arg-type]
    return one, ends


def test_threads_serve_as_configured(pools: list[Pool]) -> None:
    one, ends = inline()
    (pool,) = pools
    assert pool.options == {"multiprocess": False, "balance": None, "metrics": None}
    assert not one.ready
    one.start()
    assert one.ready
    one.reopen_logs()
    one.stop(others_accept=True)
    one.stop_now()
    assert pool.calls == ["start", "reopen", ("stop", True), "stop now"]
    assert (one.requests, one.is_stuck, one.failed, str(one)) == (7, False, False, "the server")
    pool.is_stuck = True
    pool.error = ValueError()
    assert (one.is_stuck, one.failed) == (True, True)
    assert ends == []


def test_the_threads_of_one_of_several_processes_report_it_and_may_share_connections(
    pools: list[Pool],
) -> None:
    inline(workers=2, connections=("a", "b"))
    assert pools[0].options["multiprocess"] is True
    assert pools[0].calls == [("share", "a", "b")]


def test_running_threads_are_not_waited_for(pools: list[Pool]) -> None:
    one, _ = inline()
    assert not one.has_ended()
    assert pools[0].calls == [("join", 0)]
    assert not one.abandoned


def test_threads_that_end_in_order_are_waited_for(pools: list[Pool]) -> None:
    one, ends = inline()
    pools[0].on_end()
    assert ends == ["end"]
    pools[0].ends = True
    assert one.has_ended()
    assert pools[0].calls == [("join", None)]
    assert not one.abandoned


def test_abandoned_threads_are_left_behind(pools: list[Pool]) -> None:
    one, _ = inline()
    pools[0].ends = pools[0].gave_up = True
    assert one.has_ended()
    assert one.abandoned, "expected their requests to continue"
    other, _ = inline()
    other.kill()
    assert other.abandoned
    assert other.has_ended()
    assert pools[1].calls == ["stop now", "close"]


def test_the_threads_of_a_process_have_slightly_more_time_than_their_requests(
    pools: list[Pool],
) -> None:
    one, _ = inline()
    assert pools
    assert 0 < one.extra_time <= 1 < TIMEOUT


# Both ends of the status pipe


@pytest.fixture
def ends() -> Iterator[tuple[StatusPipe, ChildProcess]]:
    ours, its = make_pair()
    process = ChildProcess(0, ours)
    yield StatusPipe(its, os.getppid()), process
    process.close()
    os.close(its)


def test_a_worker_reports_that_it_is_ready_and_needs_a_replacement(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    link, process = ends
    for byte in b"..R.":
        link.send(byte)
    process.read()
    assert (process.ready, process.needs_replacement, process.stopped_by_signal) == (
        True,
        False,
        False,
    )
    link.send(ord("X"))
    link.send(ord("T"))
    process.read()
    assert process.needs_replacement
    assert process.stopped_by_signal


def test_a_worker_gets_its_orders_and_notices_that_its_supervisor_is_gone(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    link, process = ends
    process.ready = True
    assert link.read_orders() == b""
    process.stop(others_accept=True)
    process.stop(others_accept=False)
    process.stop_now()
    assert link.read_orders() == b"LDN"
    assert not link.is_supervisor_gone()
    assert link.fileno() >= 0
    process.close()
    assert link.read_orders() == b""
    assert link.is_supervisor_gone()
    assert link.fileno() == -1, "expected the end of file to stay readable"


def test_the_last_messages_of_a_worker_that_has_not_read_its_orders_are_read() -> None:
    ours, its = make_pair()
    process = ChildProcess(0, ours)
    process.ready = True
    process.stop(others_accept=False)
    StatusPipe(its, os.getppid()).send(ord("X"))
    os.close(its)
    process.read()
    assert process.needs_replacement
    assert process.channel == -1


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_error_of_the_application_arrives_whole_or_at_least_with_its_end(
    ends: tuple[StatusPipe, ChildProcess], size: int
) -> None:
    link, process = ends
    link.send(ord("."))
    link.send_failure(AppImportError("it \N{SNOWMAN} failed", "\udcff" * size + "the end"))
    process.read()
    process._exit = None
    process.pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", ""])
    assert process.has_ended(wait=True)
    assert process.failure is not None
    assert str(process.failure) == "it \N{SNOWMAN} failed"
    assert process.failure.application_traceback.endswith("the end")
    assert process.end == "ended with status 0"


def test_an_exit_status_that_the_application_has_read_is_no_failure(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    _, process = ends
    process._exit = None
    process.pid = os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, "-c", "raise SystemExit(3)"]
    )
    os.waitpid(process.pid, 0)
    assert process.has_ended()
    assert process.end == "ended with status 0"
