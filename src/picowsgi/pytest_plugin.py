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
    """The type of the fixture `wsgi_server`, for annotations."""

    def __call__(self, application: WSGIApplication, **options: Any) -> Server:
        """Return a server that serves `application` until the test ends.

        Args:
            application: a WSGI application.
            **options: the options of `picowsgi.Server`.

        Raises:
            ConfigError: an option is unknown, or has a wrong value.
            BindError: the server cannot listen on an address.
            PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        """


@pytest.fixture
def wsgi_server() -> Iterator[StartServer]:
    """Start WSGI servers: `wsgi_server(application, **options)` returns a `picowsgi.Server`.

    The server listens when the call returns. Its address is 127.0.0.1 and a free port, unless the
    options name another one. At the end of the test the server stops, and open requests have 5
    seconds to finish.

    An exception in the application is a response with status 500. The logger `picowsgi` logs it
    with its traceback: pytest shows it with a test that fails, and `caplog` has it.
    """
    from picowsgi.server import Server

    with ExitStack() as stack:

        def start(application: WSGIApplication, **options: Any) -> Server:
            defaults: dict[str, Any] = {"access_log": "off", "timeout_graceful": 5.0}
            if "bind" not in options:
                defaults["port"] = 0
            return stack.enter_context(Server(application, **{**defaults, **options}))

        yield start
