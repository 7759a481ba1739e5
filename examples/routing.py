"""Path routing as a decorator over several applications: one address, many of them.

Each application is mounted under a prefix, and its own paths begin at the root. The router moves
the prefix from PATH_INFO to SCRIPT_NAME (PEP 3333, "environ Variables"), so the application can
make links to itself. The longest prefix wins, and a prefix matches whole segments (`/hello` is not
`/hellos`).

    picowsgi examples/routing.py

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/hello/Ada
    curl -d 'some text' http://127.0.0.1:8000/api/length
    curl -i -X DELETE http://127.0.0.1:8000/hello     # 405, and Allow says what would do
    curl -i http://127.0.0.1:8000/nowhere             # 404
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Router:
    """A WSGI application that hands each request to the application mounted at its path."""

    def __init__(self) -> None:
        self._mounts: dict[str, tuple[frozenset[str], WSGIApplication]] = {}

    def mount(self, prefix: str, *methods: str) -> Callable[[WSGIApplication], WSGIApplication]:
        """Return a decorator that mounts an application under prefix.

        methods are the request methods that it answers, GET if none is named; HEAD comes with GET.
        """
        allowed = frozenset(methods or ["GET"])
        if "GET" in allowed:
            allowed |= {"HEAD"}

        def decorator(application: WSGIApplication) -> WSGIApplication:
            self._mounts[prefix.rstrip("/")] = (allowed, application)
            return application

        return decorator

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        prefix = self._longest_prefix(path)
        if prefix is None:
            return plain("404 Not Found", "nothing is mounted here\n", start_response)

        allowed, application = self._mounts[prefix]
        if environ["REQUEST_METHOD"] not in allowed:
            allow = ", ".join(sorted(allowed))
            return plain(
                "405 Method Not Allowed", f"try {allow}\n", start_response, ("Allow", allow)
            )

        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
        environ["PATH_INFO"] = path[len(prefix) :]
        return application(environ, start_response)

    def _longest_prefix(self, path: str) -> str | None:
        """Cut the last segment off path until something is mounted at what is left."""
        prefix = path.rstrip("/")
        while prefix and prefix not in self._mounts:
            prefix = prefix.rpartition("/")[0]
        if prefix:
            return prefix
        # The application at "/" serves the root alone, not all paths without an application.
        return "" if path in ("", "/") and "" in self._mounts else None


def plain(
    status: str, text: str, start_response: StartResponse, *fields: tuple[str, str]
) -> list[bytes]:
    """Answer with a short text."""
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *fields])
    return [text.encode()]


router = Router()


@router.mount("/")
def index(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return plain("200 OK", "try /hello/NAME and /api/length\n", start_response)


@router.mount("/hello")
def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/").encode("latin-1").decode("utf-8", "replace")
    return plain("200 OK", f"Hello, {name or 'world'}!\n", start_response)


@router.mount("/api")
def about(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    here = environ["SCRIPT_NAME"]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"length": f"{here}/length"}).encode() + b"\n"]


@router.mount("/api/length", "POST")
def length(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"bytes": len(content)}).encode() + b"\n"]


application = router
