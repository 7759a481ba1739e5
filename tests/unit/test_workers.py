"""The decisions about workers, without a process."""

from __future__ import annotations

import math

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.process.members import Member
from picowsgi.process.respawn import Respawn
from picowsgi.process.workers import Workers
from support.children import EndingChild

SECOND = 1.0


class Fake(EndingChild):
    """A worker that records how it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.asked = 0
        self.others_accept: bool | None = None
        self.was_cut = False

    def signal(self, number: int) -> None:
        pass

    def _drain(self, *, others_accept: bool) -> None:
        self.asked += 1
        self.others_accept = others_accept

    def _cut(self) -> None:
        self.was_cut = True

    def kill(self) -> None:
        self.over = True


class Site:
    """Workers, and all that they have started."""

    def __init__(self, target: int = 2, settings: Settings | None = None) -> None:
        self.started: list[Fake] = []
        self.now = 1000.0
        self.reasons: list[int] = []
        self.workers = Workers(
            settings or Settings(timeout_worker=0),
            self.spawn,
            target,
            count_restart=self.reasons.append,
        )

    def spawn(self) -> Fake:
        one = Fake(len(self.started) + 1)
        one.last_heartbeat = self.now
        self.started.append(one)
        return one

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.workers.step(self.now)

    def serve(self) -> None:
        """All started members are ready."""
        for one in self.started:
            one.ready = True
        self.step()


def running(site: Site) -> list[int]:
    return [one.pid for one in site.started if not one.over and not one.stopping]


def test_the_server_is_ready_when_all_wanted_workers_are() -> None:
    site = Site()
    site.step()
    assert running(site) == [1, 2]
    site.started[0].ready = True
    site.step()
    assert not site.workers.ready
    site.serve()
    assert site.workers.ready


def test_a_reload_stops_the_old_workers_when_all_new_workers_are_ready() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    assert running(site) == [1, 2, 3, 4]
    site.started[2].ready = True
    site.step()
    assert running(site) == [1, 2, 3, 4]
    site.serve()
    assert running(site) == [3, 4]
    assert not site.workers.reloading


def test_each_member_that_is_replaced_is_counted_once_with_its_reason() -> None:
    site = Site(target=5)
    site.step()
    site.serve()
    assert site.reasons == []
    large, old, crashed, signalled, silent = site.started
    large.needs_replacement, large.reason = True, core.RESTART_MEMORY
    old.needs_replacement = True
    crashed.over = signalled.over = silent.over = True
    signalled._exit = 9
    silent.silent = True
    site.step()
    assert site.reasons == [core.RESTART_EXIT, core.RESTART_SIGNAL, core.RESTART_TIMEOUT]
    del site.reasons[:]
    site.step(60)
    site.serve()
    assert site.reasons == [core.RESTART_MEMORY, core.RESTART_REQUESTS]
    del site.reasons[:]
    site.started[-1].stopped_by_signal = True
    site.step()
    assert site.reasons == [core.RESTART_SIGNAL]
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    site.serve()
    assert site.reasons == [core.RESTART_SIGNAL, *[core.RESTART_RELOAD] * 5]
    del site.reasons[:]
    site.workers.reload(reason=core.RESTART_TIMEOUT)
    site.step()
    site.serve()
    site.workers.restart(site.now)
    assert site.reasons == [core.RESTART_TIMEOUT] * 5 + [core.RESTART_RELOAD] * 5
    del site.reasons[:]
    site.workers.change(1, site.now)
    site.workers.stop(site.now)
    site.step()
    assert site.reasons == []


def test_a_second_reload_waits_for_the_first() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.workers.reload()
    site.workers.reload()
    site.step()
    assert running(site) == [1, 2]
    site.serve()
    assert site.workers.reloading
    site.step()
    site.serve()
    assert running(site) == [3]
    assert not site.workers.reloading


def test_a_failed_reload_keeps_the_old_workers() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    site.started[3].over = True
    site.step()
    assert running(site) == [1, 2]
    assert site.started[2].asked == 1
    site.step(60)
    assert len(site.started) == 4, "expected no second try"


def test_a_failure_before_any_worker_is_ready_ends_all() -> None:
    site = Site()
    site.step()
    site.started[0].failure = AppImportError("broken")
    site.started[0].over = site.started[1].over = True
    site.step()
    assert site.workers.over
    assert str(site.workers.failure) == "broken"
    assert len(site.started) == 2


def test_a_worker_that_dies_is_replaced_at_once_and_then_with_growing_delays() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    waits = []
    for _ in range(6):
        died = site.now
        site.started[-1].over = True
        site.step()
        while running(site) == []:
            site.step(0.1)
        site.serve()
        waits.append(round(site.now - died, 1))
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]


def test_the_delay_has_a_maximum_and_is_reset_after_a_minute_without_an_accident() -> None:
    respawn = Respawn()
    for _ in range(40):
        respawn.failed(100.0)
    assert respawn.due == 130.0
    respawn.failed(161.0)
    assert respawn.due == 161.0


def test_a_worker_that_is_due_for_replacement_stops_when_another_is_ready() -> None:
    site = Site()
    site.step()
    site.serve()
    site.started[0].needs_replacement = True
    site.step()
    assert running(site) == [1, 2, 3]
    site.serve()
    assert running(site) == [2, 3]


def test_the_number_of_workers_changes_by_one_and_never_to_zero() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.change(1, site.now)
    site.step()
    assert running(site) == [1, 2, 3]
    site.workers.change(-1, site.now)
    site.workers.change(-1, site.now)
    site.workers.change(-1, site.now)
    assert running(site) == [3]


def test_a_worker_that_does_not_exit_in_time_is_killed() -> None:
    site = Site(settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    site.workers.stop(site.now)
    site.step(10)
    assert not site.started[0].over
    site.step(6)
    assert site.started[0].over
    site.step()
    assert site.workers.over


def test_a_repeated_stop_changes_nothing() -> None:
    site = Site(settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    for _ in range(5):
        site.workers.stop(site.now)
        site.step(1.0)
    assert not any(one.was_cut or one.over for one in site.started)
    site.step(9.0)  # 14 s after the first stop: its limit counts from there
    assert not site.started[0].over
    site.step(1.0)
    assert site.started[0].over


def test_a_stop_does_not_shorten_the_time_of_a_worker_that_already_drains() -> None:
    site = Site(target=1, settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    site.serve()
    old, new = site.started
    assert (old.asked, old.others_accept) == (1, True), "expected the new one to accept"
    site.workers.stop(site.now)
    assert (new.asked, new.others_accept) == (1, False), "expected no process that accepts after it"
    assert not old.was_cut
    site.step(14.0)
    assert not old.over


def test_an_immediate_stop_cuts_requests_and_kills_soon() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.stop(site.now)
    site.workers.stop_now(site.now, within=1.0)
    assert all(one.was_cut and not one.over for one in site.started)
    site.step(1.5)
    assert all(one.over for one in site.started)


def test_a_worker_that_a_signal_stops_is_replaced_during_its_drain() -> None:
    site = Site(settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    first = site.started[0]
    first.stopped_by_signal = True
    site.step()
    assert running(site) == [2, 3]
    assert first.asked == 0, (
        "expected time for all waiting connections: the signal may be for every process"
    )
    site.step(16.0)
    assert first.over, "expected as much time as for any other"


def test_the_exit_of_a_worker_that_a_signal_has_stopped_is_no_accident() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.started[0].stopped_by_signal = site.started[0].over = True
    site.step()
    assert running(site) == [2]
    site.serve()
    site.started[1].over = True
    site.step()
    assert running(site) == [3], "expected the first accident to be the first"


def test_silence_ends_a_worker_unless_the_supervisor_did_not_listen() -> None:
    site = Site(target=1, settings=Settings(timeout_worker=10.0))
    site.step()
    site.serve()
    one = site.started[0]
    one.last_heartbeat = site.now
    site.step(60)  # the supervisor did not run for a minute, so it has heard no heartbeat
    assert not one.silent
    for _ in range(11):
        site.step(SECOND)
    assert one.silent
    site.step(SECOND)
    assert one.over


def test_a_process_that_cannot_start_is_an_error_at_first_and_a_delay_later() -> None:
    site = Site(target=1)

    def refuse() -> Fake:
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        Workers(Settings(), refuse, 1).step(0.0)
    site.step()
    site.serve()
    site.workers.reload(refuse)
    site.step()
    assert running(site) == [1]
    assert not site.workers.reloading


def test_a_restart_does_not_wait_for_the_new_workers() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.restart(site.now)
    assert running(site) == []
    site.step()
    assert running(site) == [3, 4]
    site.workers.restart(site.now)
    site.step()
    assert running(site) == [5, 6]
    assert [one.asked for one in site.started] == [1, 1, 1, 1, 0, 0], "expected one stop for each"
    site.step(1.5)
    assert [one.over for one in site.started] == [False, False, True, True, False, False], (
        "expected no drain of a worker that has not loaded the application yet"
    )


def test_a_reported_failure_ends_nothing() -> None:
    site = Site(target=1)
    failures: list[AppImportError] = []
    site.workers.on_failure = failures.append
    site.step()
    site.started[0].over = True
    site.step()
    assert "has died" in str(failures[0])
    assert running(site) == [2]
    site.started[1].over = True
    site.step()
    assert running(site) == [], "expected a short wait the second time"
    site.step(SECOND)
    assert running(site) == [3]
    assert not site.workers.over


# More consequences of an exit


class Threads(Member):
    """Threads of this process, which cannot be started again."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False
        self.asked = 0
        self.is_killed = False

    def _drain(self, *, others_accept: bool) -> None:  # noqa: ARG002
        self.asked += 1

    def _cut(self) -> None:
        pass

    def kill(self) -> None:
        self.is_killed = True

    def has_ended(self) -> bool:
        return self.over


