"""An application as a function: the shortest thing that WSGI can serve.

Run it with one command, then open the address that it prints:

    picowsgi examples/function.py

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/?name=Ada
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Greet the person that the query string names."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    name = query.get("name", ["world"])[0]

    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    # One item in a list: the server knows the length and adds Content-Length.
    return [f"Hello, {name}!\n".encode()]
