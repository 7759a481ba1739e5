"""Middleware that changes what an application answers: every text in capitals.

A filter has duties on both sides. For the application it provides `start_response`, as often as PEP
3333 allows and with `exc_info`, a `write` that filters too, and it calls `close()`. For the server
it removes the Content-Length and a strong ETag, because the content changes. It passes pieces on as
they come, and joins a character that two pieces share.

    picowsgi examples/filtering.py

    curl http://127.0.0.1:8000/          # a list
    curl http://127.0.0.1:8000/pieces    # a generator that cuts a character in two
    curl http://127.0.0.1:8000/write     # the write() callable
    curl http://127.0.0.1:8000/error     # start_response again, with exc_info
    curl http://127.0.0.1:8000/json      # no text/*: goes through as it is
"""

from __future__ import annotations

import codecs
import sys
from email.message import Message
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Fields = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

# Fields that describe the content as the application made it, byte for byte.
STALE = frozenset({"content-length", "content-md5", "digest", "repr-digest", "accept-ranges"})


def text_filter(change: Callable[[str], str]) -> Callable[[WSGIApplication], WSGIApplication]:
    """Return a decorator that applies change to the text content of an application's responses.

    change is called with pieces of the text, so it has to treat each character alone.
    """

    def decorator(application: WSGIApplication) -> WSGIApplication:
        def filtered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return FilteredResponse(change, application, environ, start_response)

        return filtered

    return decorator


class FilteredResponse:
    """One response on its way through the filter: what the server iterates over and closes."""

    def __init__(
        self,
        change: Callable[[str], str],
        application: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> None:
        self._change = change
        self._server_start_response = start_response
        # None while the content is to be left alone.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._iterable = application(environ, self._start_response)

    def __iter__(self) -> Iterator[bytes]:
        # An empty piece stays an empty piece: it says "nothing yet", and the server never waits.
        for piece in self._iterable:
            yield self._filter(piece)
        if rest := self._filter(b"", final=True):
            yield rest

    def close(self) -> None:
        """Close the application's iterable; the server calls this however the response ended."""
        if hasattr(self._iterable, "close"):
            self._iterable.close()

    def _start_response(
        self, status: str, fields: Fields, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        is_text = is_plain_utf8(fields)
        if is_text:
            fields = [weakened(name, value) for name, value in fields if name.lower() not in STALE]

        # With exc_info the server raises it again if the head has left already, so nothing of ours
        # changes before it has agreed.
        if exc_info:
            write = self._server_start_response(status, fields, exc_info)
        else:
            write = self._server_start_response(status, fields)
        self._decoder = new_decoder() if is_text else None

        def filtered_write(data: bytes) -> None:
            write(self._filter(data))

        return filtered_write

    def _filter(self, piece: bytes, *, final: bool = False) -> bytes:
        if self._decoder is None:
            return piece
        text = self._decoder.decode(piece, final)
        return self._change(text).encode("utf-8", "surrogateescape")


def new_decoder() -> codecs.IncrementalDecoder:
    """Make a decoder that waits for the rest of a character, and keeps bytes that are no text."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")


def is_plain_utf8(fields: Fields) -> bool:
    """Tell whether fields announce text in UTF-8 that is not compressed and not a part."""
    message = Message()
    for name, value in fields:
        message[name] = value
    return (
        "Content-Type" in message
        and message.get_content_maintype() == "text"
        and message.get_content_charset("utf-8") in ("utf-8", "us-ascii")
        and "Content-Encoding" not in message
        and "Content-Range" not in message
    )


def weakened(name: str, value: str) -> tuple[str, str]:
    """Make a strong ETag a weak one: it names the same text, but no longer the same bytes."""
    if name.lower() == "etag" and not value.startswith("W/"):
        value = f"W/{value}"
    return name, value


@text_filter(str.upper)
def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer in each of the ways in which a WSGI application can."""
    text = [("Content-Type", "text/plain; charset=utf-8")]
    match environ["PATH_INFO"]:
        case "/":
            content = "good morning, straße\n".encode()
            # Right here, wrong in capitals: "ß" becomes "SS". The filter takes it away.
            start_response("200 OK", [*text, ("Content-Length", str(len(content)))])
            return [content]
        case "/pieces":
            start_response("200 OK", text)
            return (bytes([byte]) for byte in "čaj, café, ćevapi\n".encode())
        case "/write":
            write = start_response("200 OK", text)
            write(b"written, ")
            return [b"then returned\n"]
        case "/error":
            start_response("200 OK", [("Content-Type", "application/octet-stream")])
            try:
                raise RuntimeError("this was to be expected")
            except RuntimeError as error:
                start_response("503 Service Unavailable", text, sys.exc_info())
                return [f"{error}\n".encode()]
        case "/json":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [b'{"case": "kept"}\n']
        case _:
            start_response("404 Not Found", text)
            return [b"not found\n"]
