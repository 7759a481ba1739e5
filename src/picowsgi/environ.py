"""The environ of a request (PEP 3333, "environ Variables"), from the block that the core wrote.

Never sees an invalid message, and never the same request twice: what a client sent before is
known again by the core, and its environ copied from a template.
"""

from __future__ import annotations

import io
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from picowsgi import core
from picowsgi.cpus import has_gil
from picowsgi.input import NO_CONTENT, ErrorStream, open_spooled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed.wsgi import WSGIEnvironment

_KNOWN_ORDERS = 1024  # how many orders of fields are remembered


def base_environ(sock: socket.socket, extensions: Mapping[str, Any]) -> WSGIEnvironment:
    """Return what all requests that come in by `sock` have in common."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = sock.getsockname()[:2]
    else:
        host, port = "localhost", 80  # a unix socket has neither, and PEP 3333 wants both
    return {
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


class Kept:
    """What the serving threads of one server keep for its connections, together."""

    def __init__(self, server: core.CoreServer) -> None:
        #: By the number the core returns for "the same head as the one of this template".
        self.templates: dict[int, WSGIEnvironment] = {}
        #: By the number of the exchange: content that the core may still read.
        self.loans = server.loans
        #: Held while news are taken and acted upon, and while a template is put in: what the news
        #: say must not undo what has come after them.
        self.lock = threading.Lock()

    def take_news(self, thread: core.CoreThread) -> None:
        """Let go of what the core says is not needed any more."""
        with self.lock:
            self._take_news(thread)

    def put_template(self, thread: core.CoreThread, entry: int, environ: WSGIEnvironment) -> None:
        """Keep an environ as the template of an entry of the core's cache."""
        with self.lock:
            self._take_news(thread)
            self.templates[entry] = environ

    def _take_news(self, thread: core.CoreThread) -> None:
        # The core says it again until it is done: a signal handler may raise in between.
        while (news := core.next_news(thread.pointer)) >= 0:
            if news & 1 == core.NEWS_SENT:
                loan = self.loans.pop(news >> 1, None)
                if loan is not None and not has_gil():
                    owner, loan = loan[0](), None
                    if owner is not None and owner is not thread:
                        core.nudge(owner.pointer)
            else:
                self.templates.pop((news >> 1) << core.ENTRY_SHIFT, None)
            core.news_done(thread.pointer)


class EnvironMaker:
    """Makes the environ of each request of one serving thread.

    `bases` has one environ for each listening socket.
    """

    def __init__(self, thread: core.CoreThread, bases: list[WSGIEnvironment], kept: Kept) -> None:
        self._thread = thread
        self._bases = bases
        self._kept = kept
        self._templates = kept.templates
        self._block = thread.block
        #: By the numbers of their keys: the keys, and for each listening socket an environ that has
        #: them, so that no dict has to grow while it is filled in.
        self._orders: dict[str, tuple[tuple[str, ...], list[WSGIEnvironment]]] = {}
        self._has_one_base = len(bases) == 1
        #: The temporary file with the content of the request at hand; to be closed at its end.
        self.spooled: BinaryIO | None = None

    def make(self, number: int) -> WSGIEnvironment:
        """Return the environ of the request that the core described by `number` (csrc/api.h)."""
        if number & core.NEWS:
            self._kept.take_news(self._thread)
        kind = number & core.KIND
        if kind == core.SAME:
            environ = self._templates[number & core.ENTRY_BITS].copy()
        else:
            # PATH_INFO comes last because it alone may hold NUL.
            text = str(self._block[: number >> core.SIZE_SHIFT], "latin-1")
            values = iter(text.split("\0", number >> core.VALUES_SHIFT & core.VALUES_MASK))
            order = next(values)
            if number & core.OTHER_NAMES:
                environ = self._bases[self._thread.request.listener].copy()
                _fill_slowly(environ, order, values)
            else:
                keys, environs = self._orders.get(order) or self._learn(order)
                if kind == core.CHANGED:
                    environ = self._templates[number & core.ENTRY_BITS].copy()
                elif self._has_one_base:
                    environ = environs[0].copy()
                else:
                    environ = environs[self._thread.request.listener].copy()
                environ.update(zip(keys, values))  # noqa: B905 (as many by construction)
            environ["RAW_URI"] = environ["REQUEST_URI"]
            if kind == core.STORE:
                entry = number & core.ENTRY_BITS
                self._kept.put_template(self._thread, entry, environ.copy())
        if number & core.CONTENT:
            self._add_content(environ)
        return environ

    def close_spooled(self) -> None:
        """Close the temporary file of the request that has ended."""
        spooled, self.spooled = self.spooled, None
        if spooled is not None:
            # The application may have closed the descriptor, or detached the object from it.
            with suppress(OSError, ValueError):
                spooled.close()

    def _learn(self, order: str) -> tuple[tuple[str, ...], list[WSGIEnvironment]]:
        if len(self._orders) >= _KNOWN_ORDERS:
            self._orders.clear()
        keys = tuple(core.KEYS[ord(number)] for number in order)
        blank = dict.fromkeys((*keys, "RAW_URI"))
        known = self._orders[order] = keys, [{**base, **blank} for base in self._bases]
        return known

    def _add_content(self, environ: WSGIEnvironment) -> None:
        request = self._thread.request
        length = request.content_length
        if request.content_file >= 0:
            environ["wsgi.input"] = self.spooled = open_spooled(request)
        else:
            content = core.unpack(request.content, length) if length else b""
            environ["wsgi.input"] = io.BytesIO(content)


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
