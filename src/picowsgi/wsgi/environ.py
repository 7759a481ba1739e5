"""The environ of a request (PEP 3333, "environ Variables"), from the block that the core wrote.

Never sees an invalid message, and never the same request twice: what a client sent before is
known again by the core, and its environ copied from a template.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from picowsgi import core
from picowsgi.core import unpack
from picowsgi.system.cpus import has_gil
from picowsgi.wsgi.input import NO_CONTENT, ErrorStream, open_spooled
from picowsgi.wsgi.key_order import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed.wsgi import WSGIEnvironment


def base_environ(sock: socket.socket, extensions: Mapping[str, Any]) -> WSGIEnvironment:
    """Return what all requests that come in by `sock` have in common."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = sock.getsockname()[:2]
    else:
        host, port = "localhost", 80  # a unix socket has neither, and PEP 3333 wants both
    return {
        "REQUEST_METHOD": "GET",  # as long as the core says nothing else; and the next two
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


class SharedState:
    """What the serving threads of one server keep for its connections, together."""

    def __init__(self, server: core.CoreServer) -> None:
        #: By the number the core returns for "the same head as the one of this template".
        self.templates: dict[int, WSGIEnvironment] = {}
        #: The same by the number for "the same head, but for what the block holds".
        self.changed: dict[int, WSGIEnvironment] = {}
        #: The same by the number for "the same head, and content in memory".
        self.with_content: dict[int, WSGIEnvironment] = {}
        #: By the number of the exchange: content that the core may still read.
        self.loans = server.loans
        #: Held while news are taken and acted upon, and while a template is put in: what the news
        #: say must not undo what has come after them.
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
        # The core says it again until it is done: a signal handler may raise in between.
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
        #: The temporary file with the content of the current request; to be closed at its end.
        self.spooled: BinaryIO | None = None

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
        except ValueError:  # PATH_INFO comes last because it alone may hold NUL
            fill(environ, text.split("\0", len(values[0])))
        return environ

    def _make_other(self, number: int) -> WSGIEnvironment:
        """Return the environ of one that is not the commonest."""
        template = self._with_content.get(number)
        if template is not None:
            environ = template.copy()
            environ["wsgi.input"] = self._open_content()
            return environ
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
        """Return the environ of a block with names that have no number."""
        request = self._request
        text = self._block[: request.block_size].decode("latin-1")
        order = text.partition("\0")[0]
        environ: WSGIEnvironment = self._bases[request.listener].copy()
        _fill_slowly(environ, order, iter(text.split("\0", len(order))[1:]))
        environ["RAW_URI"] = environ["REQUEST_URI"]
        return environ

    def close_spooled(self) -> None:
        """Close the temporary file of the request that has ended."""
        spooled, self.spooled = self.spooled, None
        if spooled is not None:
            # The application may have closed the descriptor, or detached the object from it.
            with suppress(OSError, ValueError):
                spooled.close()

    def _add_content(self, environ: WSGIEnvironment, number: int) -> None:
        if number & core.IN_FILE:
            environ["wsgi.input"] = self.spooled = open_spooled(self._request)
        else:
            environ["wsgi.input"] = self._open_content()

    def _open_content(self) -> BytesIO:
        """Return the input for content that is in memory."""
        request = self._request
        length = request.content_length
        return BytesIO(unpack(request.content, length) if length else b"")


def _fill_slowly(environ: WSGIEnvironment, order: str, values: Iterator[str]) -> None:
    """Fill in values that have names without a number among their keys."""
    named = []
    for number, value in zip(order, values, strict=True):
        if ord(number) == core.OTHER_NAME:
            named.append(value)
        else:
            environ[core.KEYS[ord(number)]] = value
    for key_and_value in named:
        key, _, value = key_and_value.partition("\1")
        # Only with --underscore-fields allow: X_Name beside X-Name.
        environ[key] = f"{environ[key]},{value}" if key in environ else value
