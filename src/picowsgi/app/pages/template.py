"""The layout of picowsgi's own pages. Never decides about their text."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from picowsgi.app.pages.logo import ADDRESS
from picowsgi.log import printable

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"

#: A page loads no other resource, and runs no script.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def headers(kind: str, content: bytes) -> list[tuple[str, str]]:
    """Return the headers of a page of this content type."""
    return [
        ("Content-Type", kind),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", _POLICY),
        ("X-Content-Type-Options", "nosniff"),
    ]


def prefers_html(environ: Mapping[str, Any]) -> bool:
    """Return whether the client asks for HTML, and not for plain text."""
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def table(values: Mapping[str, Any]) -> str:
    """Return an environ, or another mapping, as a table in HTML."""
    rows = "\n".join(
        f"<tr><th scope='row'>{show(name)}</th><td>{show(value)}</td></tr>"
        for name, value in sorted(values.items())
    )
    return f'<div class="wide"><table>\n{rows}\n</table></div>'


def show(value: Any) -> str:
    """Return a value of the environ as escaped HTML."""
    return escape(printable(value if isinstance(value, str) else repr(value)))


def html(title: str, body: str) -> str:
    """Return a whole page; `title` is text, `body` is HTML."""
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{ADDRESS}">
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
h1 svg { width: 1.15em; height: 1.15em; margin-right: 0.1em; vertical-align: -0.22em; }
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
@media (max-width: 40rem) {
  th, td { display: block; width: auto; }
  th { padding-bottom: 0; white-space: normal; overflow-wrap: anywhere; }
  td { padding-top: 0; }
  tr + tr > td { border-top: 0; }
}
"""
