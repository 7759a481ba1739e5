"""The applications of `bench check`, from `plain`. A byte in a pipe ends a count of callgrind.

`reference` is work that does not use the server. Its count shows how fast the interpreter is.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from plain import echo, hello, upload  # this folder is on the path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["echo", "hello", "reference", "upload"]

_BLOCK = b"GET\0/items\0page=1\0HTTP/1.1\0text/html,application/xhtml+xml\0en-US,en;q=0.9\0gzip"
_KEYS = ("method", "path", "query", "protocol", "accept", "language", "coding")
_ROUNDS = 2000

#: The thread that waits for marks reads it (c/marks.c).
_pipe = ctypes.create_string_buffer(os.environb[b"BENCH_MARKS_PIPE"])
ctypes.CDLL(os.environ["BENCH_MARKS"]).mark_at(_pipe)


def work() -> int:
    """Do what Python does for a request: use text, tuples, dicts, calls and bytes."""
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


def reference(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    work()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]
