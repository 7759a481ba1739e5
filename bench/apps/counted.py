"""The application of `bench check`: another of `plain` after each mark.

`/mark/NAME/APPLICATION` ends a count of callgrind, names it, and says what is served from now on;
`/reference` is work that has nothing to do with the server, to measure the interpreter by.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

import plain  # found beside it: this folder is on the path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_marks = ctypes.CDLL(os.environ["BENCH_MARKS"])
_BLOCK = b"GET\0/items\0page=1\0HTTP/1.1\0text/html,application/xhtml+xml\0en-US,en;q=0.9\0gzip"
_KEYS = ("method", "path", "query", "protocol", "accept", "language", "coding")
_ROUNDS = 2000

_current: WSGIApplication = plain.hello


def reference() -> int:
    """What a request is made of on Python's side: text, tuples, dicts, calls, bytes."""
    template: dict[str, Any] = {f"key {number}": number for number in range(12)}
    done = 0
    for number in range(_ROUNDS):
        environ = template.copy()
        environ.update(zip(_KEYS, _BLOCK.decode("latin-1").split("\0"), strict=False))
        head = [f"{key}: {environ[key]}\r\n" for key in _KEYS]
        data = "".join(head).encode("latin-1")
        done += len(data) + _length(environ, number=number)
    return done


def _length(environ: dict[str, Any], *, number: int) -> int:
    try:
        return int(environ["number"])
    except KeyError:
        return len(environ) + number % 3


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    global _current  # noqa: PLW0603
    path = environ["PATH_INFO"]
    if path == "/reference":
        reference()
    elif path.startswith("/mark/"):
        _, _, name, application = path.split("/")
        _current = getattr(plain, application)
        _marks.mark(name.encode("ascii"))
    else:
        return _current(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]
