"""An application as a class: the server "calls" the class, so each request gets an instance.

The server iterates over the instance. The state of a request is in plain attributes, and its
methods share them without locks, because no other request uses the instance.

    picowsgi examples/class_per_request.py

    curl http://127.0.0.1:8000/some/path
    curl -d 'three words here' http://127.0.0.1:8000/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment


class Application:
    """One request: made when it arrives, iterated for its content, closed when it is over."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.environ = environ
        self.start_response = start_response

    def __iter__(self) -> Iterator[bytes]:
        content = self.read_content()
        self.start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        yield self.describe("method", self.environ["REQUEST_METHOD"])
        yield self.describe("path", self.environ["PATH_INFO"])
        yield self.describe("bytes", len(content))
        yield self.describe("words", len(content.split()))

    def read_content(self) -> bytes:
        """Read what the client sent; a request without content has no CONTENT_LENGTH."""
        length = int(self.environ.get("CONTENT_LENGTH") or 0)
        return self.environ["wsgi.input"].read(length)

    @staticmethod
    def describe(name: str, value: object) -> bytes:
        # WSGI text is latin-1 that stands for bytes; writing it as latin-1 gives those bytes back.
        return f"{name:>8}: {value}\n".encode("latin-1")


application = Application
