"""A plain WSGI application with one path for each kind of response that a client may get."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

MEBIBYTE = 1 << 20
LARGE = bytes(range(256)) * (5 * MEBIBYTE // 256)
TEXT = ("Content-Type", "text/plain; charset=utf-8")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    answer = ANSWERS.get(environ["PATH_INFO"], not_found)
    return answer(environ, start_response)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("ETag", '"hello"')])
    return [b"hello\n"]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Describe the request: its content by length and digest."""
    size, digest = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(100_000):
        size += len(piece)
        digest.update(piece)
    seen = {
        "method": environ["REQUEST_METHOD"],
        "query": environ["QUERY_STRING"],
        "protocol": environ["SERVER_PROTOCOL"],
        "type": environ.get("CONTENT_TYPE", ""),
        "length": environ.get("CONTENT_LENGTH", ""),
        "coding": environ.get("HTTP_TRANSFER_ENCODING", ""),
        "size": size,
        "sha256": digest.hexdigest(),
        "port": environ["REMOTE_PORT"],
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


def form(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(parse_qsl(content.decode())).encode()]


def double(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    numbers = json.loads(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([2 * number for number in numbers]).encode()]


def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response(environ["QUERY_STRING"] + " Go There", [("Location", "/echo?redirected")])
    return []


def no_content(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def not_modified(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ.get("HTTP_IF_NONE_MATCH") == '"hello"':
        start_response("304 Not Modified", [("ETag", '"hello"')])
        return []
    return hello(environ, start_response)


def large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [LARGE]


def streamed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    # Pieces of many sizes, one of them empty, so that no buffer ends at the end of a piece.
    position, number = 0, 0
    while position < len(LARGE):
        size = number * 997 % 70_000
        yield LARGE[position : position + size]
        position, number = position + size, number + 1


def not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [TEXT])
    return [b"not found\n"]


ANSWERS: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/hello": hello,
    "/echo": echo,
    "/form": form,
    "/double": double,
    "/redirect": redirect,
    "/no-content": no_content,
    "/not-modified": not_modified,
    "/large": large,
    "/streamed": streamed,
}