def test_new_workers_have_neither_a_reload_nor_a_stop_nor_a_failure() -> None:
    fleet = Site().workers
    flags = (fleet.ready, fleet.reloading, fleet.stopping, fleet.failed, fleet.over)
    assert not any(flags)


def test_an_existing_member_counts_and_its_accident_ends_all() -> None:
    fleet = Workers(Settings(), None, 1)
    threads, child = Threads(), Fake(1)
    fleet.adopt(threads)
    fleet.adopt(child)
    assert fleet.processes() == [child]
    threads.ready = True
    fleet.step(0.0)
    assert fleet.ready
    threads.over = True
    fleet.step(1.0)
    assert (fleet.failed, fleet.stopping, child.asked) == (True, True, 1)
    assert not fleet.over
    child.over = True
    fleet.step(1.0)
    assert fleet.over


def test_the_exit_of_stopped_threads_is_no_failure() -> None:
    fleet = Workers(Settings(), None, 1)
    threads = Threads()
    fleet.adopt(threads)
    fleet.stop(0.0)
    threads.over = True
    fleet.step(1.0)
    assert (fleet.over, fleet.failed) == (True, False)


def test_an_immediate_end_stops_all_workers_and_limits_their_time() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.workers.stop_now(site.now, within=3.0)
    assert site.workers.stopping
    assert site.started[0].kill_at == site.now + 3.0
    site.workers.stop_now(site.now, within=9.0)
    assert site.started[0].kill_at == site.now + 3.0, "expected the earlier of the two"


