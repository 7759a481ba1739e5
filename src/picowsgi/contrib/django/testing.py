"""Test cases with picowsgi as the live server; their interface is that of Django's own.

Never gives a port back before its end: the server binds the port once and keeps it.
"""

from __future__ import annotations

import socketserver
from typing import TYPE_CHECKING, Any

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.db import connections
from django.test import testcases

from picowsgi.contrib.django.server import WSGIServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class _LiveWSGIServer(socketserver.ThreadingMixIn, WSGIServer):
    #: Database connections that all threads share, by alias.
    connections_override: Mapping[str, Any]

    def set_app(self, application: WSGIApplication) -> None:
        super().set_app(_WithConnections(application, self.connections_override))


class LiveServerThread(testcases.LiveServerThread):
    """Django's thread of this name, with a server of picowsgi."""

    def _create_server(self, connections_override: Any = None) -> WSGIServer:
        server = _LiveWSGIServer((self.host, self.port))
        server.connections_override = connections_override or {}
        return server


class LiveServerTestCase(testcases.LiveServerTestCase):
    """`django.test.LiveServerTestCase`, on picowsgi."""

    server_thread_class = LiveServerThread


class StaticLiveServerTestCase(LiveServerTestCase):
    """`django.contrib.staticfiles.testing.StaticLiveServerTestCase`, on picowsgi."""

    static_handler = StaticFilesHandler


class _WithConnections:
    """An application whose requests use the test's connections, and close those of their thread."""

    def __init__(self, application: WSGIApplication, shared: Mapping[str, Any]) -> None:
        self._application = application
        self._shared = shared

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for alias, connection in self._shared.items():
            connections[alias] = connection
        return _Closing(self._application(environ, start_response))


class _Closing:
    """Closes the thread's connections after a response, because the end of a test does not wait."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._result)

    def close(self) -> None:
        """Close the response, then the connections. Databases in memory stay open."""
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            connections.close_all()
