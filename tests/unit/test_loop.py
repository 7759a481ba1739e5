"""The threads and connections of a process are divided among its event loops."""

import logging
from dataclasses import replace

import pytest

from picowsgi.config.settings import Settings
from picowsgi.threads import loop
from picowsgi.threads.loop import share_out


@pytest.fixture
def cpus(monkeypatch):
    """`cpus(4, gil=False)`: the CPUs and the GIL of the process."""

    def have(count, *, gil):
        monkeypatch.setattr(loop, "usable_cpus", lambda: count)
        monkeypatch.setattr(loop, "has_gil", lambda: gil)

    return have


def test_with_the_gil_there_is_one_loop_with_all_settings(cpus):
    cpus(8, gil=True)
    assert share_out(Settings()) == [Settings()]


@pytest.mark.parametrize(
    ("cpus_left", "options", "expected"),
    [
        (4, {}, [4, 4, 4, 4]),
        (3, {}, [6, 5, 5]),
        (8, {"workers": 2}, [4, 4, 4, 4]),
        (2, {"workers": 4}, [16]),
        (4, {"threads": 2}, [1, 1]),
        (4, {"threads": 1}, [1]),
        (4, {"loops": 2}, [8, 8]),
        (1, {"loops": 3, "threads": 4}, [2, 1, 1]),
    ],
)
def test_without_the_gil_there_is_one_loop_for_each_cpu_and_no_more_than_threads(
    cpus, cpus_left, options, expected
):
    cpus(cpus_left, gil=False)
    assert [part.threads for part in share_out(replace(Settings(), **options))] == expected


def test_all_connections_are_divided_among_the_loops(cpus):
    cpus(4, gil=False)
    parts = share_out(replace(Settings(), max_connections=10))
    assert [part.max_connections for part in parts] == [3, 3, 2, 2]
    parts = share_out(replace(Settings(), max_connections=3))
    assert [part.max_connections for part in parts] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "gil", "message"),
    [
        ({}, True, ""),
        ({"loops": 1}, True, ""),
        ({"loops": 2}, True, "--loops 2: only one thread of this Python runs at a time"),
        ({"loops": 2}, False, ""),
        ({"loops": 3, "threads": 2}, False, "--loops is lowered from 3 to 2"),
        ({"loops": 3, "max_connections": 1}, False, "--loops is lowered from 3 to 1"),
    ],
)
def test_useless_loops_and_loops_that_cannot_start_are_logged(cpus, caplog, options, gil, message):
    cpus(4, gil=gil)
    with caplog.at_level(logging.WARNING, logger="picowsgi"):
        loop.warn(replace(Settings(), **options))
    assert message in caplog.text
    assert bool(caplog.records) == bool(message)
