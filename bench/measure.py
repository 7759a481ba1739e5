"""One measurement: start a server, verify its answers, warm it up, load it, read what it used.

Never keeps a server between two measurements, so the spread over the rounds has in it what differs
from one start to the next.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench import install, load, verify
from bench.exchanges import Exchange
from bench.process import BenchError, ServerProcess, free_port, processors, started
from bench.scenarios import samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.install import Interpreter
    from bench.scenarios import Scenario
    from bench.servers import Server

# Requests on one connection that are verified, at least: one alone says nothing about framing.
_VERIFIED_LEAST = 3
_STRACE_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """How long each part of a measurement takes, in seconds, and how often all is repeated."""

    duration: float = 3.0
    warmup: float = 1.0
    rounds: int = 5


def command_of(server: Server, interpreter: Interpreter, names: dict[str, str]) -> list[str]:
    """The words that start it, with `names` filled in."""
    interpreter = install.interpreter_of(server, interpreter)
    known = {
        "python": str(interpreter.python),
        "bin": str(interpreter.venv / "bin"),
        "cache": str(install.CACHE),
        **names,
    }
    words = [word.format_map(known) for word in server.command]
    if program := server.program and install.find_program(server.program):
        words[0] = program
    return words


@contextmanager
def running(
    server: Server,
    interpreter: Interpreter,
    application: str,
    threads: int,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ServerProcess]:
    """The server with this application on a free port, which finds `environ`. Raises BenchError."""
    module, _, attribute = application.partition(":")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        names = {
            "module": module,
            "attribute": attribute,
            "port": str(port),
            "threads": str(threads),
            "scratch": scratch,
        }
        for name, text in server.files.items():
            (Path(scratch) / name).write_text(text.format_map(names), encoding="utf-8")
        with started(
            command_of(server, interpreter, names),
            Path(scratch),
            port,
            processor=processors()[0],
            environ={"PYTHONPATH": str(install.APPS), **environ},
        ) as process:
            yield process


def measure(
    server: Server,
    scenario: Scenario,
    interpreter: Interpreter,
    settings: Settings,
    say: install.Say,
    *,
    environ: Mapping[str, str] = MappingProxyType({}),
    system_calls: bool = False,
) -> dict[str, Any]:
    """The numbers of results.METRICS that this scenario gives, with the facts that belong to them.

    Raises BenchError with the reason where nothing that was measured can be believed.
    """
    application, threads = scenario.application, scenario.threads
    with running(server, interpreter, application, threads, environ) as process:
        sent = samples(scenario)[len(scenario.proofs()) :]
        while len(sent) < _VERIFIED_LEAST:
            sent += sent
        verified = verify.verify(process.port, scenario.proofs(), sent, scenario.pipeline)
        facts = {"framing": verified.framing, "keeps_alive": verified.keeps_alive}
        if scenario.kind == "idle":
            return {**facts, **_idle(process, scenario, sent[0])}
        numbers: dict[str, Any] = {**facts}
        if scenario.memory:
            numbers["memory_start"] = process.settled_memory().proportional
        if scenario.kind == "rate":
            numbers |= _fixed_rate(process, scenario, sent[0], settings, say)
        else:
            numbers |= _closed_loop(process, scenario, verified, settings, system_calls)
        if scenario.ideal:
            numbers["share"] = numbers["rate"] / scenario.ideal
        numbers["memory_peak"] = process.memory().peak
        if scenario.memory:
            numbers["memory_end"] = process.settled_memory().proportional
        process.check_alive()
        return numbers


def _closed_loop(
    process: ServerProcess,
    scenario: Scenario,
    verified: verify.Verified,
    settings: Settings,
    system_calls: bool,
) -> dict[str, Any]:
    processor = processors()[1]
    with load.request_file(scenario, framed=True) as file:
        if settings.warmup:
            load.closed_loop(scenario, file, process.port, settings.warmup, processor)
        with _CpuTime(process) as cpu:
            seen = load.closed_loop(scenario, file, process.port, settings.duration, processor)
        check_bytes(seen, verified, scenario)
        numbers = _numbers(seen, cpu.seconds)
        if system_calls and scenario.system_calls and install.find_program("strace"):
            numbers["system_calls"] = _system_calls(process, scenario, file, processor)
    return numbers


def check_bytes(seen: load.Load, verified: verify.Verified, scenario: Scenario) -> None:
    """Under load no client reads the answers, but their size must be that of the right ones.

    Those that were on their way at the end are bytes without a request. Raises BenchError.
    """
    mean = seen.bytes / seen.requests
    on_their_way = scenario.connections * scenario.pipeline / seen.requests
    if abs(mean - verified.size) > verified.size * (0.02 + on_their_way):
        raise BenchError(
            f"{mean:.0f} bytes for each request under load, but right answers have "
            f"{verified.size:.0f}"
        )


def _fixed_rate(
    process: ServerProcess,
    scenario: Scenario,
    exchange: Exchange,
    settings: Settings,
    say: install.Say,
) -> dict[str, Any]:
    program = install.build_program("open_loop", say)
    processor = processors()[1]
    size = len(exchange.content) if isinstance(exchange.content, bytes) else 0
    if settings.warmup:
        load.fixed_rate(program, scenario, size, process.port, settings.warmup, processor)
    with _CpuTime(process) as cpu:
        seen = load.fixed_rate(program, scenario, size, process.port, settings.duration, processor)
    return _numbers(seen, cpu.seconds)


def _idle(process: ServerProcess, scenario: Scenario, exchange: Exchange) -> dict[str, Any]:
    marker = exchange.content if isinstance(exchange.content, bytes) else b""
    before = process.settled_memory()
    with load.idle_connections(process.port, exchange.request, scenario.connections, marker):
        full = process.settled_memory()
    process.check_alive()
    return {
        "memory_start": before.proportional,
        "memory_end": full.proportional,
        "memory_peak": full.peak,
        "memory_idle": (full.proportional - before.proportional) / scenario.connections,
    }


def _numbers(seen: load.Load, cpu: float) -> dict[str, Any]:
    percentiles = {"50": "p50", "90": "p90", "99": "p99", "99.9": "p99.9", "100": "max"}
    return {
        "requests": seen.requests,
        "seconds": seen.seconds,
        "cpu": cpu / seen.requests * 1e6,
        "rate": seen.requests / seen.seconds,
        **{percentiles[percent]: value for percent, value in seen.latency.items()},
    }


class _CpuTime:
    """The CPU seconds of all processes of a server during the `with`. Raises BenchError."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self.seconds = 0.0

    def __enter__(self) -> _CpuTime:
        self._before = self._process.cpu_seconds()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            return
        self._process.check_alive()
        after = self._process.cpu_seconds()
        if self._before.keys() - after.keys():
            raise BenchError("a process of the server has ended under load")
        self.seconds = sum(after.values()) - sum(self._before.values())


