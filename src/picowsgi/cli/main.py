"""The command line: `picowsgi [OPTIONS] [APP]` and `picowsgi top ADDRESS`.

Never shows a traceback of picowsgi itself: an error message has one or two lines.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from picowsgi import DOCUMENTATION, __version__, core
from picowsgi.app.live_reload import mode as live_reload
from picowsgi.cli.arguments import (
    TOP,
    describe_settings,
    make_parser,
    read_arguments,
)
from picowsgi.cli.completion import VARIABLE, complete
from picowsgi.cli.sources import Sources, find_settings
from picowsgi.config.load import PROGRAM
from picowsgi.config.log_config import read_log_config
from picowsgi.config.settings import OPTIONS
from picowsgi.errors import AppImportError, ConfigError, PicowsgiError
from picowsgi.log import (
    configure,
    format_json,
    has_error_log,
    is_json,
    open_error_log,
    write_error_log,
    write_standard_error,
)
from picowsgi.process.hooks import load_hooks
from picowsgi.process.restart import Command, take_inherited
from picowsgi.process.run import check, run
from picowsgi.system.addresses import own_addresses
from picowsgi.system.descriptors import restore_standard_streams
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import url_of
from picowsgi.system.terminal import is_terminal, wants_colour
from picowsgi.threads.loop import share_out

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings

_USAGE_ERROR = 2
_FAILURE = 1
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: those of the process).

    Returns the exit status: 0 after serving, 1 if the application or the address cannot be used, 2
    for a wrong option, 130 after Ctrl-C at the start.
    """
    restore_standard_streams()  # before anything is opened
    try:
        return _run(argv)
    except click.ClickException as error:
        command = f"{PROGRAM} {TOP}" if _is_top(argv) else PROGRAM
        hint = f"Try '{command} --help' for the options."
        return _fail(_USAGE_ERROR, argv, error.format_message(), hint=hint)
    except ConfigError as error:
        return _fail(_USAGE_ERROR, argv, str(error))
    except AppImportError as error:
        return _fail(_FAILURE, argv, str(error), traceback=error.application_traceback)
    except (PicowsgiError, OSError) as error:  # OSError: there is no free descriptor, or the like
        return _fail(_FAILURE, argv, str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _is_top(argv: Sequence[str] | None) -> bool:
    """Return whether the first argument is the word `top` alone.

    An application module of that name is `top:app` or `top.py`, or comes after an option.
    """
    return list(sys.argv[1:] if argv is None else argv)[:1] == [TOP]


def _run(argv: Sequence[str] | None) -> int:
    if VARIABLE in os.environ:
        from picowsgi.cli.top import make_parser as make_top_parser

        return complete(PROGRAM, make_parser(), {TOP: make_top_parser()})
    if _is_top(argv):
        from picowsgi.cli.top import run_top  # a server does not need it

        return run_top((sys.argv[1:] if argv is None else argv)[1:])
    start_again = Command.of_this_process(argv)
    inherited = take_inherited(os.environ)
    command = read_arguments(sys.argv[1:] if argv is None else argv)
    if isinstance(command, int):
        return command
    settings = inherited.read_settings() if inherited is not None else None
    sources = Sources()
    if settings is None:
        settings = find_settings(command, sources)
    else:
        sources.read_environment(settings)
    in_terminal = settings.error_log == "-" and is_terminal(sys.stderr)
    configure(
        settings.log_level,
        settings.log_format,
        terminal=in_terminal,
        colour=wants_colour(in_terminal=in_terminal, standard=settings.error_log == "-"),
    )
    prepare = _prepare_logs(settings)
    if prepare is not None and not (settings.user or settings.group):
        prepare()  # before anything is logged
        prepare = None
    load = _loader(settings, sources)

    def announce(sockets: list[socket.socket]) -> None:
        if inherited is None or inherited.role != "worker":
            _say(_banner(settings, sockets))

    if command.check:
        return _check(settings, load)
    core.share_heap()
    return run(load, settings, announce, start_again, inherited, prepare)


def _prepare_logs(settings: Settings) -> Callable[[], None] | None:
    """Return a function that opens the files of the error log; None: there are no files.

    Call the function as the user of `--user`. Both raise ConfigError.
    """
    apply = read_log_config(settings.log_config) if settings.log_config else None
    path = settings.error_log
    if path == "-":
        return apply
    path = str(Path(settings.chdir, path).absolute())

    def prepare() -> None:
        open_error_log(path, 0o644 & ~max(settings.umask, 0))
        if apply is not None:
            apply()

    return prepare


def _loader(settings: Settings, sources: Sources) -> Callable[[], WSGIApplication]:
    """Return a function that loads the application.

    This imports the modules that the function needs. After the change to the user of `--user`, the
    process may not be able to read them.
    """
    if settings.factory and not settings.app:
        raise ConfigError(f"{settings.sources['factory']}: there is no APP that it is about")
    if not settings.app and not settings.mount:
        from picowsgi.app.pages.demo import application

        return lambda: application
    from picowsgi.app.importer import load_application
    from picowsgi.app.mount import mount

    def load() -> WSGIApplication:
        if settings.debug:  # Flask passes errors to a debugger only with this variable
            os.environ.setdefault("FLASK_DEBUG", "1")
        sources.prepare_load(settings)
        own = None
        if settings.app:
            own = load_application(settings.app, settings.app_dir, factory=settings.factory)
        if own is None or settings.mount:
            below = partial(load_application, directories=settings.app_dir)
            return mount(settings.mount, below, own)
        return own

    return load


def _check(settings: Settings, load: Callable[[], object]) -> int:
    """Do the steps before the server opens its sockets, and print the options."""
    check(settings)
    if settings.reload:
        from picowsgi.reload.reloader import watched_files  # only this option needs it

        watched_files(settings)
    load_hooks(settings.hooks, settings.app_dir)
    load()
    refuse_patched()
    click.echo(f"{PROGRAM} {__version__} can serve {_name_of(settings)}\n")
    click.echo(describe_settings(settings))
    return 0


def _name_of(settings: Settings) -> str:
    own = [settings.app] if settings.app else []
    return " ".join([*own, *settings.mount]) or "the demonstration page"


def _banner(settings: Settings, sockets: list[socket.socket]) -> str:
    """Return the start message: the application, the URLs, the threads, and how to stop."""
    plain = is_json() or has_error_log() or not wants_colour(in_terminal=is_terminal(sys.stderr))

    def style(text: str, colour: str) -> str:
        return text if plain else click.style(text, fg=colour, bold=True)

    urls = " and ".join(style(url_of(sock), "cyan") for sock in sockets)
    threads = "1 thread" if settings.threads == 1 else f"up to {settings.threads} threads"
    loops = len(share_out(settings))
    if loops > 1:
        threads += f" on {loops} event loops"
    if settings.workers > 1:
        threads = f"{settings.workers} workers, {threads} each"
    modes = {
        "reload": settings.reload,
        "debug": settings.debug,
        "live reload": live_reload.is_on(settings),
    }
    modes_on = "".join(f"; {name} is on" for name, is_on in modes.items() if is_on)
    first = (
        f"{style(PROGRAM, 'green')} {__version__} serving {_name_of(settings)} on {urls} "
        f"(pid {os.getpid()})"
    )
    if is_json():
        return f"{first}, {threads}{modes_on}"
    lines = [first, *_own_urls(sockets), f"{threads}{modes_on}; press Ctrl-C to stop"]
    if is_terminal(sys.stderr) and not has_error_log():
        lines.append(f"documentation: {DOCUMENTATION}")
    return "\n".join(lines)


def _own_urls(sockets: list[socket.socket]) -> list[str]:
    """Return a line with the addresses of this machine for each socket that listens on all."""
    lines = []
    for sock in sockets:
        url = url_of(sock)
        for anywhere, first, last in (("http://0.0.0.0:", "", ""), ("http://[::]:", "[", "]")):
            if url.startswith(anywhere):
                port = url.removeprefix(anywhere)
                found = [f"http://{first}{one}{last}:{port}" for one in own_addresses(sock.family)]
                lines.append(f"{url} is this machine at {', '.join(found)}")
    return lines


def _fail(
    status: int, argv: Sequence[str] | None, message: str, *, traceback: str = "", hint: str = ""
) -> int:
    """Write the error message to standard error, and to the file of the error log if there is one.

    Returns the status.
    """
    if is_json() or _wants_json(sys.argv[1:] if argv is None else argv):
        text = format_json(message, level=logging.ERROR, traceback=traceback)
    else:
        lines = [traceback.rstrip("\n"), f"{PROGRAM}: error: {message}", hint]
        text = "".join(f"{line}\n" for line in lines if line)
    write_standard_error(_in_red(text, message))
    if has_error_log():
        write_error_log(text)
    return status


def _in_red(text: str, message: str) -> str:
    """Return the text with a red error message, if standard error shows colours."""
    if not wants_colour(in_terminal=is_terminal(sys.stderr)):
        return text
    error = f"{PROGRAM}: error: {message}"
    return text.replace(error, click.style(error, fg="red", bold=True))


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the user asks for JSON, for an error before the settings are complete."""
    given = os.environ.get(OPTIONS["log_format"].variable, "")
    for argument, after in zip(arguments, [*arguments, ""][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name == OPTIONS["log_format"].flag:
            given = value if equals else after
    return given.strip().lower() == "json"


def _say(text: str) -> None:
    """Write a line at the start to the error log. The server serves even if this fails."""
    write_error_log(format_json(text) if is_json() else f"{text}\n")
