"""The page with the traceback, for a request whose application has failed under `--debug`.

Never made without `--debug`, because a traceback shows the source code.
"""

from __future__ import annotations

import traceback
from html import escape
from typing import TYPE_CHECKING

from picowsgi.app.pages.template import HTML, TEXT, headers, html, prefers_html, table
from picowsgi.log import printable, printable_lines, request_line

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The key of a function in the environ that adds to the page. It gets and returns headers and body.
EXTEND_KEY = "picowsgi.extend_error_page"


def make_page(
    environ: WSGIEnvironment, error: BaseException
) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body: HTML if the client asks for it, else plain text."""
    # The first frame is the server's own.
    frames = error.__traceback__ and (error.__traceback__.tb_next or error.__traceback__)
    lines = printable_lines("".join(traceback.format_exception(type(error), error, frames)))
    line = request_line(environ)
    if prefers_html(environ):
        kind, text = HTML, _page(environ, line, lines, printable(type(error).__name__))
    else:
        kind, text = TEXT, f"Internal Server Error: {line}\n\n{lines}"
    content = text.encode("utf-8", "backslashreplace")
    fields = headers(kind, content)
    extend = environ.get(EXTEND_KEY)
    return (fields, content) if extend is None else extend(fields, content)


def _page(environ: WSGIEnvironment, line: str, lines: str, name: str) -> str:
    # The `repr` of an object that the application has added may fail.
    texts = {key: value for key, value in environ.items() if type(value) is str}
    body = f"""\
<h1>{escape(name)} <small>500 Internal Server Error</small></h1>
<p>The application failed at <code>{escape(line)}</code>:</p>
<pre>{escape(lines)}</pre>
<p>You see this page because of <code>--debug</code>. The error log has the traceback too.</p>
<h2>This request</h2>
{table(texts)}"""
    return html(f"{name} at {line}", body)
