"""Counts picowsgi's instructions for a request with callgrind, and compares with a baseline.

A count begins when the server is warm, so it does not include the start of the server. The client
has 16 connections. It sends a request on each of them before it reads the responses.

Other programs on the machine do not change the number of instructions, so a change of a few percent
is visible. A clock could not show it. The number depends on the build of Python and on the C
library, so each such environment has its own baseline. Never measures time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from statistics import median
from typing import Any

from bench import install
from bench.exchanges import BROWSER, Exchange, hello
from bench.process import BenchError, free_port, started
from bench.scenarios import SCENARIOS, Scenario
from bench.verify import Client, check

BASELINE = install.PROJECT / "bench" / "baseline.json"


@dataclass(frozen=True)
class Counted:
    """A scenario to count, with the number of requests and connections.

    The client works in rounds. It sends on each connection the requests that the scenario sends at
    once. Then it reads all responses.
    """

    scenario: Scenario
    requests: int = 4000
    connections: int = 16
    #: Each request has its own connection.
    closes: bool = False


#: The scenario `close` with the headers of a browser.
_CLOSE_FIELDS = Scenario(
    "close_fields",
    "a new connection for every request, with seven fields",
    "plain:hello",
    hello((*BROWSER, ("Connection", "close"))),
)


def _changed() -> list[Exchange]:
    """Return 4,096 requests of one client. Each has another path, query and cookie."""
    exchanges = []
    for number in range(4096):
        fields = tuple(
            (name, f"sessionid={number:032x}; csrftoken=0123456789" if name == "Cookie" else value)
            for name, value in BROWSER
        )
        line = f"GET /items/{number:05}/{number * 7919:09}?page={number:05}"
        exchanges += hello(fields, line)()
    return exchanges


_CHANGED = Scenario(
    "changed", "another path, query and cookie in every request", "plain:hello", _changed
)
COUNTED = {
    "hello": Counted(SCENARIOS["hello"]),
    "fields": Counted(SCENARIOS["fields"]),
    "changed": Counted(_CHANGED),
    "varied": Counted(SCENARIOS["varied"]),
    "close_fields": Counted(_CLOSE_FIELDS, closes=True),
    "post_1k": Counted(SCENARIOS["post_1k"]),
    "pipelined": Counted(SCENARIOS["pipelined"], 8000, connections=1),
}
WARM_UP = 320
#: A larger increase is a failure. The second limit is for a comparison with another environment.
TOLERANCE = 0.05
TOLERANCE_ELSEWHERE = 0.15

REFERENCE = "reference"
_MARK_TIMEOUT = 30.0
Say = Callable[[str], object]

_TRIGGER = re.compile(r"^desc: Trigger: .*?(\w+)$", re.MULTILINE)
_TOTALS = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def environment() -> str:
    """Return what counts depend on besides our own code. It is the key in the baseline."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    parts = [
        f"{platform.python_implementation()} {platform.python_version()}",
        f"by {platform.python_compiler()}{' optimized' if optimized else ''}",
        " ".join(platform.libc_ver()),
        platform.machine() + (" avx2" if _has_avx2() else ""),
    ]
    return ", ".join(parts)


def count(say: Say) -> dict[str, float]:
    """Return the instructions for one request of each scenario, and for the reference work.

    Raises BenchError if the server cannot be built or does not respond.
    """
    if install.find_program("valgrind") is None:
        raise BenchError("valgrind is missing; on Debian and Ubuntu: apt-get install valgrind")
    try:
        distribution("picowsgi")
    except PackageNotFoundError:
        raise BenchError("picowsgi is not installed here: use `make bench-check`") from None
    library = _build_library(say)
    marks = _build_marks(say)
    counts: dict[str, float] = {}
    for application in sorted({counted.scenario.application for counted in COUNTED.values()}):
        with _Server(library, marks, application.partition(":")[2]) as server:
            for name, counted in COUNTED.items():
                if counted.scenario.application == application:
                    say(f"counting {name}")
                    counts[name] = _count_scenario(server, counted)
    with _Server(library, marks, REFERENCE) as server:
        say("counting the reference work")
        counts[REFERENCE] = float(server.count(partial(_ask_once, server.port)))
    return counts


