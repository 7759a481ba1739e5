"""Parses the command's arguments, and prints the texts of --help, --help-all and --version.

Never converts a value: `config.load` converts the values of all sources.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from picowsgi import __version__
from picowsgi.config.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from picowsgi.config.option import Option
    from picowsgi.config.settings import Settings

PROGRAM = "picowsgi"
#: The first argument of `picowsgi top`.
TOP = "top"


@dataclass(frozen=True)
class Arguments:
    """The arguments, whose values are texts. `check`: import the application, and do not serve."""

    app: str | None
    config_file: Path | None
    check: bool
    options: dict[str, object]


def read_arguments(argv: Sequence[str]) -> Arguments | int:
    """Return the arguments, or the exit status if this has printed a text that they ask for.

    Raises click.ClickException if the arguments are wrong.
    """
    try:
        with _make_parser().make_context(PROGRAM, list(argv)) as context:
            given: dict[str, Any] = dict(context.params)
    except click.exceptions.Exit as done:
        return done.exit_code
    config_file = given.pop("config_file")
    return Arguments(
        app=given.pop("app"),
        config_file=None if config_file is None else Path(config_file),
        check=given.pop("check"),
        # A repeatable option that is not given is an empty tuple to click.
        options={name: value for name, value in given.items() if value not in (None, ())},
    )


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
            ("--config FILE", "TOML file to read instead of pyproject.toml"),
            ("--check", "import APP, show all options and their origins"),
            ("--version", "show the version and the build, and exit"),
            ("--help", "show this text and exit"),
            ("--help-all", f"show all {len(OPTIONS)} options and exit"),
        ]
        with formatter.section("General"):
            formatter.write_dl([(flag.ljust(width), text) for flag, text in general])


def _usage_of(option: Option) -> str:
    return f"{option.flag} {option.metavar}".rstrip()


def _help_of(option: Option) -> str:
    default = option.show(option.default)
    return f"{option.help} [{default}]" if default else option.help


def _make_parser() -> _Parser:
    """Make click's parser from the table."""
    parameters: list[click.Parameter] = [
        click.Argument(["app"], required=False, metavar="[APP]", type=click.UNPROCESSED),
        click.Option(["--config", "config_file"], type=click.UNPROCESSED),
        click.Option(["--check"], is_flag=True),
        _text_option("--version", lambda _context: _describe_build()),
        _text_option("--help-all", _describe_all),
    ]
    for option in OPTIONS.values():
        if option.switch:
            off = "--no-" + option.flag.removeprefix("--")
            for flag, value in ((option.flag, "on"), (off, "off")):
                parameters.append(click.Option([flag, option.name], flag_value=value, default=None))
            continue
        if option.kind == "flag":
            both = f"{option.flag}/--no-{option.flag[2:]}"
            parameters.append(click.Option([both, option.name], default=None))
            continue
        parameters.append(
            click.Option(
                [option.flag, option.name],
                type=click.UNPROCESSED,
                multiple=option.kind == "list",
                default=None,
            )
        )
    return _Parser(
        PROGRAM,
        params=parameters,
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
