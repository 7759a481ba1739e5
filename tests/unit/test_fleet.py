"""The decisions about those that serve, without a process."""

from __future__ import annotations

import math

import pytest

from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.process.members import ChildProcess, Member
from picowsgi.process.respawn import Respawn
from picowsgi.process.workers import Workers

SECOND = 1.0


class Fake(ChildProcess):
    """A process that does what the test says."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid, -1)
        self.over = False
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

    def has_ended(self, *, wait: bool = False) -> bool:  # noqa: ARG002
        return self.over

    @property
    def end(self) -> str:
        return "has died"


class Site:
    """A fleet, and all that it has started."""

    def __init__(self, target: int = 2, settings: Settings | None = None) -> None:
        self.started: list[Fake] = []
        self.now = 1000.0
        self.workers = Workers(settings or Settings(timeout_worker=0), self.spawn, target)

    def spawn(self) -> Fake:
        one = Fake(len(self.started) + 1)
        one.last_heartbeat = self.now
        self.started.append(one)
        return one

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.workers.step(self.now)

    def serve(self) -> None:
        """All that have been started are ready."""
        for one in self.started:
            one.ready = True
        self.step()


def running(site: Site) -> list[int]:
    return [one.pid for one in site.started if not one.over and not one.stopping]


def test_it_is_ready_when_all_that_are_wanted_are() -> None:
    site = Site()
    site.step()
    assert running(site) == [1, 2]
    site.started[0].ready = True
    site.step()
    assert not site.workers.ready
    site.serve()
    assert site.workers.ready


def test_a_reload_stops_the_old_ones_when_all_new_ones_are_ready() -> None:
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


def test_a_reload_during_a_reload_follows_it() -> None:
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


def test_a_reload_that_fails_leaves_the_old_ones() -> None:
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
    assert len(site.started) == 4, "nothing is tried again"


def test_a_failure_before_any_was_ready_ends_all() -> None:
    site = Site()
    site.step()
    site.started[0].failure = AppImportError("broken")
    site.started[0].over = site.started[1].over = True
    site.step()
    assert site.workers.over
    assert str(site.workers.failure) == "broken"
    assert len(site.started) == 2


def test_one_that_dies_is_replaced_at_once_and_then_ever_later() -> None:
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


def test_the_delay_is_bounded_and_forgotten_after_a_good_minute() -> None:
    respawn = Respawn()
    for _ in range(40):
        respawn.failed(100.0)
    assert respawn.due == 130.0
    respawn.failed(161.0)
    assert respawn.due == 161.0


def test_a_worker_that_is_due_is_stopped_when_another_is_ready() -> None:
    site = Site()
    site.step()
    site.serve()
    site.started[0].needs_replacement = True
    site.step()
    assert running(site) == [1, 2, 3]
    site.serve()
    assert running(site) == [2, 3]


def test_one_more_and_one_less_but_never_none() -> None:
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


def test_one_that_does_not_end_in_time_is_killed() -> None:
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


def test_a_stop_that_is_repeated_changes_nothing() -> None:
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


def test_a_stop_does_not_shorten_the_time_of_one_that_drains_already() -> None:
    site = Site(target=1, settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    site.workers.reload()
    site.step()
    site.serve()
    old, new = site.started
    assert (old.asked, old.others_accept) == (1, True), "the new one accepts"
    site.workers.stop(site.now)
    assert (new.asked, new.others_accept) == (1, False), "nobody accepts after it"
    assert not old.was_cut
    site.step(14.0)
    assert not old.over


def test_what_is_to_end_now_is_cut_and_killed_soon() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.stop(site.now)
    site.workers.stop_now(site.now, within=1.0)
    assert all(one.was_cut and not one.over for one in site.started)
    site.step(1.5)
    assert all(one.over for one in site.started)


def test_one_that_a_signal_stops_is_replaced_while_it_drains() -> None:
    site = Site(settings=Settings(timeout_worker=0, timeout_graceful=10.0))
    site.step()
    site.serve()
    first = site.started[0]
    first.stopped_by_signal = True
    site.step()
    assert running(site) == [2, 3]
    assert first.asked == 0, "it may have to serve all that wait: the signal may be for everyone"
    site.step(16.0)
    assert first.over, "it has as much time as any other"


def test_the_end_of_one_that_a_signal_has_stopped_is_no_accident() -> None:
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


def test_silence_of_a_worker_ends_it_unless_this_process_was_deaf() -> None:
    site = Site(target=1, settings=Settings(timeout_worker=10.0))
    site.step()
    site.serve()
    one = site.started[0]
    one.last_heartbeat = site.now
    site.step(60)  # nobody has looked for a minute, so nobody has listened
    assert not one.silent
    for _ in range(11):
        site.step(SECOND)
    assert one.silent
    site.step(SECOND)
    assert one.over


def test_a_process_that_cannot_be_started_at_first_is_an_error_and_later_a_delay() -> None:
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


def test_a_restart_does_not_wait_for_the_new_ones() -> None:
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
    assert [one.asked for one in site.started] == [1, 1, 1, 1, 0, 0], "each is stopped once"
    site.step(1.5)
    assert [one.over for one in site.started] == [False, False, True, True, False, False], (
        "who has not loaded the application yet has nothing to finish"
    )


def test_a_failure_that_is_reported_ends_nothing() -> None:
    site = Site(target=1)
    told: list[AppImportError] = []
    site.workers.on_failure = told.append
    site.step()
    site.started[0].over = True
    site.step()
    assert "has died" in str(told[0])
    assert running(site) == [2]
    site.started[1].over = True
    site.step()
    assert running(site) == [], "the second time it waits a little"
    site.step(SECOND)
    assert running(site) == [3]
    assert not site.workers.over


# What else follows from an end


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


def test_a_new_fleet_neither_reloads_nor_stops_nor_has_failed() -> None:
    fleet = Site().workers
    flags = (fleet.ready, fleet.reloading, fleet.stopping, fleet.failed, fleet.over)
    assert not any(flags)


def test_what_exists_already_counts_and_ends_all_by_its_accident() -> None:
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


def test_the_end_of_threads_that_were_stopped_is_no_failure() -> None:
    fleet = Workers(Settings(), None, 1)
    threads = Threads()
    fleet.adopt(threads)
    fleet.stop(0.0)
    threads.over = True
    fleet.step(1.0)
    assert (fleet.over, fleet.failed) == (True, False)


def test_an_end_at_once_stops_the_fleet_and_limits_its_time() -> None:
    site = Site(target=1)
    site.step()
    site.serve()
    site.workers.stop_now(site.now, within=3.0)
    assert site.workers.stopping
    assert site.started[0].kill_at == site.now + 3.0
    site.workers.stop_now(site.now, within=9.0)
    assert site.started[0].kill_at == site.now + 3.0, "expected the sooner of the two"


def test_killing_all_waits_for_the_processes_and_not_for_threads() -> None:
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
def test_a_new_application_is_not_made_to_wait_for_the_accidents_of_the_old(again: str) -> None:
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


def test_a_reload_by_another_way_has_one_of_it_and_comes_back_if_it_fails() -> None:
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


def test_a_reload_that_was_asked_for_twice_is_not_tried_after_it_has_failed() -> None:
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


def test_a_restart_leaves_alone_what_drains_already() -> None:
    site = Site(target=2)
    site.step()
    site.serve()
    first, second = site.started
    first.stopped_by_signal = True
    site.step()
    site.workers.restart(site.now)
    assert (first.asked, second.asked) == (0, 1)


def test_after_a_restart_a_process_that_cannot_load_has_a_second_to_end() -> None:
    site = Site(target=2, settings=Settings(timeout_worker=0, timeout_graceful=30.0))
    site.step()
    site.started[0].ready = True
    site.workers.restart(site.now)
    limits = [one.kill_at - site.now for one in site.started]
    assert limits == [35.0, 1.0]


# When something is due


def test_without_anything_due_the_wait_has_no_end() -> None:
    fleet = Workers(Settings(), None, 1)
    assert fleet.wait_for(1000.0) == math.inf
    fleet.adopt(Threads())
    assert fleet.wait_for(1000.0) == math.inf


def test_processes_are_looked_at_every_second() -> None:
    site = Site(target=1)
    site.step()
    assert site.workers.wait_for(site.now) == 1.0


def test_the_time_of_a_kill_ends_the_wait_and_one_that_is_past_is_no_wait() -> None:
    fleet = Workers(Settings(), None, 1)
    one = Threads()
    fleet.adopt(one)
    one.kill_at = 1007.0
    assert fleet.wait_for(1000.0) == 7.0
    assert fleet.wait_for(1008.0) == 0.0


def test_what_is_missing_ends_the_wait_when_it_may_be_started() -> None:
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
    assert site.workers.wait_for(site.now) == math.inf, "expected nothing more to be started"


# What is logged


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(one.levelname, one.getMessage()) for one in caplog.records]
    caplog.clear()
    return found


def test_the_log_names_what_becomes_of_each(caplog: pytest.LogCaptureFixture) -> None:
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
