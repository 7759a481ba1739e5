"""The command line of `python -m bench`. Never measures."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench import scaling
from bench.measure import Settings
from bench.process import BenchError, allow_descriptors
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS

RESULTS = Path("bench") / "results"


class _Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Names of a table, separated by commas; `all`: all of them."""

    name = "names"

    def __init__(self, table: Iterable[str]) -> None:
        self._table = list(table)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        if isinstance(value, list):
            return value
        names = self._table if value == "all" else [name for name in value.split(",") if name]
        for name in names:
            if name not in self._table:
                self.fail(f"{name}: expected one of {', '.join(self._table)}", param, ctx)
        return list(dict.fromkeys(names))


class _Group(click.Group):
    """Prints a BenchError as a message for the user, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
def main() -> None:
    """Compare WSGI servers on this machine."""


@main.command("list")
def list_all() -> None:
    """List the servers and the scenarios."""
    click.echo("servers:")
    for server in SERVERS.values():
        click.echo(f"  {server.name:17} {server.why}")
    click.echo("\nscenarios:")
    for scenario in SCENARIOS.values():
        click.echo(f"  {scenario.name:17} {scenario.title}")


@main.command()
@click.option("--servers", type=_Names(SERVERS), default="all", help="Names, joined by commas.")
@click.option("--scenarios", type=_Names(SCENARIOS), default="all", help="Names, joined by commas.")
@click.option("--rounds", type=click.IntRange(1), default=Settings.rounds, show_default=True)
@click.option(
    "--duration",
    type=click.FloatRange(1),
    default=Settings.duration,
    show_default=True,
    help="Seconds of load for each measurement; wrk needs whole seconds.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0),
    default=Settings.warmup,
    show_default=True,
    help="Seconds of load before each measurement; 0: none.",
)
@click.option(
    "--python",
    default=sys.executable,
    help="The Python that runs the servers.  [default: the one that runs this command]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The results file.  [default: bench/results/DATE-PYTHON.json]",
)
@click.option("--report/--no-report", default=True, help="Write the report at the end.")
@click.option("--apt/--no-apt", default=False, help="Install missing tools with apt-get.")
def run(
    servers: list[str],
    scenarios: list[str],
    rounds: int,
    duration: float,
    warmup: float,
    python: str,
    output: Path | None,
    report: bool,
    apt: bool,
) -> None:
    """Measure. Ctrl-C ends the run and keeps the results so far."""
    from bench import install, services
    from bench import run as runner

    say = partial(click.echo, err=True)
    allow_descriptors()
    install.check_tools(say, install=apt)
    interpreter = install.provide_venv(python, say)
    wanted = [SERVERS[name] for name in servers]
    asked = [SCENARIOS[name] for name in scenarios]
    missing = install.install_servers(interpreter, wanted, say)
    there = [server for server in wanted if server.name not in missing]
    left_out = services.prepare(interpreter, there, asked, say)
    if output is None:
        date = time.strftime("%Y-%m-%d-%H%M")
        output = RESULTS / f"{date}-python{interpreter.version}.json"
    try:
        runner.run(
            interpreter,
            wanted,
            asked,
            Settings(duration, warmup, rounds),
            output,
            missing,
            left_out,
        )
    except KeyboardInterrupt:
        if not output.exists():
            raise click.Abort from None
        click.echo(f"\ninterrupted; the results so far are in {output}", err=True)
        raise SystemExit(130) from None
    click.echo(f"results: {output}")
    if report:
        _write_report(output, output.with_suffix(""))


@main.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the report.  [default: beside the results file]",
)
@click.option("--targets", is_flag=True, help="Only print the targets, and which of them are met.")
def report(results: Path, output: Path | None, targets: bool) -> None:
    """Write the report of a results file: Markdown, plots, and one HTML page."""
    if targets:
        from bench.report import targets_text
        from bench.results import Results

        click.echo(targets_text(Results.read(results)))
    else:
        _write_report(results, output or results.with_suffix(""))


@main.command()
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def publish(results: tuple[Path, ...]) -> None:
    """Update README.md and docs/ with results. Each results file is for another Python."""
    from bench.publish import publish

    for path in publish(results, Path()):
        click.echo(path)


@main.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--server", default="picowsgi", show_default=True)
@click.option(
    "--against",
    default="",
    help="Compare the ratios to this server, which depend less on the machine.",
)
def compare(before: Path, after: Path, server: str, against: str) -> None:
    """Compare two results files. The exit status is 1 if anything became slower."""
    from bench.compare import changes, ratio_changes, text
    from bench.results import Results

    old, new = Results.read(before), Results.read(after)
    found = ratio_changes(old, new, server, against) if against else changes(old, new, server)
    click.echo(text(found))
    raise SystemExit(1 if any(change.verdict == "slower" for change in found) else 0)


class _Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Whole numbers from 1 up to `most`, separated by commas."""

    name = "numbers"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        if not all(word.isdecimal() and 1 <= int(word) <= self._most for word in words):
            self.fail(f"{value}: expected numbers from 1 to {self._most}, such as 1,10", param, ctx)
        return tuple(dict.fromkeys(map(int, words)))


@main.command()
@click.option(
    "--instances",
    type=_Numbers(100_000),
    default=scaling.INSTANCES,
    help="Numbers of instances, joined by commas.  [default: 1 to 1,000]",
)
@click.option(
    "--utilisations",
    type=_Numbers(99),
    default=scaling.UTILISATIONS,
    help="Percent of what the instances can serve, joined by commas.  [default: 50 to 95]",
)
@click.option(
    "--requests",
    type=click.IntRange(100),
    default=scaling.REQUESTS,
    show_default=True,
    help="Simulate at least so many requests for each number.",
)
@click.option("--seed", type=int, default=scaling.SEED, show_default=True)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write scaling.md, scaling.svg and scaling.json to this folder.",
)
@click.option("--publish", "publishes", is_flag=True, help="Update docs/scaling.md and its plot.")
def simulate(
    instances: tuple[int, ...],
    utilisations: tuple[int, ...],
    requests: int,
    seed: int,
    output: Path | None,
    publishes: bool,
) -> None:
    """Simulate the latency of a site with many instances: tables of p50 / p99.

    The unit is the mean duration of a request in the application.
    """
    say = partial(click.echo, err=True)
    cells = scaling.run_all(instances, utilisations, requests, seed, say)
    click.echo(scaling.text(cells), nl=False)
    written = scaling.write(cells, output) if output else []
    written += scaling.publish(cells, Path()) if publishes else []
    for path in written:
        click.echo(path, err=True)


@main.command()
@click.option("--update", is_flag=True, help="Store the new counts as the baseline.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Counts to take the median of.")
def check(update: bool, repeat: int) -> None:
    """Count picowsgi's instructions for a request, and compare with bench/baseline.json."""
    from bench.check import run_check

    raise SystemExit(run_check(update=update, repeat=repeat, say=click.echo))


def _write_report(results: Path, output: Path) -> None:
    from bench.report import write
    from bench.results import Results

    for path in write(Results.read(results), output):
        click.echo(f"report: {path}")
