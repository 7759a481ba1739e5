"""The limit of descriptors, how many connections it is enough for, and the standard ones."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from picowsgi.system.descriptors import make_room

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INFINITY = resource.RLIM_INFINITY
Limits = tuple[int, int]


@pytest.fixture
def make_room_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Limits, int], tuple[Limits, int]]:
    """`make_room_with((soft, hard), connections)` returns both values afterwards."""

    def run(limits: Limits, connections: int) -> tuple[Limits, int]:
        now = [limits]
        monkeypatch.setattr(resource, "getrlimit", lambda _which: now[0])
        monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: now.append(limits))
        room = make_room(connections)
        return now[-1], room

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
def test_the_limit_is_raised_as_far_as_possible_and_otherwise_connections_are_fewer(
    make_room_with: Callable[[Limits, int], tuple[Limits, int]],
    caplog: pytest.LogCaptureFixture,
    limits: Limits,
    connections: int,
    limits_after: Limits,
    connections_after: int,
) -> None:
    assert make_room_with(limits, connections) == (limits_after, connections_after)
    seen = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if connections_after == connections:
        assert not seen
    else:
        [line] = seen
        assert f"from {connections} to {connections_after}: " in line
        assert f"{limits_after[0]} descriptors" in line


def test_a_limit_that_the_system_does_not_change_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_which: int, _limits: Limits) -> None:
        raise ValueError("as the test wants it")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert make_room(8192) == 192


# The standard descriptors

OCCUPY = """
import os, sys
for number in map(int, sys.argv[1:]):
    os.close(number)
from picowsgi.system.descriptors import occupy_standard
before = len(os.listdir("/proc/self/fd"))
occupy_standard()
occupy_standard()
seen = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
seen += [os.get_inheritable(number) for number in range(3)]
seen += [len(os.listdir("/proc/self/fd")) - before]
with open("seen", "w") as file:
    print(seen, file=file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_each_standard_descriptor_that_is_closed_becomes_the_null_device(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    files = [tmp_path / str(number) for number in range(3)]
    with ExitStack() as stack:
        streams = [stack.enter_context(file.open("w+b")) for file in files]
        subprocess.run(
            [sys.executable, "-c", OCCUPY, *map(str, closed)],
            cwd=tmp_path,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            check=True,
        )
    expected = [str(file) for file in files]
    for number in closed:
        expected[number] = os.devnull
    seen = (tmp_path / "seen").read_text()
    assert seen == f"{[*expected, True, True, True, len(closed)]}\n"


RESTORE = """
import os, sys
from picowsgi.system.descriptors import restore_standard_streams
before = [sys.stdin, sys.stdout, sys.stderr]
restore_standard_streams()
after = [sys.stdin, sys.stdout, sys.stderr]
kept = [one is None or one is two for one, two in zip(before, after)]
modes = [one.readable() and not one.writable() for one in after]
seen = [[one is None for one in before], kept, modes, [one.fileno() for one in after]]
with open("seen", "w") as file:
    print(seen, file=file)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_streams_that_python_leaves_out_are_opened_and_others_stay(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    closing = " ".join(f"{number}>&-" for number in closed)
    subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, RESTORE],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    missing = [number in closed for number in range(3)]
    seen = (tmp_path / "seen").read_text()
    assert seen == f"{[missing, [True] * 3, [True, False, False], [0, 1, 2]]}\n"
