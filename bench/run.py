"""Runs all rounds of all scenarios on all servers, and writes the file after each measurement.

A round measures a scenario on all servers before the next scenario. So the numbers to compare are
measured within seconds, and an interrupted run has complete rounds.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import install, machine, services
from bench.install import Interpreter
from bench.measure import Settings, measure
from bench.process import BenchError, processors
from bench.results import FORMAT, Results
from bench.scenarios import Scenario
from bench.servers import Server


class Progress:
    """Shows the progress: one changing line in a terminal, or else a line for each measurement."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begin = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def step(self, what: str) -> None:
        """Show what is measured now."""
        left = "?"
        if self._done:
            seconds = (time.monotonic() - self._begin) / self._done * (self._total - self._done)
            left = str(dt.timedelta(seconds=round(seconds)))
        line = f"{self._done + 1}/{self._total}  {left} left  {what}"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        self._done += 1

    def skip(self) -> None:
        """Count one measurement less, because it is skipped."""
        self._total -= 1

    def say(self, text: str) -> None:
        """Print a message for the user."""
        sys.stderr.write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")
        sys.stderr.flush()


def new_results(
    interpreter: Interpreter,
    servers: Sequence[Server],
    scenarios: Sequence[Scenario],
    settings: Settings,
    missing: dict[str, str],
    left_out: dict[str, str],
) -> Results:
    """Return the results before the first measurement."""
    installed = install.versions(interpreter)
    tools = install.tool_versions()
    server_processor, load_processor = processors()
    return Results(
        {
            "format": FORMAT,
            "started": _now(),
            "finished": None,
            "machine": machine.machine(),
            **machine.commit(),
            "python": interpreter.facts,
            "tools": tools,
            "frameworks": {
                name: installed.get(name)
                for name in [*install.FRAMEWORKS, *services.requirements(scenarios)]
            },
            "settings": {
                **asdict(settings),
                "server_processor": server_processor,
                "load_processor": load_processor,
            },
            "servers": {
                server.name: server.facts(_version(server, interpreter, installed, tools))
                for server in servers
                if server.name not in missing
            },
            "missing": missing,
            "left_out": left_out,
            "scenarios": {scenario.name: scenario.facts for scenario in scenarios},
            "runs": [],
            "voids": [],
        }
    )


def run(
    interpreter: Interpreter,
    servers: Sequence[Server],
    scenarios: Sequence[Scenario],
    settings: Settings,
    output: Path,
    missing: dict[str, str],
    left_out: dict[str, str] | None = None,
) -> Results:
    """Measure all scenarios on all servers, and write `output`.

    `missing` and `left_out` have the reasons for servers and scenarios that are not measured. After
    KeyboardInterrupt, `output` has the results so far. Raises BenchError if no server is left.
    """
    results = new_results(interpreter, servers, scenarios, settings, missing, dict(left_out or {}))
    there = [server for server in servers if server.name not in missing]
    if not there:
        raise BenchError("none of the servers can be installed")
    plan = [
        (number, scenario, _that_can_run(scenario, rotated(there, number - 1)))
        for number in range(1, settings.rounds + 1)
        for scenario in scenarios
        if scenario.name not in results.data["left_out"]
    ]
    run = _Run(interpreter, settings, output, results, Progress(sum(len(row[2]) for row in plan)))
    for number, scenario, row in plan:
        run.measure_row(number, scenario, row)
    run.progress.say(f"{len(results.data['runs'])} measurements, {len(results.data['voids'])} void")
    results.data["finished"] = _now()
    results.write(output)
    return results


@dataclass
class _Run:
    """The state of a run."""

    interpreter: Interpreter
    settings: Settings
    output: Path
    results: Results
    progress: Progress

    def measure_row(self, number: int, scenario: Scenario, servers: Sequence[Server]) -> None:
        """Measure one scenario on these servers, with the service that it needs.

        If the service does not start, all later rounds leave the scenario out, too.
        """
        with ExitStack() as stack:
            environ = self._start_service(scenario, stack)
            for server in servers:
                if environ is None or self.results.void(scenario.name, server.name) is not None:
                    self.progress.skip()
                else:
                    self._measure(number, scenario, server, environ)

    def _start_service(self, scenario: Scenario, stack: ExitStack) -> dict[str, str] | None:
        """Return the environment of the application, or None if the scenario is left out."""
        left_out = self.results.data["left_out"]
        if scenario.name in left_out:
            return None
        try:
            return stack.enter_context(services.running(scenario.service, self.progress.say))
        except BenchError as error:
            left_out[scenario.name] = str(error)
            self.progress.say(f"{scenario.name} is left out: {error}")
            return None

    def _measure(
        self, number: int, scenario: Scenario, server: Server, environ: dict[str, str]
    ) -> None:
        self.progress.step(f"round {number}  {scenario.name}  {server.name}")
        which: dict[str, Any] = {
            "scenario": scenario.name,
            "server": server.name,
            "round": number,
        }
        try:
            numbers = measure(
                server,
                scenario,
                self.interpreter,
                self.settings,
                self.progress.say,
                environ=environ,
                system_calls=number == 1,
            )
        except BenchError as error:
            self.results.data["voids"].append({**which, "reason": str(error)})
            self.progress.say(f"void: {scenario.name} on {server.name}: {error}")
        else:
            self.results.data["runs"].append({**which, **numbers})
        self.results.write(self.output)


def _that_can_run(scenario: Scenario, servers: Sequence[Server]) -> list[Server]:
    """Return the servers that can run the scenario. A limit can answer only some of them."""
    return [server for server in servers if server.kind != "limit" or scenario.limits]


def rotated(servers: Sequence[Server], by: int) -> list[Server]:
    """Return the servers in another order for each round, so that none always comes first."""
    at = by % len(servers)
    return [*servers[at:], *servers[:at]]


def _version(
    server: Server, interpreter: Interpreter, installed: dict[str, str], tools: dict[str, str]
) -> str:
    if server.requires:
        return installed.get(server.requires[0].lower().replace("_", "-"), "unknown")
    if server.program:
        return tools.get(server.program, "unknown").rpartition("/")[2]
    if server.kind == "picowsgi" or server.name == "core":
        return installed.get("picowsgi", "working tree")
    return interpreter.version


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
