"""Parses the command's arguments, and prints the texts of --help, --help-all and --version.

Never converts a value: `config.load` converts the values of all sources.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from picowsgi import __version__
from picowsgi.app.spec import FORM
from picowsgi.cli.completion import paths, values_of
from picowsgi.config.load import PROGRAM, suggest
from picowsgi.config.option import flag_of
from picowsgi.config.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from picowsgi.config.option import Option
    from picowsgi.config.settings import Settings

#: The first argument of `picowsgi top`.
TOP = "top"


@dataclass(frozen=True)
class Arguments:
    """The arguments, whose values are texts. `check`: import the application, and do not serve.

    `has_argument`: the option `app` is the argument APP, and not `--app`.
    """

    config_file: Path | None
    check: bool
    has_argument: bool
    options: dict[str, object]


def read_arguments(argv: Sequence[str]) -> Arguments | int:
    """Return the arguments, or the exit status if this has printed a text that they ask for.

    Raises click.ClickException if the arguments are wrong.
    """
    try:
        with make_parser().make_context(PROGRAM, list(argv)) as context:
            given: dict[str, Any] = dict(context.params)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.NoSuchOption as error:
        name = error.option_name
        hint = suggest(name, flag_of, _other_names())
        raise click.UsageError(f"unknown option {name}{hint}") from None
    _take_argument(given)
    config_file = given.pop("config_file")
    return Arguments(
        config_file=None if config_file is None else Path(config_file),
        check=given.pop("check"),
        has_argument=given.pop("has_argument"),
        # A repeatable option that is not given is an empty tuple to click.
        options={name: value for name, value in given.items() if value not in (None, ())},
    )


def _other_names() -> list[str]:
    """Return the names that are valid beside those of the table."""
    off = [f"no_{option.name}" for option in OPTIONS.values() if option.switch or _is_flag(option)]
    return ["config", "check", "version", "help", "help_all", *off]


def _take_argument(given: dict[str, Any]) -> None:
    """Make the argument APP the value of the option `app`. Raises click.UsageError."""
    argument, *more = given.pop("arguments") or [None]
    given["has_argument"] = argument is not None
    if more:
        hint = ""
        if re.fullmatch(r"(.*:)?[0-9]{1,5}", more[0]):
            address = more[0] if ":" in more[0] else f"127.0.0.1:{more[0]}"
            hint = f"; an address to listen on is --bind {address}"
        raise click.UsageError(f"expected one argument APP, got {more[0]!r} too{hint}")
    if argument is not None:
        if given["app"] is not None:
            raise click.UsageError(f"--app {given['app']}: the argument is {argument}; use one")
        given["app"] = argument
    if given["app"] == "":
        raise click.UsageError(f"APP is empty; it is {FORM}")


def describe_settings(settings: Settings) -> str:
    """Return a line for each option: its name, its value and the origin of the value."""
    rows = [
        (
            option.name,
            option.show(getattr(settings, option.name)) or "-",
            settings.sources.get(option.name, "default"),
        )
        for option in OPTIONS.values()
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:{first}}  {value:{second}}  {origin}" for name, value, origin in rows)


def _describe_build() -> str:
    import platform  # slow to import, and only --version needs it

    from picowsgi import core

    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{PROGRAM} {__version__}\n{python}, {sys.platform} {platform.machine()}\n" + ", ".join(
        core.build()
    )


class _Parser(click.Command):
    """A command whose help text has the sections of the table."""

    shows_all = False

    def format_options(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [option for option in OPTIONS.values() if option.everyday or self.shows_all]
        # One width for all sections, so that their columns are aligned.
        width = max(len(_usage_of(option)) for option in shown)
        for group, options in groupby(shown, key=lambda option: option.group):
            with formatter.section(group):
                formatter.write_dl(
                    [(_usage_of(option).ljust(width), _help_of(option)) for option in options],
                    col_max=width,
                )
        general = [
            ("-c, --config FILE", "TOML file to read instead of pyproject.toml"),
            ("--check", "import APP, show all options and their origins"),
            ("--version", "show the version and the build, and exit"),
            ("-h, --help", "show this text and exit"),
            ("--help-all", f"show all {len(OPTIONS)} options and exit"),
        ]
        with formatter.section("General"):
            formatter.write_dl([(flag.ljust(width), text) for flag, text in general])


def _usage_of(option: Option) -> str:
    return f"{', '.join(option.flags)} {option.metavar}".rstrip()


def _help_of(option: Option) -> str:
    default = option.show(option.default)
    return f"{option.help} [{default}]" if default else option.help


def _is_flag(option: Option) -> bool:
    return option.kind == "flag"


def make_parser() -> click.Command:
    """Make click's parser from the table."""
    parameters: list[click.Parameter] = [
        click.Argument(
            ["arguments"],
            required=False,
            nargs=-1,
            metavar="[APP]",
            type=click.UNPROCESSED,
            shell_complete=lambda _context, _parameter, typed: paths("FILE", typed),
        ),
        click.Option(
            ["-c", "--config", "config_file"],
            type=click.UNPROCESSED,
            shell_complete=lambda _context, _parameter, typed: paths("FILE", typed),
        ),
        click.Option(["--check"], is_flag=True),
        _text_option("--version", lambda _context: _describe_build()),
        _text_option("--help-all", _describe_all),
    ]
    for option in OPTIONS.values():
        if option.switch:
            off = "--no-" + option.flag.removeprefix("--")
            for flag, value in ((option.flag, "on"), (off, "off")):
                parameters.append(
                    click.Option(
                        [flag, option.name], flag_value=value, default=None, help=option.help
                    )
                )
            continue
        if _is_flag(option):
            both = f"{option.flag}/--no-{option.flag[2:]}"
            parameters.append(click.Option([both, option.name], default=None, help=option.help))
            continue
        parameters.append(
            click.Option(
                [*option.flags, option.name],
                type=click.UNPROCESSED,
                multiple=option.kind == "list",
                default=None,
                help=option.help,
                shell_complete=values_of(option),
            )
        )
    return _Parser(
        PROGRAM,
        params=parameters,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Serve the WSGI application APP: module:attribute, module:factory() or file.py, "
        "with app and application as default attributes. Without APP the server shows a "
        "demonstration page.\n\n"
        f"{PROGRAM} {TOP} ADDRESS shows what a running server does.",
        epilog="Each option is also PICOWSGI_NAME in the environment and a key of "
        "[tool.picowsgi] in pyproject.toml.",
    )


def _describe_all(context: click.Context) -> str:
    parser = context.command
    assert isinstance(parser, _Parser)  # noqa: S101 (for the types)
    parser.shows_all = True
    return parser.get_help(context)


def _text_option(flag: str, text: Callable[[click.Context], str]) -> click.Option:
    """Make an option that prints a text and ends the command."""

    def show(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            click.echo(text(context))
            context.exit()

    return click.Option([flag], is_flag=True, is_eager=True, expose_value=False, callback=show)