def _system_calls(
    process: ServerProcess, scenario: Scenario, file: str, processor: int | None
) -> dict[str, float]:
    """How often each system call is made for one request, while strace counts.

    strace makes the server slow, so more connections are ready at a time than without it: the calls
    that wait for events may be fewer than they would be.
    """
    with tempfile.NamedTemporaryFile(prefix="bench-strace-") as output:
        pids = [word for pid in process.pids() for word in ("-p", str(pid))]
        tracer = subprocess.Popen(
            ["strace", "-f", "-c", "-o", output.name, *pids],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _wait_until_attached(tracer, process)
            seen = load.closed_loop(scenario, file, process.port, 1, processor)
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.communicate()
        text = Path(output.name).read_text(encoding="utf-8")
    return {name: count / seen.requests for name, count in parse_strace(text).items()}


def parse_strace(text: str) -> dict[str, int]:
    """The counts of `strace -c`, by the name of the system call."""
    return {name: int(count) for count, name in _STRACE_LINE.findall(text) if name != "total"}


def _wait_until_attached(tracer: subprocess.Popen[str], process: ServerProcess) -> None:
    """Until each thread has a tracer. Raises BenchError where that is not allowed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if tracer.poll() is not None:
            said = (tracer.stderr.read() if tracer.stderr else "").strip().splitlines()
            raise BenchError(f"strace has ended: {(said or ['no reason given'])[0]}")
        tasks = [task for pid in process.pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        if all("\nTracerPid:\t0\n" not in (task / "status").read_text() for task in tasks):
            return
        time.sleep(0.01)
    raise BenchError("strace does not attach to all threads")
