"""The applications that the servers of this package serve."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

TEXT = ("Content-Type", "text/plain; charset=utf-8")
BLOCK = hashlib.sha512(b"soak").digest() * 1_024  # 64 KiB
LARGE = BLOCK * 48
HINTS = [("Link", "</style.css>; rel=preload")]


def uploads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the length of the content, and leave it unread."""
    start_response("200 OK", [TEXT])
    return [environ["CONTENT_LENGTH"].encode()]


def files(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send the file of the current directory that the path names."""
    file = Path(environ["PATH_INFO"].lstrip("/")).open("rb")  # noqa: SIM115 (the wrapper closes it)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](file)  # type: ignore[no-any-return]


def mixed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Respond in each possible way, as the path says."""
    return ANSWERS.get(environ["PATH_INFO"], not_found)(environ, start_response)


def not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [TEXT])
    return [b"not found"]


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [b"hello " + environ["QUERY_STRING"].encode()]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    digest = hashlib.sha256()
    while block := environ["wsgi.input"].read(1 << 16):
        digest.update(block)
    start_response("200 OK", [TEXT])
    return [f"{environ.get('CONTENT_LENGTH')} {digest.hexdigest()}".encode()]


def large(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [LARGE]


def parts(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [LARGE[at : at + 20_000] for at in range(0, len(LARGE), 20_000)]


def streamed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.early_hints"](HINTS)
    start_response("200 OK", [TEXT])
    for at in range(0, len(LARGE), 50_000):
        yield LARGE[at : at + 50_000]


def written(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [TEXT, ("Content-Length", str(len(LARGE)))])
    for _ in range(0, len(LARGE) // 2, len(BLOCK)):
        write(BLOCK)
    return [LARGE[len(LARGE) // 2 :]]


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = Path("large")
    if not path.exists():
        temporary = Path(f"large.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_bytes(LARGE)
        temporary.rename(path)
    start_response("200 OK", [TEXT])
    return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]


def blocking(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(0.02)
    start_response("200 OK", [TEXT])
    return [b"blocked"]


def failing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("as it is meant to")


def breaking(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    yield b"one"
    raise RuntimeError("as it is meant to")


ANSWERS: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/": hello,
    "/echo": echo,
    "/large": large,
    "/parts": parts,
    "/streamed": streamed,
    "/written": written,
    "/file": file,
    "/blocking": blocking,
    "/failing": failing,
    "/breaking": breaking,
}
