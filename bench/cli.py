"""The command `python -m bench`: its words and options, and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.measure import Settings
from bench.process import BenchError, allow_descriptors
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS

RESULTS = Path("bench") / "results"


class _Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Names out of a table, joined by commas; `all` for each of them."""

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
                self.fail(f"{name} is none of {', '.join(self._table)}", param, ctx)
        return list(dict.fromkeys(names))


class _Group(click.Group):
    """Shows BenchError as what it is: something for the user to read."""

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
    """The servers and the scenarios there are."""
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
    help="Seconds of load for each measurement; wrk takes whole ones.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(0),
    default=Settings.warmup,
    show_default=True,
    help="Seconds of load before it; 0 for none.",
)
@click.option(
    "--python",
    default=sys.executable,
    help="The interpreter that the servers run on.  [default: the one that runs this]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the results go.  [default: bench/results/DATE-PYTHON.json]",
)
@click.option("--report/--no-report", default=True, help="Make the report at the end.")
@click.option("--apt/--no-apt", default=False, help="Get missing tools with apt-get, as root.")
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
    """Measure. Ctrl-C ends it and keeps what has been measured."""
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
        click.echo(f"\ninterrupted; what has been measured is in {output}", err=True)
        raise SystemExit(130) from None
    click.echo(f"results: {output}")
    if report:
        _write_report(output, output.with_suffix(""))


@main.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder it goes to.  [default: beside the results]",
)
@click.option("--targets", is_flag=True, help="Only tell the targets, and which are met.")
def report(results: Path, output: Path | None, targets: bool) -> None:
    """Make the report of a results file: Markdown, plots, and one HTML page."""
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
    """Put results, a file for each Python, into README.md and docs/."""
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
    help="Compare the ratios to this server, so that the machine matters less.",
)
def compare(before: Path, after: Path, server: str, against: str) -> None:
    """Tell what got slower from one results file to another. Ends with 1 where something did."""
    from bench.compare import changes, ratio_changes, text
    from bench.results import Results

    old, new = Results.read(before), Results.read(after)
    found = ratio_changes(old, new, server, against) if against else changes(old, new, server)
    click.echo(text(found))
    raise SystemExit(1 if any(change.verdict == "slower" for change in found) else 0)


@main.command()
@click.option("--update", is_flag=True, help="Make what is counted now the baseline.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Count so often; for --update.")
def check(update: bool, repeat: int) -> None:
    """Count picowsgi's instructions for a request, and compare with bench/baseline.json."""
    from bench.check import run_check

    raise SystemExit(run_check(update=update, repeat=repeat, say=click.echo))


def _write_report(results: Path, output: Path) -> None:
    from bench.report import write
    from bench.results import Results

    for path in write(Results.read(results), output):
        click.echo(f"report: {path}")
