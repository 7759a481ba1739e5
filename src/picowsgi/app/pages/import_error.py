"""The page that answers every request while the application cannot be loaded, with the reason.

Never runs code of the application.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from picowsgi.app.pages import template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from picowsgi.errors import AppImportError

_TITLE = "The application cannot be loaded"
_HINT = "The server loads it again as soon as one of its files changes."


def failure_page(error: AppImportError) -> WSGIApplication:
    """Return an application that answers with the error: HTML if the client asks for it."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if template.prefers_html(environ):
            kind, text = template.HTML, _html(error)
        else:
            parts = (f"{_TITLE}: {error}", error.application_traceback.rstrip("\n"), _HINT)
            kind, text = template.TEXT, "\n\n".join(filter(None, parts)) + "\n"
        content = text.encode("utf-8", "backslashreplace")
        start_response("500 Internal Server Error", template.headers(kind, content))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    return application


def _html(error: AppImportError) -> str:
    body = (
        f"<h1>{_TITLE}</h1>\n<p>{escape(str(error))}</p>\n"
        f"<pre>{escape(error.application_traceback)}</pre>\n<p>{_HINT}</p>"
    )
    return template.html(_TITLE, body)