class _Server:
    """A server under callgrind, with an application of `apps/counted.py`."""

    def __init__(self, library: Path, marks: Path, application: str) -> None:
        self.port = free_port()
        self._marks = 0
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-check-"))
        self._folder = Path(folder)
        self._command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counted"),
            *(sys.executable, "-m", "picowsgi", "--port", str(self.port), "--threads", "1"),
            *("--no-access-log", "--timeout-keep-alive", "60", f"counted:{application}"),
        ]
        self._environ = {
            "PYTHONPATH": os.pathsep.join([str(library), str(install.APPS)]),
            "PYTHONHASHSEED": "0",
            "BENCH_MARKS": str(marks),
            "BENCH_MARKS_PIPE": f"{folder}/marks",
        }
        os.mkfifo(f"{folder}/marks")

    def __enter__(self) -> _Server:
        with self._stack as stack:
            self._process = stack.enter_context(
                started(self._command, self._folder, self.port, environ=self._environ)
            )
            self._pipe = stack.enter_context((self._folder / "marks").open("wb", buffering=0))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def count(self, work: Callable[[], object]) -> int:
        """Return the instructions that all threads of the server need during `work`."""
        self._mark()
        work()
        return self._mark()

    def _mark(self) -> int:
        """Begin a new count, and return the previous one."""
        letter = string.ascii_letters[self._marks]
        self._marks += 1
        name = f"mark_{letter}"
        self._pipe.write(letter.encode("ascii"))  # see c/marks.c
        deadline = time.monotonic() + _MARK_TIMEOUT
        while name not in (counts := read_counts(self._folder)):
            self._process.check_alive()
            if time.monotonic() > deadline:
                raise BenchError("callgrind did not write a count")
            time.sleep(0.05)
        return counts[name]


def _count_scenario(server: _Server, counted: Counted) -> float:
    """Return the instructions for one request of a warm server."""
    exchanges = counted.scenario.exchanges()
    with ExitStack() as stack:
        clients = []
        if not counted.closes:
            clients = [stack.enter_context(Client(server.port)) for _ in range(counted.connections)]
        send = partial(_send, server.port, clients, exchanges, counted)
        send(0, WARM_UP)
        return server.count(partial(send, WARM_UP, counted.requests)) / counted.requests


def run_check(*, update: bool, repeat: int, say: Say) -> int:
    """Run the command. Return 1 if a scenario needs more than the baseline allows, or else 0."""
    counted = [count(say) for _ in range(repeat)]
    counts = {name: median(each[name] for each in counted) for name in counted[0]}
    if repeat > 1:
        for name, middle in counts.items():
            values = [each[name] for each in counted]
            apart = (max(values) - min(values)) / middle
            say(f"  {name:10} {middle:11,.0f}  the {repeat} counts differ by {apart:.3%}")
    baseline = read_baseline()
    if update:
        baseline[environment()] = {
            "versions": _versions(),
            "instructions": {name: round(value) for name, value in counts.items()},
        }
        BASELINE.write_text(json.dumps(dict(sorted(baseline.items())), indent=1) + "\n", "utf-8")
        say(f"new baseline for {environment()}")
        return 0
    failed, lines = compare(counts, baseline, environment())
    for line in lines:
        say(line)
    return 1 if failed else 0


