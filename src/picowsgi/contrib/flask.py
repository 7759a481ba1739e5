"""`flask picowsgi`: the options and the debugger of `flask run`, on picowsgi.

Never watches a file: werkzeug's reloader does. The process that the reloader starts has the same
listening socket, so no request is refused during a restart.
"""

from __future__ import annotations

import copy
import os
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from flask import Flask
from flask.cli import ScriptInfo, pass_script_info, run_command, show_server_banner
from flask.helpers import get_debug_flag
from werkzeug._reloader import (
    ReloaderLoop,
    _find_stat_paths,
    _get_args_for_reloading,
    reloader_loops,
    run_with_reloader,
)
from werkzeug.debug import DebuggedApplication
from werkzeug.serving import WSGIRequestHandler, is_running_from_reloader

from picowsgi import __version__
from picowsgi.config.load import load_settings
from picowsgi.contrib import restarts
from picowsgi.contrib.development import (
    DevelopmentServer,
    Exchange,
    keep_listener,
    kept_listener,
    reloaded,
)
from picowsgi.contrib.restarts import is_early_change, run_processes, wait_for_change
from picowsgi.errors import BindError, ConfigError, PatchedError
from picowsgi.reload.watcher import watch_folders
from picowsgi.system.sockets import find_permissions, open_sockets, url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@pass_script_info
def _run(
    info: ScriptInfo,
    host: str,
    port: int,
    reload: bool | None,
    debugger: bool | None,
    with_threads: bool,
    extra_files: Sequence[str] | None,
    exclude_patterns: Sequence[str] | None,
    live_reload: bool | None,
) -> None:
    """Run a development server on picowsgi.

    The options are those of 'flask run', and so are the reloader and the debugger, which the
    '--debug' option enables.
    """
    restarts.prepare()  # before the application is imported
    application = _load(info)
    failed = isinstance(application, _Failed)
    folders = _template_folders(application)
    debug = get_debug_flag()
    reload = debug if reload is None else reload
    if live_reload and not reload:
        raise click.UsageError("--live-reload needs the reloader: add --debug or --reload")
    show_server_banner(debug, info.app_import_path)
    if debug if debugger is None else debugger:
        application = DebuggedApplication(application, evalex=True)
        application.trusted_hosts.append(host)
    try:
        sock = kept_listener() or _listen(host, port)
        serve = partial(
            _serve,
            application,
            sock,
            folders,
            developing=debug if reload else None,
            threads=None if with_threads else 1,
            live_reload=live_reload,
        )
        with reloaded([sock]):
            if reload:
                if not is_running_from_reloader():
                    keep_listener(sock)
                reloader_loops["auto"] = _reloader_class(failed=failed)
                run_with_reloader(serve, extra_files, exclude_patterns)
            else:
                serve()
    except (BindError, ConfigError, PatchedError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(0)


def _reloader_class(*, failed: bool) -> type[ReloaderLoop]:
    """Return werkzeug's reloader, with a next process that does not wait for the last one's end."""
    base: type[ReloaderLoop] = reloader_loops["auto"]

    class Reloader(base):  # type: ignore[misc, valid-type]
        name = base.name

        def restart_with_reloader(self) -> int:
            environ = {**os.environ, "WERKZEUG_RUN_MAIN": "true"}
            text = f" * Restarting with {self.name}"
            announce = partial(click.echo, text, err=True)
            return run_processes(_get_args_for_reloading(), environ, announce)

        def __enter__(self) -> ReloaderLoop:
            result: ReloaderLoop = super().__enter__()
            # Werkzeug looks at the files for the first time after the application has read them.
            for path in _find_stat_paths(self.extra_files, self.exclude_patterns):
                with suppress(OSError):
                    mtime = Path(path).stat().st_mtime
                    if is_early_change(os.path.realpath(path), mtime, failed=failed):
                        self.trigger_reload(path)
            return result

        def run(self) -> None:
            if base is not reloader_loops["stat"]:
                super().run()
            while True:
                self.run_step()
                changed = wait_for_change(self.mtimes, self.interval)
                if changed is not None:
                    self.trigger_reload(changed)

    return Reloader


def _load(info: ScriptInfo) -> WSGIApplication:
    try:
        return info.load_app()
    except Exception as error:
        if not is_running_from_reloader():
            raise
        # The developer is editing a file. Requests get the error, and the next change reloads.
        traceback.print_exc()
        return _Failed(error)


class _Failed:
    """The application that answers if the real one cannot be loaded."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._traceback = error.__traceback__

    def __call__(self, _environ: WSGIEnvironment, _start_response: StartResponse) -> NoReturn:
        # Without with_traceback the traceback would grow with each request.
        raise self._error.with_traceback(self._traceback)


def _listen(host: str, port: int) -> socket.socket:
    address: dict[str, object] = {"host": host, "port": port}
    if host.startswith("unix://"):  # werkzeug's form for the path of a unix socket
        address = {"bind": "unix:" + host.removeprefix("unix://")}
    settings = load_settings(address)
    permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group)
    [sock] = open_sockets(settings.binds(), settings.backlog, permissions)
    click.echo(f" * Running on {url_of(sock)} with picowsgi {__version__}", err=True)
    click.secho("Press CTRL+C to quit", fg="yellow", err=True)
    return sock


def _template_folders(application: WSGIApplication) -> list[str]:
    """Return the existing folders with templates of a Flask application and its blueprints."""
    if not isinstance(application, Flask):
        return []
    owners: list[Any] = [application, *application.blueprints.values()]
    loaders = [one.jinja_loader for one in owners]
    folders = [folder for one in loaders for folder in getattr(one, "searchpath", ())]
    return [folder for folder in folders if Path(folder).is_dir()]


def _serve(
    application: WSGIApplication, sock: socket.socket, folders: Sequence[str], **options: Any
) -> None:
    server = DevelopmentServer(application, sock, _log, **options)
    server.start()
    if server.channel is not None and folders:
        # Flask reads a changed template again, so werkzeug does not restart the process.
        threading.Thread(
            target=watch_folders, args=(folders, server.note_change), daemon=True
        ).start()
    server.wait()


def _log(exchange: Exchange) -> None:
    """Write the line by werkzeug's request handler, with werkzeug's text and colour."""
    handler = object.__new__(WSGIRequestHandler)
    handler.client_address = (exchange.address, 0)
    handler.requestline = exchange.request_line
    if exchange.method != "-":
        handler.command = exchange.method
        handler.path = exchange.target
        handler.request_version = exchange.version
    handler.log_request(exchange.status)


def _refuse_tls(_context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        raise click.BadParameter(
            f"picowsgi has no TLS; use 'flask run {parameter.opts[0]}', or a proxy that has it.",
        )


def _options() -> list[click.Parameter]:
    """Return the options of `flask run` of the installed version."""
    options = []
    for parameter in run_command.params:
        option = copy.copy(parameter)
        if option.name in ("cert", "key"):
            option = click.Option(
                [option.opts[0]], callback=_refuse_tls, expose_value=False, help="Not supported."
            )
        elif option.name is not None and option.name != "debug":
            names = (f"FLASK_PICOWSGI_{option.name.upper()}", f"FLASK_RUN_{option.name.upper()}")
            option.envvar = names
        options.append(option)
    live_reload = click.Option(
        ["--live-reload/--no-live-reload"],
        default=None,
        envvar="FLASK_PICOWSGI_LIVE_RELOAD",
        help="Load open pages again when code or a template has changed. By default this is on "
        "in a terminal if debug mode and the reloader are.",
    )
    return [*options, live_reload]


command = click.Command(
    "picowsgi", callback=_run, params=_options(), help=_run.__doc__, short_help="Run on picowsgi."
)
