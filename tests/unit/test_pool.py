"""The serving threads of a process, with event loops that record their calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.threads import pool
from picowsgi.threads.pool import ThreadPool
from support import TIMEOUT


class StubLoop:
    """A loop whose one thread runs until the core gets a stop."""

    made: list[StubLoop]

    def __init__(self, name: str, *arguments: Any, **options: Any) -> None:
        self.name, self.arguments, self.options = name, arguments, options
        self.calls: list[Any] = []
        self.stopped = threading.Event()
        self.is_stuck = False
        self.left_behind = 0
        self.start_thread: Callable[..., threading.Thread] | None = None
        self.target: Callable[[], object] = lambda: self.stopped.wait(TIMEOUT)
        self.core = SimpleNamespace(
            stop=self._stop,
            requests=3,
            share=lambda *pair: self.calls.append(("share", *pair)),
            log_to=lambda descriptor: self.calls.append(("log to", descriptor)),
            end_log=lambda _most, _quiet: 0,
            dropped_headers=0,
            refused_by_proxy_protocol=0,
        )
        self.leaves = True
        StubLoop.made.append(self)

    def _stop(self, how: int) -> None:
        self.calls.append(("stop", how))
        if self.leaves:
            self.stopped.set()

    def start(self, start_thread: Callable[..., threading.Thread]) -> None:
        self.start_thread = start_thread
        start_thread(f"{self.name}-0", self.target)

    def log_stuck(self) -> None:
        self.calls.append("log stuck")


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> list[StubLoop]:
    StubLoop.made = []
    monkeypatch.setattr(pool.loop, "Loop", StubLoop)
    return StubLoop.made


def make(
    monkeypatch: pytest.MonkeyPatch | None = None, count: int = 1, **options: Any
) -> ThreadPool:
    settings = Settings(**options)
    if monkeypatch is not None:
        monkeypatch.setattr(pool.loop, "share_out", lambda one: [one] * count)
    return ThreadPool("app", ["socket"], settings)  # type: ignore[arg-type,list-item]


def test_each_loop_has_the_values_that_all_loops_share(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    make(monkeypatch, threads=4)
    (one,) = loops
    assert (one.name, one.arguments[:2]) == ("picowsgi", ("app", ["socket"]))
    common = one.options["common"]
    assert (common["wsgi.multithread"], common["wsgi.multiprocess"]) == (True, False)
    assert callable(common["wsgi.early_hints"])
    assert one.options["balance"] is None
    ThreadPool("app", [], Settings(threads=1), multiprocess=True, environ={"x": 1})  # type: ignore[arg-type]
    common = loops[1].options["common"]
    assert (common["wsgi.multithread"], common["wsgi.multiprocess"]) == (False, True)
    assert common["x"] == 1


def test_several_loops_share_a_balance(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    make(monkeypatch, count=2)
    assert [one.name for one in loops] == ["picowsgi-0", "picowsgi-1"]
    balances = [one.options["balance"] for one in loops]
    assert type(balances[0]) is core.Balance
    assert balances[0] is balances[1]
    given = core.Balance()
    ThreadPool("app", [], Settings(), balance=given)  # type: ignore[arg-type]
    assert all(one.options["balance"] is given for one in loops[2:])


def test_a_call_to_the_worker_reaches_each_loop(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    worker = make(monkeypatch, count=2)
    worker.share("a", "b")  # type: ignore[arg-type]
    assert [one.calls for one in loops] == [[("share", "a", "b")]] * 2
    assert worker.requests == 6
    assert not worker.is_stuck
    loops[1].is_stuck = True
    assert worker.is_stuck


def test_the_worker_serves_until_a_stop(loops: list[StubLoop]) -> None:
    worker = make()
    ended: list[threading.Thread] = []
    worker.on_end = lambda: ended.append(threading.current_thread())
    assert not worker.started
    worker.start()
    assert worker.started
    assert not worker.join(0)
    assert ended == []
    worker.stop()
    assert worker.join(TIMEOUT)
    assert loops[0].calls == [("stop", core.DRAIN)]
    assert [one.name for one in ended] == ["picowsgi-0"]
    assert all(one.daemon for one in ended)
    assert worker.error is None


def test_other_workers_may_continue_to_accept(loops: list[StubLoop]) -> None:
    worker = make()
    worker.start()
    worker.stop(others_accept=True)
    assert loops[0].calls == [("stop", core.LEAVE)]
    assert worker.join(TIMEOUT)


def test_the_end_comes_when_the_last_thread_has_ended(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    worker = make(monkeypatch, count=2)
    ended: list[int] = []
    worker.on_end = lambda: ended.append(1)
    worker.start()
    loops[0].stopped.set()
    assert not worker.join(0.05)
    loops[1].stopped.set()
    assert worker.join(TIMEOUT)
    assert ended == [1]


def test_a_thread_that_ends_before_the_others_begin_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    worker = make(monkeypatch, count=2)
    loops[0].target = lambda: None

    def start(start_thread: Callable[..., threading.Thread]) -> None:
        start_thread("first", loops[0].target).join(TIMEOUT)
        assert not worker.join(0)

    loops[0].start = start  # type: ignore[method-assign]
    worker.start()
    assert not worker.join(0)
    worker.stop()
    assert worker.join(TIMEOUT)


def test_a_loop_that_cannot_start_ends_the_worker(loops: list[StubLoop]) -> None:
    worker = make()

    def refuse(_start_thread: object) -> None:
        raise RuntimeError("no more threads")

    loops[0].start = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no more threads"):
        worker.start()
    assert worker.join(0)
    assert not worker.started


def test_a_thread_that_cannot_be_started_is_not_counted(
    loops: list[StubLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make()
    worker.start()
    start_thread = loops[0].start_thread
    assert start_thread is not None

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            start_thread("more", lambda: None)
    assert [one.name for one in worker._threads] == ["picowsgi-0"]
    worker.stop()
    assert worker.join(TIMEOUT)


def test_threads_that_have_ended_are_forgotten(loops: list[StubLoop]) -> None:
    worker = make()
    worker.start()
    start_thread = loops[0].start_thread
    assert start_thread is not None
    for _ in range(5):
        start_thread("short", lambda: None).join(TIMEOUT)
    assert len(worker._threads) == 2
    worker.stop()
    assert worker.join(TIMEOUT)


def test_an_error_of_the_server_ends_all_its_threads(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop], caplog: pytest.LogCaptureFixture
) -> None:
    worker = make(monkeypatch, count=2)

    def fail() -> None:
        raise SystemExit("broken")

    loops[1].target = fail
    worker.start()
    assert worker.join(TIMEOUT)
    assert type(worker.error) is SystemExit
    assert [one.calls for one in loops] == [[("stop", core.END)]] * 2
    assert caplog.messages == ["a thread of the server has failed"]
    assert caplog.records[0].levelname == "CRITICAL"


def test_an_immediate_end_does_not_wait(loops: list[StubLoop]) -> None:
    worker = make(timeout_graceful=60.0)
    loops[0].leaves = False
    worker.start()
    worker.stop_now()
    before = time.monotonic()
    assert worker.join()
    assert time.monotonic() - before < 5
    assert loops[0].calls == [("stop", core.END), "log stuck"]
    loops[0].stopped.set()


def test_requests_get_their_time_and_are_then_left_behind(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: clock[0])
    worker = make(timeout_graceful=30.0)
    loops[0].leaves = False
    worker.start()
    worker.stop()
    clock[0] = 1029.0
    worker.stop()  # which does not restart the time
    assert not worker.join(0)
    clock[0] = 1030.2
    assert not worker.join(0)
    clock[0] = 1030.25
    assert worker.join(0)
    assert loops[0].calls == [("stop", core.DRAIN)] * 2 + ["log stuck"]
    loops[0].stopped.set()


def test_join_waits_as_long_as_its_argument_says(loops: list[StubLoop]) -> None:
    worker = make()
    worker.start()
    before = time.monotonic()
    assert not worker.join(0.3)
    assert 0.3 <= time.monotonic() - before < TIMEOUT
    threading.Timer(0.3, loops[0].stopped.set).start()
    assert worker.join()


class Log:
    """Stands for the access log."""

    def __init__(self, _settings: Settings) -> None:
        self.calls: list[Any] = []
        self.output = core.AccessOutput()

    def start(self) -> None:
        pass

    def close(self, _most: float, _quiet: float) -> int:
        self.calls.append("close")
        return 0

    def reopen(self, log_to: Callable[[int], object]) -> None:
        log_to(7)


def test_the_log_is_closed_at_the_end_and_reopened_for_each_loop(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    made: list[Log] = []

    def make_log(settings: Settings) -> Log:
        made.append(Log(settings))
        return made[-1]

    monkeypatch.setattr(pool, "AccessLog", make_log)
    worker = make(monkeypatch, count=2)
    worker.reopen_logs()
    assert [one.calls for one in loops] == [[("log to", 7)]] * 2
    worker.start()
    assert made[0].calls == []
    worker.stop()
    assert worker.join(TIMEOUT)
    assert made[0].calls == ["close"]
    other = make(monkeypatch)
    other.close()
    assert made[1].calls == ["close"]


def test_a_forked_child_has_nothing_to_end_or_to_start(
    monkeypatch: pytest.MonkeyPatch, loops: list[StubLoop]
) -> None:
    worker = make()
    worker.start()
    monkeypatch.setattr(pool, "AccessLog", Log)
    other = make()
    monkeypatch.setattr(pool.os, "getpid", lambda: -1)
    assert worker.join()
    other.close()
    assert other._access.calls == []  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="belongs to the process that has made it"):
        other.start()
    monkeypatch.undo()
    loops[0].stopped.set()
    assert worker.join(TIMEOUT)
