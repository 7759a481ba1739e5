"""One measurement: start a server, verify its responses, warm it up, load it, and read its usage.

Never uses a server for two measurements, so the spread over the rounds includes the differences
between starts.
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

# The least number of verified requests on a connection. One request cannot show wrong framing.
_VERIFIED_LEAST = 3
_STRACE_LINE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """The seconds of each part of a measurement, and the number of rounds."""

    duration: float = 3.0
    warmup: float = 1.0
    rounds: int = 5


def command_of(server: Server, interpreter: Interpreter, names: dict[str, str]) -> list[str]:
    """Return the command that starts the server, with `names` filled in."""
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
    """Run a server with this application and `environ` on a free port. Raises BenchError."""
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
    """Return the numbers of results.METRICS that this scenario has, and facts about the responses.

    Raises BenchError with the reason if the measurement is void.
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
    """Raises BenchError if the bytes under load do not fit the size of the correct responses.

    Under load, no client reads the responses. Those that arrive at the end are bytes without a
    counted request.
    """
    mean = seen.bytes / seen.requests
    on_their_way = scenario.connections * scenario.pipeline / seen.requests
    if abs(mean - verified.size) > verified.size * (0.02 + on_their_way):
        raise BenchError(
            f"{mean:.0f} bytes for each request under load, but correct responses have "
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
    """Measures the CPU seconds of all processes of a server in a `with`. Raises BenchError."""

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
            raise BenchError("a process of the server ended under load")
        self.seconds = sum(after.values()) - sum(self._before.values())


def _system_calls(
    process: ServerProcess, scenario: Scenario, file: str, processor: int | None
) -> dict[str, float]:
    """Return the number of system calls for one request, by name, counted by strace.

    strace slows the server down, so more connections are ready at a time. The server may then need
    fewer calls that wait for events.
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
    """Return the counts of `strace -c`, by the name of the system call."""
    return {name: int(count) for count, name in _STRACE_LINE.findall(text) if name != "total"}


def _wait_until_attached(tracer: subprocess.Popen[str], process: ServerProcess) -> None:
    """Wait until strace traces each thread. Raises BenchError if the system does not allow it."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if tracer.poll() is not None:
            said = (tracer.stderr.read() if tracer.stderr else "").strip().splitlines()
            raise BenchError(f"strace ended: {(said or ['no reason given'])[0]}")
        tasks = [task for pid in process.pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        if all("\nTracerPid:\t0\n" not in (task / "status").read_text() for task in tasks):
            return
        time.sleep(0.01)
    raise BenchError("strace could not attach to all threads")
