"""Workers that are silent, or have grown too large."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest

from picowsgi.config.settings import Settings
from picowsgi.process.members import Member
from picowsgi.process.watchdog import Watchdog
from support.children import SignalledChild


class Worker(SignalledChild):
    """A worker whose size the test sets."""

    def __init__(self, pid: int, *, program: bool = False) -> None:
        super().__init__(pid, program=program)
        self.last_heartbeat = 1000.0
        self.size = 100
        self.weighed = 0

    def memory(self) -> int:
        self.weighed += 1
        return self.size


def watch(**options: Any) -> Watchdog:
    return Watchdog(Settings(**{"timeout_worker": 0.0, **options}))


def test_a_silent_worker_writes_its_stacks_and_is_killed_a_second_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = Worker(1), Worker(2)
    watchdog = watch(timeout_worker=4.0)
    watchdog.check([one, other], 1001.0)
    other.last_heartbeat = 1003.0
    watchdog.check([one, other], 1004.0)
    assert not one.silent, "expected the time to be over first"
    watchdog.check([one, other], 1004.5)
    watchdog.check([one, other], 1004.6)
    assert (one.silent, one.sent, one.kill_at) == (True, [signal.SIGQUIT], 1005.5)
    assert (other.silent, other.sent, other.kill_at) == (False, [], math.inf)
    (message,) = caplog.messages
    assert message.startswith("worker 1 has sent no heartbeat for 4 s and will be killed; ")


def test_a_worker_that_is_to_be_killed_sooner_is_killed_sooner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Worker(1)
    one.kill_at = 1004.75
    watch(timeout_worker=4.0).check([one], 1004.5)
    assert one.kill_at == 1004.75
    assert len(caplog.records) == 1


def test_without_a_limit_no_worker_is_silent() -> None:
    one = Worker(1)
    watchdog = watch()
    for now in range(1001, 1100, 3):
        watchdog.check([one], float(now))
    assert not one.silent


def test_a_worker_may_be_silent_while_it_loads_and_threads_are_not_watched() -> None:
    loading, threads = Worker(1), Member()
    loading.ready = False
    threads.ready = True
    threads.last_heartbeat = 0.0
    watch(timeout_worker=1.0).check([loading, threads], 1004.0)
    assert (loading.silent, threads.silent) == (False, False)


@pytest.mark.parametrize(("pause", "silent"), [(5.0, True), (5.5, False)])
def test_a_worker_is_not_silent_when_its_supervisor_did_not_listen(
    pause: float, silent: bool
) -> None:
    one = Worker(1)
    watchdog = watch(timeout_worker=4.0)
    watchdog.check([one], 1000.0)
    watchdog.check([one], 1000.0 + pause)
    assert one.silent == silent
    if not silent:
        assert one.last_heartbeat == 1005.5
        watchdog.check([one], 1009.6)
        assert one.silent


def test_a_worker_that_has_grown_is_due_for_replacement(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "picowsgi")
    small, large = Worker(1), Worker(2)
    small.size, large.size = 1000, 1001
    watch(max_worker_rss=1000).check([small, large], 1000.0)
    assert (small.needs_replacement, large.needs_replacement) == (False, True)
    assert caplog.messages == ["worker 2 has 1001 bytes in memory"]


def test_memory_is_read_every_two_seconds_and_only_with_a_limit() -> None:
    one, replaced, program = Worker(1), Worker(2), Worker(3, program=True)
    replaced.needs_replacement = True
    program.size = 10**9
    watchdog = watch(max_worker_rss=1000)
    for now in (1000.0, 1001.0, 1001.9, 1002.0, 1003.0, 1004.5):
        watchdog.check([one, replaced, program], now)
    assert (one.weighed, replaced.weighed, program.weighed) == (3, 0, 0)
    assert not program.needs_replacement
    watchdog = watch()
    watchdog.check([one], 1000.0)
    assert one.weighed == 3, "expected no check without a limit"
