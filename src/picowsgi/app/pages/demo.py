"""The demonstration page, for a command without an application: it shows the request's environ.

Never shows a client anything but its own request.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from picowsgi import DOCUMENTATION, __version__
from picowsgi.app.pages.logo import SVG
from picowsgi.app.pages.template import HTML, JSON, headers, html, show, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_SHOWN_CONTENT = 1024  # bytes of posted content that the page shows
_READ_SIZE = 65536


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the demonstration page at `/`, and with the environ at `/environ.json`."""
    path = environ.get("PATH_INFO", "")
    page, methods = _PAGES.get(path, (_not_found_page, ("GET", "HEAD", "POST")))
    method = environ["REQUEST_METHOD"]
    if method not in methods:
        status, kind, text = "405 Method Not Allowed", HTML, _not_allowed_page(method, methods)
    else:
        status, kind, text = page(environ)
    content = text.encode("utf-8")
    fields = headers(kind, content)
    if status.startswith("405"):
        fields.append(("Allow", ", ".join(methods)))
    start_response(status, fields)
    return [] if method == "HEAD" else [content]


_Page = tuple[str, str, str]  # status, content type, text


def _request_page(environ: WSGIEnvironment) -> _Page:
    body = f"""\
<h1>{SVG}picowsgi <small>{escape(__version__)}</small></h1>
<p>It works. picowsgi is a WSGI server for Python with a core written in C.</p>
<h2>Serve your own application</h2>
<pre>picowsgi module:application</pre>
<p><code>module</code> is a module in the current directory, <code>application</code> the WSGI
application in it; <code>picowsgi "module:create_app()"</code> calls a factory, and
<code>picowsgi --help</code> lists the options. Read the
<a href="{escape(DOCUMENTATION)}">documentation</a>.</p>
{_posted(environ)}<h2>This request</h2>
<p>Your application would get this <code>environ</code>
(<a href="environ.json">as JSON</a>):</p>
{table(environ)}"""
    return "200 OK", HTML, html("picowsgi", body)


def _posted(environ: WSGIEnvironment) -> str:
    """Return the section about the request's content; empty unless it is a POST."""
    if environ["REQUEST_METHOD"] != "POST":
        return ""
    length, first = _read(environ)
    rest = f", the first {_SHOWN_CONTENT}" if length > _SHOWN_CONTENT else ""
    shown = escape(repr(first)[2:-1])
    return f"<h2>Content</h2>\n<p>{length} bytes{rest}:</p>\n<pre>{shown}</pre>\n"


def _read(environ: WSGIEnvironment) -> tuple[int, bytes]:
    """Read the content; return its length and its first bytes."""
    try:
        left = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        left = 0
    length, first = 0, b""
    while left > 0:
        data = environ["wsgi.input"].read(min(left, _READ_SIZE))
        if not data:
            break
        first += data[: _SHOWN_CONTENT - len(first)]
        length += len(data)
        left -= len(data)
    return length, first


def _environ_page(environ: WSGIEnvironment) -> _Page:
    texts = {name: value for name, value in sorted(environ.items()) if isinstance(value, str)}
    return "200 OK", JSON, json.dumps(texts, indent=2) + "\n"


def _not_found_page(environ: WSGIEnvironment) -> _Page:
    path = show(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    body = f"""\
<h1>Not found</h1>
<p>There is nothing at <code>{path}</code>. The demonstration is <a href="/">one page</a>.</p>"""
    return "404 Not Found", HTML, html("Not found", body)


def _not_allowed_page(method: str, methods: tuple[str, ...]) -> str:
    body = f"""\
<h1>Method not allowed</h1>
<p><code>{show(method)}</code> is not for this page: use {escape(" or ".join(methods))}.</p>"""
    return html("Method not allowed", body)


_PAGES: dict[str, tuple[Callable[[WSGIEnvironment], _Page], tuple[str, ...]]] = {
    "": (_request_page, ("GET", "HEAD", "POST")),
    "/": (_request_page, ("GET", "HEAD", "POST")),
    "/environ.json": (_environ_page, ("GET", "HEAD")),
}
