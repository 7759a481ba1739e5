"""The environ of a request (PEP 3333, "environ Variables"), from the block that the core wrote.

Never sees an invalid request, and never decodes the same head twice: the core recognises a head
that a client has sent before, and this module copies its environ from a template.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from picowsgi import core
from picowsgi.core import unpack
from picowsgi.system.cpus import has_gil
from picowsgi.wsgi.detach import Connection
from picowsgi.wsgi.input import NO_CONTENT, ErrorStream, open_spooled
from picowsgi.wsgi.key_order import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed.wsgi import WSGIEnvironment


def base_environ(sock: socket.socket, extensions: Mapping[str, Any]) -> WSGIEnvironment:
    """Return the part of the environ that all requests of the listening socket `sock` share."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = sock.getsockname()[:2]
    else:
        host, port = "localhost", 80  # a unix socket has neither, and PEP 3333 requires both
    return {
        # The core sends these three values only if they differ.
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": "picowsgi",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": NO_CONTENT,
        "wsgi.input_terminated": True,
        "wsgi.errors": ErrorStream(),
        "wsgi.run_once": False,
        **extensions,
    }


class Closeable(Protocol):
    """An object of one request that is closed at the request's end."""

    def close(self) -> object:
        """Close it. May raise OSError or ValueError."""


class SharedState:
    """The templates and loans that the serving threads of one server share."""

    def __init__(self, server: core.CoreServer) -> None:
        #: The templates, by the core's number for "the same head as that of this template".
        self.templates: dict[int, WSGIEnvironment] = {}
        #: The templates, by the number for "the same head, except for the values in the block".
        self.changed: dict[int, WSGIEnvironment] = {}
        #: The templates, by the number for "the same head, and content in memory".
        self.with_content: dict[int, WSGIEnvironment] = {}
        #: Content that the core may still read, by the number of the exchange.
        self.loans = server.loans
        #: Held while a thread takes and handles news, or stores a template. Otherwise old news
        #: could remove a newer template.
        self.lock = threading.Lock()

    def take_news(self, thread: core.CoreThread) -> None:
        """Release the objects that the core does not need any more."""
        with self.lock:
            self._take_news(thread)

    def put_template(self, thread: core.CoreThread, entry: int, environ: WSGIEnvironment) -> None:
        """Keep an environ as the template of an entry of the core's cache."""
        with self.lock:
            self._take_news(thread)
            self.templates[entry] = self.changed[entry | core.CHANGED] = environ
            self.with_content[entry | core.CONTENT] = environ

    def _take_news(self, thread: core.CoreThread) -> None:
        # The core repeats a message until news_done, because a signal handler may raise in between.
        while (news := core.next_news(thread.pointer)) >= 0:
            if news & core.NEWS_MASK == core.NEWS_SENT:
                loan = self.loans.pop(news >> core.NEWS_SHIFT, None)
                if loan is not None and not has_gil():
                    owner, loan = loan[0](), None
                    if owner is not None and owner is not thread:
                        core.nudge(owner.pointer)
            else:
                entry = news >> core.NEWS_SHIFT << core.ENTRY_SHIFT
                self.templates.pop(entry, None)
                self.changed.pop(entry | core.CHANGED, None)
                self.with_content.pop(entry | core.CONTENT, None)
            core.news_done(thread.pointer)


