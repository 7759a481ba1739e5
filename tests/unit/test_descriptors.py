"""The limit of descriptors, and how many connections it is enough for."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING

import pytest

from picowsgi.config import Settings
from picowsgi.descriptors import make_room

if TYPE_CHECKING:
    from collections.abc import Callable

INFINITY = resource.RLIM_INFINITY
Limits = tuple[int, int]


@pytest.fixture
def make_room_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Limits, int], tuple[Limits, int]]:
    """`make_room_with((soft, hard), connections)` gives both as they are afterwards."""

    def run(limits: Limits, connections: int) -> tuple[Limits, int]:
        now = [limits]
        monkeypatch.setattr(resource, "getrlimit", lambda _which: now[0])
        monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: now.append(limits))
        settings = make_room(Settings(max_connections=connections))
        return now[-1], settings.max_connections

    return run


@pytest.mark.parametrize(
    ("limits", "connections", "limits_after", "connections_after"),
    [
        ((1024, 1 << 20), 8192, (10240, 1 << 20), 8192),
        ((10240, 10240), 8192, (10240, 10240), 8192),
        ((10239, 10240), 8192, (10240, 10240), 8192),
        ((10239, 10239), 8192, (10239, 10239), 8191),
        ((1024, INFINITY), 8192, (10240, INFINITY), 8192),
        ((INFINITY, INFINITY), 8192, (INFINITY, INFINITY), 8192),
        ((1 << 20, 1 << 20), 8192, (1 << 20, 1 << 20), 8192),
        ((1024, 1024), 8192, (1024, 1024), 819),
        ((256, 4096), 8192, (4096, 4096), 3276),
        ((1024, 1024), 100, (1024, 1024), 100),
        ((100, 1024), 100, (164, 1024), 100),
        ((164, 164), 100, (164, 164), 100),
        ((163, 163), 100, (163, 163), 99),
        ((100, 100), 100, (100, 100), 50),
        ((1, 1), 100, (1, 1), 1),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be_and_else_fewer_connections_do(
    make_room_with: Callable[[Limits, int], tuple[Limits, int]],
    caplog: pytest.LogCaptureFixture,
    limits: Limits,
    connections: int,
    limits_after: Limits,
    connections_after: int,
) -> None:
    assert make_room_with(limits, connections) == (limits_after, connections_after)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if connections_after == connections:
        assert not told
    else:
        [line] = told
        assert f"from {connections} to {connections_after}: " in line
        assert f"{limits_after[0]} descriptors" in line


def test_a_limit_that_the_system_does_not_change_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_which: int, _limits: Limits) -> None:
        raise ValueError("as the test wants it")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert make_room(Settings()).max_connections == 192
