"""The command line: `picowsgi [OPTIONS] [APP]`.

Never shows a traceback of picowsgi's own: what is wrong is said in one or two lines.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from picowsgi import __version__, core, demo, service
from picowsgi.config import OPTIONS
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.handover import Command, take
from picowsgi.importer import load_application
from picowsgi.log import configure
from picowsgi.option import Option
from picowsgi.resolve import load_settings
from picowsgi.sockets import url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from _typeshed.wsgi import WSGIApplication

_PROGRAM = "picowsgi"
_USAGE_ERROR = 2
_FAILURE = 1
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Serve what the arguments (default: the process's) say, until SIGINT or SIGTERM.

    Returns the exit status: 0 after serving, 1 where the application or the address cannot be
    used, 2 for a wrong option.
    """
    try:
        start_again = Command.of_this_process(argv)
        given = take(os.environ)
        command = _read_command(sys.argv[1:] if argv is None else argv)
        if isinstance(command, int):
            return command
        settings = given.read_settings() if given is not None else None
        if settings is None:
            settings = load_settings(
                command.options, config_file=command.config_file, source="command line"
            )
        configure(settings.log_level, settings.log_format, settings.log_config)
        app = command.app

        def load() -> WSGIApplication:
            return demo.application if app is None else load_application(app)

        def announce(sockets: list[socket.socket]) -> None:
            if given is not None and given.role == "worker":
                return
            urls = " and ".join(url_of(sock) for sock in sockets)
            name = "the demonstration page" if app is None else app
            _say(
                f"{_PROGRAM} {__version__} serving {name} on {urls} (pid {os.getpid()})  "
                "Press Ctrl-C to stop"
            )

        core.share_heap()
        return service.run(load, settings, announce, start_again, given)
    except click.ClickException as error:
        _say_error(error.format_message())
        _say(f"Try '{_PROGRAM} --help' for the options.")
        return _USAGE_ERROR
    except ConfigError as error:
        _say_error(str(error))
        return _USAGE_ERROR
    except AppImportError as error:
        _say(error.application_traceback.rstrip("\n"))
        _say_error(str(error))
        return _FAILURE
    except OSError as error:  # a BindError mostly; or no descriptors are left, or the like
        _say_error(str(error))
        return _FAILURE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _say_error(message: str) -> None:
    _say(f"{_PROGRAM}: error: {message}")


def _say(text: str) -> None:
    """Write a line to standard error; where nobody can read it, serving is still worth it."""
    if text and sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)  # noqa: T201 (the one place)


@dataclass(frozen=True)
class _Arguments:
    """What the arguments say, still as text."""

    app: str | None
    config_file: Path | None
    options: dict[str, object]


def _read_command(argv: Sequence[str]) -> _Arguments | int:
    """Return what the arguments say, or the exit status where they asked for a text."""
    try:
        with _make_parser().make_context(_PROGRAM, list(argv)) as context:
            given: dict[str, Any] = dict(context.params)
    except click.exceptions.Exit as done:
        return done.exit_code
    config_file = given.pop("config_file")
    return _Arguments(
        app=given.pop("app"),
        config_file=None if config_file is None else Path(config_file),
        # A repeatable option that is not given is an empty tuple to click.
        options={name: value for name, value in given.items() if value not in (None, ())},
    )


class _Parser(click.Command):
    """Shows the options in the sections of the table."""

    def format_options(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        flags = [_usage_of(option) for option in OPTIONS.values()]
        # One width for all sections, so that their columns stand under each other.
        width = max(map(len, flags))
        for group, options in groupby(OPTIONS.values(), key=lambda option: option.group):
            with formatter.section(group):
                formatter.write_dl(
                    [(_usage_of(option).ljust(width), _help_of(option)) for option in options],
                    col_max=width,
                )
        general = [
            ("--config FILE", "TOML file to read instead of pyproject.toml"),
            ("--version", "show the version and exit"),
            ("--help", "show this text and exit"),
        ]
        with formatter.section("General"):
            formatter.write_dl([(flag.ljust(width), text) for flag, text in general])


def _usage_of(option: Option) -> str:
    return f"{option.flag} {option.metavar}".rstrip()


def _help_of(option: Option) -> str:
    default = option.show(option.default)
    return f"{option.help} [{default}]" if default else option.help


def _make_parser() -> _Parser:
    """Make click's parser from the table; values stay text, to be converted in one place."""
    parameters: list[click.Parameter] = [
        click.Argument(["app"], required=False, metavar="[APP]", type=click.UNPROCESSED),
        click.Option(["--config", "config_file"], type=click.UNPROCESSED),
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
    parser = _Parser(
        _PROGRAM,
        params=parameters,
        help="Serve the WSGI application APP: module:attribute, module:factory() or file.py, "
        "with app and application as default attributes. Without APP a demonstration page "
        "is served.",
        epilog="Each option is also PICOWSGI_NAME in the environment and a key of "
        "[tool.picowsgi] in pyproject.toml.",
    )
    return click.version_option(__version__, prog_name=_PROGRAM, message="%(prog)s %(version)s")(
        parser
    )
