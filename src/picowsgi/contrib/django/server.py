"""The replacement of Django's own development server, `django.core.servers.basehttp`.

Never decides what to serve, or when: the command and the test case do.
"""

from __future__ import annotations

import os
import socket
import socketserver
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.core.servers import basehttp
from django.core.servers.basehttp import WSGIRequestHandler
from django.template.autoreload import get_template_directories
from django.utils import autoreload

from picowsgi.contrib.development import DevelopmentServer, Exchange, kept_listener
from picowsgi.errors import ConfigError, PatchedError
from picowsgi.system.descriptors import occupy_standard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_BACKLOG = 1024
_PORT_MOST = 65535
_TLS = "\x16\x03"  # the first bytes of a TLS connection (RFC 8446 section 5.1)


def listen(address: tuple[str, int], *, ipv6: bool) -> socket.socket:
    """Return a listening socket with the same address as Django's server. Raises OSError."""
    if not 0 <= address[1] <= _PORT_MOST:  # getaddrinfo would take it modulo 65536
        raise OSError(f"the port must be from 0 to {_PORT_MOST}, not {address[1]}")
    occupy_standard()
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    found = socket.getaddrinfo(*address, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # [::] takes IPv4 too, as it does with Django.
    return socket.create_server(
        found[0][4][:2], family=family, backlog=_BACKLOG, dualstack_ipv6=ipv6
    )


class WSGIServer:
    """The part of Django's server of this name that `runserver` and `LiveServerThread` use.

    `handler_class` writes the lines of the log; None: there is no log. Raises OSError.
    """

    def __init__(
        self,
        server_address: tuple[str, int],
        handler_class: type[WSGIRequestHandler] | None = None,
        ipv6: bool = False,
    ) -> None:
        self._log = None if handler_class is None else _Log(handler_class)
        self._socket = kept_listener() or listen(server_address, ipv6=ipv6)
        self.server_address = self._socket.getsockname()
        self.server_port: int = self.server_address[1]
        self._server: DevelopmentServer | None = None

    def set_app(self, application: WSGIApplication) -> None:
        """Set the application. Raises CommandError if picowsgi cannot serve it."""
        # The command adds ThreadingMixIn, except with --nothreading.
        threads = None if isinstance(self, socketserver.ThreadingMixIn) else 1
        try:
            self._server = DevelopmentServer(
                application, self._socket, self._log, _is_developing(), threads=threads
            )
        except (ConfigError, PatchedError) as error:
            raise CommandError(str(error)) from None
        if self._server.channel is not None:
            _template_servers.append(self._server)
            autoreload.file_changed.connect(_note_template)

    def serve_forever(self) -> None:
        """Serve until another thread calls `shutdown`, or the process ends."""
        if self._server is None:
            raise RuntimeError("there is nothing to serve: call set_app first")
        self._server.start()
        self._server.wait()

    def shutdown(self) -> None:
        """Finish open requests, and wait until all threads have ended."""
        if self._server is not None:
            self._server.stop()

    def server_close(self) -> None:
        """Close the listening socket."""
        self._socket.close()


#: The servers whose pages load again when a template has changed.
_template_servers: list[DevelopmentServer] = []


def _is_developing() -> bool | None:
    """Return the argument `developing` of the server."""
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        return None
    if "django_browser_reload" in settings.INSTALLED_APPS:  # which does the same
        return None
    return bool(settings.DEBUG)


def _note_template(file_path: Path, **_signal: Any) -> None:
    """Let open pages load again if Django does not restart the process for this file."""
    is_template = any(folder in file_path.parents for folder in get_template_directories())
    if is_template and file_path.suffix != ".py":
        for server in _template_servers:
            server.note_change()


def serves_wsgi(command: type[BaseCommand]) -> bool:
    """Return whether a command `runserver` starts its server as Django's own command does."""
    server = getattr(command, "server_cls", None)
    return isinstance(server, type) and issubclass(server, (basehttp.WSGIServer, WSGIServer))


class _Log:
    """Writes the lines by Django's request handler, with Django's text, level and colour."""

    def __init__(self, handler_class: type[WSGIRequestHandler]) -> None:
        self._handler = object.__new__(handler_class)
        self._handler.request = None

    def __call__(self, exchange: Exchange) -> None:
        line = exchange.request_line
        # By these bytes Django recognises a client that tries HTTPS.
        self._handler.requestline = _TLS if line.startswith(r"\x16\x03") else line
        self._handler.log_request(exchange.status, exchange.size)


#: The errors that kept the project from being loaded in this process.
_failures: list[Exception] = []


def is_failed() -> bool:
    """Return whether this process could not load the project."""
    return bool(_failures)


def show_error(error: Exception) -> None:
    """Answer every request with `error`, on the socket that a reloader has kept, if there is one.

    The function returns at once. The reloader ends this process when a file has changed.
    """
    _failures.append(error)
    sock = kept_listener()
    if sock is not None:
        try:
            developing = bool(settings.DEBUG)
        except Exception:  # the settings are what cannot be loaded
            developing = False
        DevelopmentServer(_ErrorPage(error), sock, _Log(WSGIRequestHandler), developing).start()


class _ErrorPage:
    """Django's page for an error that belongs to no request."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, _environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        from django.views.debug import ExceptionReporter  # slow to import, and rarely needed

        kind, page = "text/plain; charset=utf-8", "The project cannot be loaded.\n"
        if settings.DEBUG:
            error = self._error
            reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
            kind, page = "text/html; charset=utf-8", reporter.get_traceback_html()
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        start_response(f"{status.value} {status.phrase}", [("Content-Type", kind)])
        return [page.encode()]
