"""The step between the server and the application that adds live reload, in development only.

Never changes a request or a response that is not for a page of the browser.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from picowsgi.app.live_reload.page import (
    Headers,
    Page,
    ask_for_plain_content,
    asks_for_page,
    extend_headers,
)
from picowsgi.app.live_reload.script import make_script
from picowsgi.app.pages.error import EXTEND_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from picowsgi.app.live_reload.channel import Channel

#: The path that the pages connect to.
ENDPOINT = "/__picowsgi__/live-reload"


class LiveReload:
    """An application whose pages have the script, and which answers the script too."""

    def __init__(self, application: WSGIApplication, channel: Channel) -> None:
        self.channel = channel
        self._application = application

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, /
    ) -> Iterable[bytes]:
        """Answer a request, as PEP 3333 says."""
        if environ.get("PATH_INFO") == ENDPOINT:
            return self._answer(environ, start_response)
        if not asks_for_page(environ):
            return self._application(environ, start_response)
        ask_for_plain_content(environ)
        path = quote(environ.get("SCRIPT_NAME", "").encode("latin-1") + ENDPOINT.encode())
        script = make_script(path, self.channel.version)
        extend = partial(
            extend_headers, script=script, host=environ.get("HTTP_HOST", ""), path=path
        )
        element = script.element

        def extend_page(headers: Headers, content: bytes) -> tuple[Headers, bytes]:
            extended = extend("500", headers)
            return (headers, content) if extended is None else (extended, content + element)

        environ[EXTEND_KEY] = extend_page
        page = Page(start_response, extend, element, any_html="HTTP_SEC_FETCH_DEST" in environ)
        return page.extend(self._application(environ, page.start_response))

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        detach: Any = environ.get("picowsgi.detach")
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY")
        if detach is not None and key:
            self.channel.connect(detach, key)
            return []
        content = self.channel.version.encode("ascii")
        start_response(
            "200 OK",
            [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(content))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]
