"""The application of the scenario `database`: each request sends a query to a stand-in.

Each thread has its own connection, as with a database driver that threads cannot share.
The environment variable `BENCH_DATABASE` is the path of the stand-in's socket (bench/c/stand_in.c).
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

_local = threading.local()


def query(item: str) -> bytes:
    """Ask for one item. Raises ConnectionError if the stand-in closes the connection."""
    connection: socket.socket | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.environ["BENCH_DATABASE"])
    connection.sendall(b"%b\n" % item.encode("ascii"))
    answer = b""
    while not answer.endswith(b"\n"):
        more = connection.recv(100)
        if not more:
            raise ConnectionError("the stand-in has closed the connection")
        answer += more
    return answer


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    content = query(environ["PATH_INFO"][1:])
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))]
    start_response("200 OK", headers)
    return [content]
