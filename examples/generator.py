"""An application as a generator function: content leaves piece by piece, as it is made.

The length of the page is not known in advance, so the server sends it in chunks. (For an HTTP/1.0
client it closes the connection after the page.) The `finally` runs at the end of the response:
after the last row, after an error, or when the client has disconnected.

    picowsgi examples/generator.py

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/?rows=100000
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Stream a table of numbers, their squares and their cubes."""
    wanted = parse_qs(environ.get("QUERY_STRING", "")).get("rows", ["10"])[0]
    if not (wanted.isascii() and wanted.isdigit()):
        start_response("400 Bad Request", [("Content-Type", "text/plain; charset=utf-8")])
        yield b"rows must be a whole number\n"
        return

    start_response("200 OK", [("Content-Type", "text/csv; charset=utf-8")])
    sent = 0
    try:
        yield b"number,square,cube\n"
        for number in range(1, int(wanted) + 1):
            yield f"{number},{number**2},{number**3}\n".encode()
            sent = number
    finally:
        print(f"sent {sent} of {wanted} rows", file=environ.get("wsgi.errors", sys.stderr))