def read_baseline() -> dict[str, Any]:
    """Return the baselines by environment. Raises BenchError if the file is damaged."""
    if not BASELINE.exists():
        return {}
    try:
        baseline: dict[str, Any] = json.loads(BASELINE.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchError(f"{BASELINE.name} cannot be read: {error}") from error
    return baseline


def compare(
    counts: dict[str, float], baseline: dict[str, Any], where: str
) -> tuple[bool, list[str]]:
    """Return whether a scenario needs too many instructions, and the lines to print.

    If the environment has no baseline, that of another one with the same minor version of Python is
    used. Builds of Python are optimized differently, which also changes the reference work. So the
    counts are then compared as multiples of the reference work. Without any such baseline, nothing
    is compared.
    """
    known = where if where in baseline else _nearest(baseline, where)
    if known is None:
        lines = [f"nothing was compared: there is no baseline for {_minor(where)}, only for"]
        return False, [*lines, *(f"  {key}" for key in baseline), *_plain(counts)]
    before = baseline[known]["instructions"]
    same = known == where
    if same:
        lines, tolerance, scale = [f"instructions, {where}"], TOLERANCE, 1.0
    else:
        tolerance, scale = TOLERANCE_ELSEWHERE, counts[REFERENCE] / before[REFERENCE]
        lines = [
            f"no baseline for {where}",
            f"compared, as multiples of the reference work, with that for {known}:",
        ]
    failed = False
    for name in COUNTED:
        if name not in before:
            lines.append(f"  {name:10} {counts[name]:9,.0f}  not in the baseline")
            continue
        change = counts[name] / (before[name] * scale) - 1
        word = ""
        if change > tolerance:
            failed, word = True, "too many"
        elif change < -tolerance:
            word = "fewer: --update makes this the baseline"
        lines.append(
            f"  {name:10} {counts[name]:9,.0f}  baseline {before[name] * scale:9,.0f}  "
            f"{change:+7.2%}  {word}".rstrip()
        )
    lines.append(f"{'failed' if failed else 'passed'}: at most {tolerance:+.0%} is allowed")
    return failed, lines


def _plain(counts: dict[str, float]) -> list[str]:
    return [f"  {name:10} {value:11,.0f} instructions" for name, value in counts.items()]


def _minor(where: str) -> str:
    """Return the name and the minor version of Python, such as CPython 3.11."""
    return ".".join(where.split(", ", maxsplit=1)[0].split(".")[:2])


def _nearest(baseline: dict[str, Any], where: str) -> str | None:
    """Return another environment with the same minor version of Python and the same machine."""
    machine = where.rpartition(", ")[2].split()[0]
    for key in baseline:
        if _minor(key) == _minor(where) and key.rpartition(", ")[2].split()[0] == machine:
            return key
    return None


def _send(
    port: int,
    clients: list[Client],
    exchanges: list[Exchange],
    counted: Counted,
    first: int,
    requests: int,
) -> None:
    pipeline = counted.scenario.pipeline
    for number in range(first, first + requests, counted.connections * pipeline):
        with ExitStack() as stack:
            clients_now = clients or [
                stack.enter_context(Client(port)) for _ in range(counted.connections)
            ]
            batches = [
                [exchanges[(at + each) % len(exchanges)] for each in range(pipeline)]
                for at in range(number, number + counted.connections * pipeline, pipeline)
            ]
            for client, batch in zip(clients_now, batches, strict=True):
                client.send(b"".join(exchange.request for exchange in batch))
            for client, batch in zip(clients_now, batches, strict=True):
                for exchange in batch:
                    check(exchange, client.receive())


def _ask_once(port: int) -> None:
    with Client(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if client.receive().status != 200:
            raise BenchError("the reference work failed")


def read_counts(folder: Path) -> dict[str, int]:
    """Return the instructions of each count, by the name of the mark that ended it."""
    counts = {}
    for file in folder.glob("counted*"):
        text = file.read_text(encoding="utf-8", errors="replace")
        trigger, total = _TRIGGER.search(text), _TOTALS.search(text)
        if trigger is not None and total is not None:
            counts[trigger[1]] = int(total[1])
    return counts


def _build_library(say: Say) -> Path:
    """Build picowsgi with release flags, without the SSE4.2 parser that valgrind cannot run."""
    library = install.CACHE / f"check-{sys.implementation.cache_tag}"
    stamp = library / "digest"
    digest = install.tree_digest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return library
    say("building picowsgi without SSE4.2, for valgrind")
    shutil.rmtree(library, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        install.copy_sources(Path(folder))
        done = subprocess.run(
            [
                *(sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(library)),
                *("--build-temp", f"{folder}/temp"),
            ],
            cwd=folder,
            env={**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -U__SSE4_2__"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BenchError(f"picowsgi cannot be built:\n{done.stderr[-2000:]}")
    stamp.write_text(digest, encoding="ascii")
    return library


def _build_marks(say: Say) -> Path:
    return install.build_program("marks", say, shared=True)


def _versions() -> dict[str, str]:
    """Return other versions that may explain a change of the counts."""
    tools = install.tool_versions()
    return {
        "cffi": version("cffi"),
        "cc": tools.get("cc", ""),
        "valgrind": tools.get("valgrind", ""),
    }


def _has_avx2() -> bool:
    """Return whether the processor has AVX2, which the C library uses to copy memory."""
    try:
        return " avx2 " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
