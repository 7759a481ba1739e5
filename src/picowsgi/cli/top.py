"""The command line of `picowsgi top`. Never shows a sample itself."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from picowsgi.cli.arguments import TOP
from picowsgi.config.load import PROGRAM
from picowsgi.config.option import Option
from picowsgi.errors import ConfigError
from picowsgi.system.terminal import is_terminal
from picowsgi.top.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from picowsgi.top.address import Address

_INTERVAL = Option(
    name="interval",
    default=1.0,
    kind="seconds",
    help="time between two samples",
    group="Options",
    metavar="TIME",
    minimum=0.1,
    maximum=3600.0,
    choices=(),
    check=None,
    switch=False,
    everyday=True,
    commas=False,
)


def run_top(argv: Sequence[str]) -> int:
    """Run the command with the arguments after `top`. Returns the exit status.

    Raises click.ClickException and ConfigError if the arguments are wrong, UnreachableError and
    PageError if the server sends no metrics.
    """
    try:
        with make_parser().make_context(f"{PROGRAM} {TOP}", list(argv)) as context:
            given: dict[str, Any] = dict(context.params)
    except click.exceptions.Exit as done:
        return done.exit_code
    if given["address"] is None:
        raise click.UsageError(
            f"{TOP} needs the ADDRESS of a server's --metrics; "
            f"an application module of that name is served as {TOP}:app"
        )
    if given["json"] and not given["once"]:
        raise click.UsageError("--json needs --once")
    address, interval = _address(given["address"]), _interval(given["interval"])
    if given["once"]:
        from picowsgi.top.once import describe_once

        click.echo(describe_once(address, interval, as_json=given["json"]), nl=False)
        return 0
    if not is_terminal(sys.stdout) or os.environ.get("TERM") == "dumb":
        raise click.UsageError("standard output is no terminal that can show it; use --once")
    from picowsgi.top.live import watch

    return watch(address, interval)


def make_parser() -> click.Command:
    """Make the parser of the command."""
    return click.Command(
        f"{PROGRAM} {TOP}",
        params=[
            click.Argument(["address"], required=False, metavar="ADDRESS", type=click.UNPROCESSED),
            click.Option(
                [_INTERVAL.flag],
                metavar=_INTERVAL.metavar,
                type=click.UNPROCESSED,
                help=f"{_INTERVAL.help} [{_INTERVAL.show(_INTERVAL.default)}]",
            ),
            click.Option(["--once"], is_flag=True, help="print the rates of one interval as text"),
            click.Option(["--json"], is_flag=True, help="with --once: print them as a JSON object"),
        ],
        help="Show what a server does, from the page of its option --metrics: requests, latency, "
        "threads, workers, connections, memory and CPU. ADDRESS is HOST:PORT, "
        "http://HOST:PORT/metrics or unix:PATH. Press q to quit.",
        epilog="A percentile is an estimate: the true value is between the two bounds after it.",
    )


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError(f"ADDRESS: expected {error}; got {text!r}") from None


def _interval(text: str | None) -> float:
    try:
        value = _INTERVAL.convert(_INTERVAL.default if text is None else text)
    except ValueError as error:
        raise ConfigError(f"{_INTERVAL.flag}: expected {error}, got {text!r}") from None
    assert isinstance(value, float)  # noqa: S101 (for the types)
    return value