class EnvironMaker:
    """Makes the environ of each request of one serving thread.

    `bases` has one environ for each listening socket.
    """

    def __init__(
        self, thread: core.CoreThread, bases: list[WSGIEnvironment], shared: SharedState
    ) -> None:
        self._thread = thread
        self._bases = bases
        self._shared = shared
        self._templates = shared.templates
        self._changed = shared.changed
        self._with_content = shared.with_content
        self._request = thread.request
        self._block = thread.block
        self._block_size = thread.block_size
        self._orders = Orders(bases)
        self._known_orders = self._orders.known
        self._has_one_base = len(bases) == 1
        #: What is closed at the end of the current request: the temporary file with its content, or
        #: the connection that the application may take.
        self.resource: Closeable | None = None

    def make(self, number: int) -> WSGIEnvironment:
        """Return the environ of the request that the core described by `number` (csrc/api.h)."""
        template = None
        if number != core.NEW:
            template = self._changed.get(number)
            if template is None:
                return self._make_other(number)
        text = self._block[: self._block_size[0]].decode("latin1")
        values = text.split("\0")
        try:
            fill, blanks = self._known_orders[values[0]]
        except KeyError:
            fill, blanks = self._orders.learn(values[0])
        if template is not None:
            environ = template.copy()
        elif self._has_one_base:
            environ = blanks[0].copy()
        else:
            environ = blanks[self._request.listener].copy()
        try:
            fill(environ, values)
        except ValueError:  # PATH_INFO has a NUL; it comes last because no other value can have one
            fill(environ, text.split("\0", len(values[0])))
        return environ

    def _make_other(self, number: int) -> WSGIEnvironment:
        """Return the environ of a request of a less common kind."""
        template = self._with_content.get(number)
        if template is not None:
            environ = template.copy()
            environ["wsgi.input"] = self._open_content()
            return environ
        if number & core.UPGRADE:
            return self._make_upgrade(number & ~core.UPGRADE)
        if number & core.NEWS:
            self._shared.take_news(self._thread)
        kind = number & core.KIND
        entry = number & core.ENTRY_BITS
        if kind == core.SAME:
            environ = self._templates[entry].copy()
        elif kind == core.CHANGED:
            environ = self.make(entry | kind)
        else:
            environ = self._make_slowly() if number & core.OTHER_NAMES else self.make(core.NEW)
            if kind == core.STORE:
                self._shared.put_template(self._thread, entry, environ.copy())
        if number & core.CONTENT:
            self._add_content(environ, number)
        return environ

    def _make_slowly(self) -> WSGIEnvironment:
        """Return the environ of a block with header names that have no number."""
        request = self._request
        text = self._block[: request.block_size].decode("latin-1")
        order = text.partition("\0")[0]
        environ: WSGIEnvironment = self._bases[request.listener].copy()
        _fill_slowly(environ, order, iter(text.split("\0", len(order))[1:]))
        environ["RAW_URI"] = environ["REQUEST_URI"]
        return environ

    def _make_upgrade(self, number: int) -> WSGIEnvironment:
        """Return the environ of a request whose client asks for another protocol."""
        environ = self.make(number)
        self.resource = connection = Connection(self._thread.pointer, self._request.exchange)
        environ.update(connection.offer())
        return environ

    def close_resource(self) -> None:
        """Close the temporary file, or the connection, of a request that has ended."""
        resource, self.resource = self.resource, None
        if resource is not None:
            # The application may have closed the descriptor, or detached the object from it.
            with suppress(OSError, ValueError):
                resource.close()

    def _add_content(self, environ: WSGIEnvironment, number: int) -> None:
        if number & core.IN_FILE:
            environ["wsgi.input"] = self.resource = open_spooled(self._request)
        else:
            environ["wsgi.input"] = self._open_content()

    def _open_content(self) -> BytesIO:
        """Return the input for content that is in memory."""
        request = self._request
        length = request.content_length
        return BytesIO(unpack(request.content, length) if length else b"")


def _fill_slowly(environ: WSGIEnvironment, order: str, values: Iterator[str]) -> None:
    """Fill in the values of a block in which some keys have no number."""
    named = []
    for number, value in zip(order, values, strict=True):
        if ord(number) == core.OTHER_NAME:
            named.append(value)
        else:
            environ[core.KEYS[ord(number)]] = value
    for key_and_value in named:
        key, _, value = key_and_value.partition("\1")
        # The key may exist with --underscore-fields allow, as for X_Name and X-Name.
        environ[key] = f"{environ[key]},{value}" if key in environ else value
