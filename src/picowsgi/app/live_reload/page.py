"""Adds the script at the end of a page, and changes the headers of the page accordingly.

Never holds back content, and never changes a byte of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from typing import TYPE_CHECKING, Any

from picowsgi.app.live_reload import policy

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from picowsgi.app.live_reload.script import Script

Headers = list[tuple[str, str]]

#: Requests that a script makes for a part of a page, in a browser that sends no Sec-Fetch-Dest.
_PARTS = ("HTTP_X_REQUESTED_WITH", "HTTP_HX_REQUEST", "HTTP_TURBO_FRAME")
#: Headers that describe other bytes than those with the script.
_OF_THE_CONTENT = frozenset(
    {"etag", "last-modified", "content-md5", "digest", "content-digest", "repr-digest"}
)
_POLICIES = frozenset({"content-security-policy", "content-security-policy-report-only"})
#: The statuses whose content is not a page, or not all of it.
_NO_PAGE = re.compile("1..|204|205|206|3..")
_BEGIN = re.compile(rb"<(!doctype|html)\b", re.IGNORECASE)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: The result of sys.exc_info() without an exception: another head may replace the first.
_NO_ERROR = (None, None, None)


def asks_for_page(environ: WSGIEnvironment) -> bool:
    """Return whether the browser will show the response as a whole page."""
    if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" in environ:
        return False  # a reload would send the form of a POST again
    destination = environ.get("HTTP_SEC_FETCH_DEST")
    if destination is not None:
        return bool(destination == "document")
    if any(name in environ for name in _PARTS):
        return False
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def ask_for_plain_content(environ: WSGIEnvironment) -> None:
    """Change a request so that the application answers with the whole page, not compressed."""
    for name in ("HTTP_ACCEPT_ENCODING", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"):
        environ.pop(name, None)


def extend_headers(
    status: str, headers: Headers, script: Script, host: str, path: str
) -> Headers | None:
    """Return the headers of the page with the script; None: the response cannot have it."""
    if _NO_PAGE.match(status) or not _is_page(headers):
        return None
    changed: Headers = []
    for name, value in headers:
        lower = name.lower()
        text: str | None = value
        if lower == "content-length":
            text = str(int(value) + len(script.element))
        elif lower in _POLICIES:
            text = policy.allow(value, script.hash, host, path)
        if text is None:
            return None
        if lower not in _OF_THE_CONTENT:
            changed.append((name, text))
    return changed


def _is_page(headers: Headers) -> bool:
    """Return whether the response has HTML that the browser shows, as it is, and that may grow."""
    values = {name.lower(): value.strip() for name, value in headers}
    length = values.get("content-length", "1")
    if not (length.isascii() and length.isdigit() and int(length)):
        return False
    if values.get("content-encoding", "identity").lower() != "identity":
        return False
    if values.get("content-disposition", "").lower().startswith("attachment"):
        return False
    return _is_html(values.get("content-type", ""))


def _is_html(kind: str) -> bool:
    """Return whether the content is HTML in an encoding that extends ASCII."""
    message = Message()
    message["content-type"] = kind
    if message.get_content_type() != "text/html" or "/" not in kind:
        return False
    charset = message.get_content_charset()
    if charset is None:
        return True
    # These have states, so the bytes of the script may mean something else at the end of a page.
    if charset.startswith(("utf-7", "utf7", "iso-2022", "iso2022", "hz")):
        return False
    try:
        return "<script>".encode(charset) == b"<script>"
    except (LookupError, UnicodeError):
        return False


def _begins_page(content: bytes) -> bool:
    """Return whether this is the beginning of a whole page, and not of a fragment."""
    content = content.removeprefix(codecs.BOM_UTF8).lstrip()
    while content.startswith(b"<!--"):
        content = content.partition(b"-->")[2].lstrip()
    return _BEGIN.match(content) is not None


class Page:
    """The response to a request for a page. It gets the script if it is a page, at its end."""

    def __init__(
        self,
        start_response: StartResponse,
        extend: Callable[[str, Headers], Headers | None],
        element: bytes,
        *,
        any_html: bool,
    ) -> None:
        """`extend` is `extend_headers` for this request, and `element` is the script.

        `any_html`: also content that does not begin as a whole page does is a page.
        """
        self._start_response: Any = start_response
        self._extend = extend
        self._element = element
        self._any_html = any_html
        #: The head of a page whose first content is not known yet.
        self._next_head: tuple[str, Headers] | None = None
        self._is_started = False
        #: What the server adds after the last content.
        self._rest = b""
        self._write: Callable[[bytes], object] | None = None

    def start_response(self, status: str, headers: Headers, *error: Any, **errors: Any) -> Any:
        """Start the response as the application wants it (PEP 3333).

        When the first content has come, another head replaces this one, if it is a page.
        """
        write = self._start_response(status, headers, *error, **errors)
        extended = self._extend(status, headers)
        self._next_head = None if extended is None else (status, extended)
        self._rest = b""
        self._is_started = True
        self._write = write
        return write if extended is None else self._write_content

    def _write_content(self, data: bytes) -> None:
        self.look_at(data)
        if self._write is not None:
            self._write(data)

    def look_at(self, data: bytes) -> None:
        """Decide by the first content, before it is sent, whether the response is a page."""
        if self._next_head is None or not data:
            return
        head, self._next_head = self._next_head, None
        first = bytes(data[:1024]) if isinstance(data, (bytes, bytearray, memoryview)) else b""
        if not first.startswith(_UTF_16) and (self._any_html or _begins_page(first)):
            self._start_response(*head, _NO_ERROR)
            self._rest = self._element

    def end(self) -> bytes:
        """Return the script, once, if the response is to have it."""
        rest, self._rest = self._rest, b""
        return rest

    def extend(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """Return the content, with the script at its end if it is a page."""
        if self._is_started and self._next_head is None and not self._rest:
            return result  # such as the server's own file_wrapper
        if type(result) in (list, tuple) and self._is_started:
            items: Any = result
            for item in items:
                self.look_at(item)
            rest = self.end()
            return [*items, rest] if rest else result
        return _Items(result, self)


class _Items:
    """The items of an iterable, each as soon as it comes, and the script."""

    def __init__(self, result: Iterable[bytes], page: Page) -> None:
        self._result = result
        self._page = page
        self._items: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._items = iter(self._result)
        return self

    def __next__(self) -> bytes:
        if self._items is None:
            self._items = iter(self._result)
        try:
            item = next(self._items)
        except StopIteration:
            rest = self._page.end()
            if not rest:
                raise
            return rest
        self._page.look_at(item)
        return item

    def close(self) -> None:
        close = getattr(self._result, "close", None)
        if close is not None:
            close()
