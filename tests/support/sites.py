"""An application that answers /ping, and a check that its server serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.client import exchange

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from support.client import Addressed

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"


def site(answer: WSGIApplication) -> WSGIApplication:
    """Make an application that answers /ping with pong, and any other path as `answer` does."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/ping":
            start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"pong"]
        return answer(environ, start_response)

    return application


def ping(server: Addressed) -> None:
    """Check that a server with such an application serves."""
    assert exchange(server, PING)[0].content == b"pong", "expected the server to continue"
