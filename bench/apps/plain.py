"""The plain WSGI applications (PEP 3333) of the scenarios. Every server runs this same file.

Never does more than a scenario needs, and never depends on the server.
"""

from __future__ import annotations

import os
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO
    from wsgiref.types import StartResponse, WSGIEnvironment

HELLO = b"Hello, world!\n"
FIELDS = [(f"X-Field-{number}", f"value of field {number}") for number in range(1, 11)]
LARGE = bytes(range(256)) * 4096  # 1 MiB
FILE_SIZE = 10 << 20
CHUNK = b"one of a hundred chunks, which the client gets one after the other, 100 bytes each" + (
    b"." * 17 + b"\n"
)
CHUNKS = 100
SLEEP = 0.05
# The rounds of the loop in `compute` that take so long. They were measured once, with CPython 3.11
# on a processor of 2024, and are fixed, so that all servers and machines do the same work.
LOOPS_100US = 1_500
LOOPS_1MS = 15_000
BLOCK = 65536


def _headers(kind: str, size: int) -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Content-Length", str(size))]


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [HELLO]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Responds with values of the environ, so that the client notices a wrong environ."""
    content = "{PATH_INFO}?{QUERY_STRING} {HTTP_COOKIE}\n".format_map(environ).encode("latin-1")
    start_response("200 OK", _headers("text/plain", len(content)))
    return [content]


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the whole body and responds with its size; with the query `digest` also its SHA-256.

    A body without CONTENT_LENGTH is chunked. The application reads it to its end if the server says
    that this is possible.
    """
    read = environ["wsgi.input"].read
    if length := environ.get("CONTENT_LENGTH"):
        content = read(int(length))
    elif environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ:
        content = read()
    else:
        content = b""
    answer = b"%d" % len(content)
    if environ.get("QUERY_STRING") == "digest":
        answer += b" " + sha256(content).hexdigest().encode("ascii")
    start_response("200 OK", _headers("text/plain", len(answer)))
    return [answer]


def fields(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Sends twelve headers: these ten, and the two of every response."""
    start_response("200 OK", _headers("text/plain", len(HELLO)) + FIELDS)
    return [HELLO]


def large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", _headers("application/octet-stream", len(LARGE)))
    return [LARGE]


def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Sends no Content-Length, so the server has to frame the response."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(CHUNKS):
        yield CHUNK


def sleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Waits, like an application that waits for a database."""
    time.sleep(SLEEP)
    return hello(environ, start_response)


def waited(microseconds: int) -> bytes:
    """Return the response body of `wait`. All have the same size."""
    return b"waited %6d us\n" % microseconds


def wait(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Sleeps for the microseconds in the path, like an application that waits for a database."""
    microseconds = int(environ["PATH_INFO"][1:])
    if microseconds:
        time.sleep(microseconds / 1e6)
    content = waited(microseconds)
    start_response("200 OK", _headers("text/plain", len(content)))
    return [content]


def computed(loops: int) -> bytes:
    """Return the response body of `compute`."""
    total = 0
    for number in range(loops):
        total = (total * 31 + number) & 0xFFFFFFFF
    return b"%10d\n" % total


def compute(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Runs a loop in pure Python. The path is the number of rounds."""
    content = computed(int(environ["PATH_INFO"][1:]))
    start_response("200 OK", _headers("text/plain", len(content)))
    return [content]


def file_content() -> bytes:
    return LARGE * (FILE_SIZE // len(LARGE))


def _make_file() -> Path:
    """Return the file that `file` serves. The first process that needs the file creates it."""
    path = Path(tempfile.gettempdir()) / f"picowsgi-bench-{os.getuid()}.bin"
    if not path.exists() or path.stat().st_size != FILE_SIZE:
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(file_content())
        partial.replace(path)
    return path


def _blocks(opened: IO[bytes]) -> Iterator[bytes]:
    with opened:
        while block := opened.read(BLOCK):
            yield block


class _FileApplication:
    """Serves a file. The first request creates it, so other scenarios do not."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._path is None:
            self._path = _make_file()
        opened = self._path.open("rb")
        start_response("200 OK", _headers("application/octet-stream", FILE_SIZE))
        if wrapper := environ.get("wsgi.file_wrapper"):
            return wrapper(opened, BLOCK)  # type: ignore[no-any-return]
        return _blocks(opened)


file = _FileApplication()
