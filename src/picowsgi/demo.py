"""The page that is served where no application is named: the request, as an application sees it.

Never shows anything but the request to the client that sent it.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from picowsgi import __version__
from picowsgi.log import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_SHOWN_CONTENT = 1024  # bytes of posted content that the page shows
_READ_SIZE = 65536
_HTML = "text/html; charset=utf-8"
_JSON = "application/json; charset=utf-8"


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the demonstration page at `/`, and with the environ at `/environ.json`."""
    path = environ.get("PATH_INFO", "")
    page, methods = _PAGES.get(path, (_not_found_page, ("GET", "HEAD", "POST")))
    method = environ["REQUEST_METHOD"]
    if method not in methods:
        status, kind, text = "405 Method Not Allowed", _HTML, _not_allowed_page(method, methods)
    else:
        status, kind, text = page(environ)
    content = text.encode("utf-8")
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if status.startswith("405"):
        headers.append(("Allow", ", ".join(methods)))
    start_response(status, headers)
    return [] if method == "HEAD" else [content]


_Page = tuple[str, str, str]  # status, content type, text


def _request_page(environ: WSGIEnvironment) -> _Page:
    rows = "\n".join(
        f"<tr><th scope='row'>{_show(name)}</th><td>{_show(value)}</td></tr>"
        for name, value in sorted(environ.items())
    )
    body = f"""\
<h1>picowsgi <small>{escape(__version__)}</small></h1>
<p>It works. picowsgi is a WSGI server for Python with a core written in C.</p>
<h2>Serve your own application</h2>
<pre>picowsgi module:application</pre>
<p><code>module</code> is a module in the current directory, <code>application</code> the WSGI
application in it; <code>picowsgi "module:create_app()"</code> calls a factory, and
<code>picowsgi --help</code> lists the options.</p>
{_posted(environ)}<h2>This request</h2>
<p>The <code>environ</code> that your application would get
(<a href="environ.json">as JSON</a>):</p>
<div class="wide"><table>
{rows}
</table></div>"""
    return "200 OK", _HTML, _html("picowsgi", body)


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
    return "200 OK", _JSON, json.dumps(texts, indent=2) + "\n"


def _not_found_page(environ: WSGIEnvironment) -> _Page:
    path = _show(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    body = f"""\
<h1>Not found</h1>
<p>There is nothing at <code>{path}</code>. The demonstration is <a href="/">one page</a>.</p>"""
    return "404 Not Found", _HTML, _html("Not found", body)


def _not_allowed_page(method: str, methods: tuple[str, ...]) -> str:
    body = f"""\
<h1>Method not allowed</h1>
<p><code>{_show(method)}</code> is not for this page: use {escape(" or ".join(methods))}.</p>"""
    return _html("Method not allowed", body)


_PAGES: dict[str, tuple[Callable[[WSGIEnvironment], _Page], tuple[str, ...]]] = {
    "": (_request_page, ("GET", "HEAD", "POST")),
    "/": (_request_page, ("GET", "HEAD", "POST")),
    "/environ.json": (_environ_page, ("GET", "HEAD")),
}


def _show(value: Any) -> str:
    """Return a value of the environ as harmless HTML."""
    return escape(printable(value if isinstance(value, str) else repr(value)))


def _html(title: str, body: str) -> str:
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


_STYLE = """\
:root { --ink: #1d2329; --quiet: #59636e; --paper: #fbfbf9; --panel: #fff; --line: #d9dde2;
  --accent: #0b6e4f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --quiet: #98a2ad; --paper: #14171a; --panel: #1c2024; --line: #333a41;
    --accent: #5cc9a0; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 2.25rem; letter-spacing: -0.02em; }
h1 small { font-size: 1rem; font-weight: 500; letter-spacing: 0; color: var(--accent); }
h2 { margin: 2.5rem 0 0.5rem; font-size: 1.15rem; }
a { color: var(--accent); }
code, pre, table { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  font-size: 0.875rem; }
pre, .wide { border: 1px solid var(--line); border-radius: 0.5rem; background: var(--panel); }
pre { padding: 0.75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0.35rem 1rem; text-align: left; vertical-align: top; }
tr + tr > * { border-top: 1px solid var(--line); }
th { width: 1%; white-space: nowrap; font-weight: 500; color: var(--quiet); }
td { overflow-wrap: anywhere; }
"""
