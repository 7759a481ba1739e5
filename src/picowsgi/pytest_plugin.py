"""The fixture `wsgi_server` for pytest, which finds it by the entry point `pytest11`.

    def test_the_page(wsgi_server):
        server = wsgi_server(application)
        assert urllib.request.urlopen(server.url).status == 200

Never imports the rest of picowsgi before a test asks for a server.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIApplication

    from picowsgi.server import Server


class StartServer(Protocol):
    """What the fixture `wsgi_server` is."""

    def __call__(self, application: WSGIApplication, **options: Any) -> Server:
        """Return a server that serves `application` until the test ends."""


@pytest.fixture
def wsgi_server() -> Iterator[StartServer]:
    """Start WSGI servers: `wsgi_server(application, **options)` returns a picowsgi.Server.

    It listens by then, on a free port of 127.0.0.1 unless the options (the command's, as keywords)
    say otherwise, and is stopped at the end of the test, which waits for requests that run for 5
    seconds. An exception in the application is a response with status 500, and is logged with its
    traceback by the logger `picowsgi`: pytest shows it with a test that fails, and `caplog` has it.
    """
    from picowsgi.server import Server

    with ExitStack() as stack:

        def start(application: WSGIApplication, **options: Any) -> Server:
            defaults: dict[str, Any] = {"access_log": "off", "timeout_graceful": 5.0}
            if "bind" not in options:
                defaults["port"] = 0
            return stack.enter_context(Server(application, **{**defaults, **options}))

        yield start