def test_kill_all_waits_for_the_processes_and_not_for_threads() -> None:
    waited: list[bool] = []

    class Waited(Fake):
        def has_ended(self, *, wait: bool = False) -> bool:
            waited.append(wait)
            return super().has_ended()

    fleet = Workers(Settings(), None, 1)
    threads, child = Threads(), Waited(1)
    fleet.adopt(threads)
    fleet.adopt(child)
    fleet.kill()
    assert (threads.is_killed, child.over, waited) == (True, True, [True])
    assert fleet.over


@pytest.mark.parametrize("again", ["reload", "restart"])
def test_a_new_application_does_not_wait_for_accidents_of_the_old_one(again: str) -> None:
    site = Site(target=1)
    site.step()
    for _ in range(4):
        site.serve()
        site.started[-1].over = True
        site.step()
    assert running(site) == []
    if again == "reload":
        site.workers.reload()
    else:
        site.workers.restart(site.now)
    site.step()
    assert len(running(site)) == 1


def test_a_reload_by_program_starts_one_program_and_comes_back_when_it_fails() -> None:
    site = Site(target=3)
    site.step()
    site.serve()
    others: list[Fake] = []

    def other() -> Fake:
        others.append(Fake(100 + len(others)))
        return others[-1]

    site.workers.reload(other)
    site.step()
    assert (len(others), len(site.started)) == (1, 3)
    others[0].over = True
    site.step()
    assert running(site) == [1, 2, 3]
    site.started[0].over = True
    site.step()
    assert running(site) == [2, 3, 4], "expected workers of the old kind, as many as before"
    assert len(others) == 1


