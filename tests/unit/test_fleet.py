"""The decisions about those that serve, without a process."""

from __future__ import annotations

import pytest

from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.process.members import ChildProcess
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
        self.is_supervisor_gone = False

    def signal(self, number: int) -> None:
        pass

    def _drain(self, *, others_accept: bool) -> None:
        self.asked += 1
        self.others_accept = others_accept

    def _cut(self) -> None:
        self.is_supervisor_gone = True

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


def test_a_worn_one_is_stopped_when_another_is_ready() -> None:
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
    assert not any(one.is_supervisor_gone or one.over for one in site.started)
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
    assert not old.is_supervisor_gone
    site.step(14.0)
    assert not old.over


def test_what_is_to_end_now_is_cut_and_killed_soon() -> None:
    site = Site()
    site.step()
    site.serve()
    site.workers.stop(site.now)
    site.workers.stop_now(site.now, within=1.0)
    assert all(one.is_supervisor_gone and not one.over for one in site.started)
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


def test_a_failure_that_somebody_is_told_of_ends_nothing() -> None:
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
