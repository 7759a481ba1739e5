"""A successor on the same sockets: when it may start, and the messages about it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from picowsgi.process.upgrade import Upgrade
from support.children import EndingChild


class Successor(EndingChild):
    """A successor that the test controls."""

    def __init__(self) -> None:
        super().__init__(77, program=True)


class Site:
    """A service whose command can be started; it records its calls."""

    def __init__(self, pid_file: bool = True) -> None:
        self.calls: list[Any] = []
        self.started: list[Successor] = []
        self.refusal: OSError | None = None
        note = self.calls.append
        file = SimpleNamespace(
            make_room=lambda: note("make room"), take_back=lambda: note("take back")
        )
        notifier = SimpleNamespace(succeeded_by=lambda pid: note(("succeeded by", pid)))
        self.service = SimpleNamespace(
            command="command",
            status_pipe=None,
            pid_file=file if pid_file else None,
            notifier=notifier,
        )
        self.upgrade = Upgrade(self.service, SimpleNamespace(start=self.start))  # type: ignore[arg-type]

    def start(self, role: str) -> Successor:
        self.calls.append(("start", role))
        if self.refusal is not None:
            raise self.refusal
        self.started.append(Successor())
        return self.started[-1]

    def states(self) -> tuple[bool, bool, bool]:
        one = self.upgrade
        return one.lives(), one.is_starting(), one.serves()


def test_without_a_successor_none_lives_or_starts() -> None:
    site = Site()
    site.upgrade.check()
    assert site.states() == (False, False, False)
    assert site.upgrade.processes() == []
    assert not site.upgrade.succeed()
    assert site.calls == []


def test_the_pid_file_makes_room_for_that_of_the_successor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "picowsgi")
    site = Site()
    site.upgrade.start()
    assert site.calls == ["make room", ("start", "successor")]
    assert site.states() == (True, True, False)
    assert site.upgrade.processes() == site.started
    assert caplog.messages == ["starting the successor 77"]


@pytest.mark.parametrize("missing", [{"command": None}, {"status_pipe": "pipe"}])
def test_only_the_first_process_of_a_command_can_have_a_successor(
    caplog: pytest.LogCaptureFixture, missing: dict[str, Any]
) -> None:
    site = Site()
    vars(site.service).update(missing)
    site.upgrade.start()
    assert site.calls == []
    assert "only the first process of a command can start a successor" in caplog.text


def test_there_is_one_successor_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.upgrade.start()
    site.upgrade.start()
    assert len(site.started) == 1
    assert caplog.messages == ["the successor 77 runs already"]


def test_a_successor_that_cannot_be_started_returns_the_pid_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.refusal = OSError("no more processes")
    site.upgrade.start()
    assert site.calls == ["make room", ("start", "successor"), "take back"]
    assert site.states() == (False, False, False)
    assert caplog.messages == ["cannot start a successor: no more processes"]


def test_a_successor_that_serves_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "picowsgi")
    site = Site()
    site.upgrade.start()
    site.upgrade.check()
    caplog.clear()
    site.started[0].ready = True
    site.upgrade.check()
    site.upgrade.check()
    assert site.states() == (True, False, True)
    assert caplog.messages == [
        f"the successor 77 serves too; send SIGTERM to {os.getpid()} to stop this server"
    ]
    assert site.upgrade.succeed()
    assert site.calls[-1] == ("succeeded by", 77)


def test_a_successor_that_has_died_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.upgrade.start()
    site.started[0].ready = True
    site.upgrade.check()
    site.started[0].over = True
    assert site.states() == (False, False, False)
    assert not site.upgrade.succeed()
    site.upgrade.check()
    assert caplog.messages == ["the successor 77 has died; nothing has changed"]
    assert site.calls[-1] == "take back"
    assert site.upgrade.processes() == []
    caplog.clear()
    caplog.set_level("INFO", "picowsgi")
    site.upgrade.start()
    site.started[1].ready = True
    site.upgrade.check()
    assert "serves too" in caplog.text, "expected a report of the second, too"


def test_a_pid_file_is_not_needed() -> None:
    site = Site(pid_file=False)
    site.upgrade.start()
    site.started[0].over = True
    site.upgrade.check()
    assert site.calls == [("start", "successor")]