def test_a_second_reload_is_not_tried_after_the_first_has_failed() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.workers.reload()
    site.workers.reload()
    site.step()
    site.started[1].over = True
    site.step()
    assert not site.workers.reloading
    site.workers.reload()
    site.step()
    site.serve()
    site.step()
    assert not site.workers.reloading
    assert running(site) == [3]


def test_a_restart_does_not_stop_draining_workers_again() -> None:
    site = Site(target=2)
    site.step()
    site.serve()
    first, second = site.started
    first.stopped_by_signal = True
    site.step()
    site.workers.restart(site.now)
    assert (first.asked, second.asked) == (0, 1)


def test_after_a_restart_a_process_that_cannot_load_has_a_second_to_exit() -> None:
    site = Site(target=2, settings=Settings(timeout_worker=0, timeout_graceful=30.0))
    site.step()
    site.started[0].ready = True
    site.workers.restart(site.now)
    limits = [one.kill_at - site.now for one in site.started]
    assert limits == [35.0, 1.0]


# The time of the next task


def test_without_a_task_the_wait_has_no_limit() -> None:
    fleet = Workers(Settings(), None, 1)
    assert fleet.wait_for(1000.0) == math.inf
    fleet.adopt(Threads())
    assert fleet.wait_for(1000.0) == math.inf


def test_processes_are_checked_every_second() -> None:
    site = Site(target=1)
    site.step()
    assert site.workers.wait_for(site.now) == 1.0


def test_the_time_of_a_kill_limits_the_wait_and_a_past_one_means_no_wait() -> None:
    fleet = Workers(Settings(), None, 1)
    one = Threads()
    fleet.adopt(one)
    one.kill_at = 1007.0
    assert fleet.wait_for(1000.0) == 7.0
    assert fleet.wait_for(1008.0) == 0.0


def test_a_due_start_limits_the_wait() -> None:
    site = Site(target=1)
    assert site.workers.wait_for(site.now) == 0.0
    site.step()
    for _ in range(2):
        site.serve()
        site.started[-1].over = True
        site.step()
    assert running(site) == []
    assert round(site.workers.wait_for(site.now), 6) == 0.1
    site.workers.stop(site.now)
    assert site.workers.wait_for(site.now) == math.inf, "expected no further start"


# The log


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(one.levelname, one.getMessage()) for one in caplog.records]
    caplog.clear()
    return found


def test_the_log_shows_each_event_of_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "picowsgi")
    site = Site(target=2, settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    site.started[0].needs_replacement = True
    site.step()
    site.step()
    assert lines(caplog) == [("INFO", "worker 1 is to be replaced")]
    site.serve()
    site.started[1].stopped_by_signal = True
    site.step()
    assert lines(caplog) == [("INFO", "worker 2 has been sent a signal to stop")]
    site.serve()
    site.started[2].over = True
    site.step()
    assert lines(caplog) == [("ERROR", "worker 3 has died")]
    site.step(20)
    assert lines(caplog) == [
        ("ERROR", f"worker {pid} did not end in time: its open requests are cut off")
        for pid in (1, 2)
    ]
    site.serve()
    site.workers.change(2, site.now)
    assert lines(caplog) == [("INFO", "workers: 4")]
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    site.serve()
    assert lines(caplog) == [("INFO", "reloading"), ("INFO", "reloaded")]


def test_the_log_says_why_a_worker_could_not_load_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.started[0].over = True
    site.step()
    lines(caplog)
    site.started[1].failure = AppImportError("broken", "the traceback\n")
    site.started[1].over = True
    site.step()
    assert lines(caplog) == [("ERROR", "a new worker cannot start: broken")]
    assert running(site) == []
    site.step(SECOND)
    site.workers.reload()
    site.step()
    site.started[-1].over = True
    site.step()
    ((level, text),) = lines(caplog)
    assert level == "ERROR"
    assert text.startswith("the reload has failed: worker ")
    assert text.endswith(" has died before it had loaded the application")


def test_a_worker_that_cannot_be_started_is_logged_and_tried_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(target=2)
    site.step()
    site.serve()
    refusals = 0

    def refuse() -> Fake:
        nonlocal refusals
        refusals += 1
        raise OSError("no more processes")

    site.workers._spawn = refuse
    site.workers.change(1, site.now)
    site.step()
    assert refusals == 1, "expected one attempt"
    assert lines(caplog)[-1] == ("ERROR", "cannot start a process: no more processes")
    site.step()
    assert refusals == 2
    site.step()
    assert refusals == 2, "expected a delay"
    site.step(SECOND)
    assert refusals == 3
