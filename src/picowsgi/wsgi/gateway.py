"""One request through the application and back (PEP 3333).

Never touches a socket, and never has more than one request at a time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.errors import ClientGoneError, NoConnectionError
from picowsgi.log import get_logger, request_line
from picowsgi.system import fork_guard
from picowsgi.wsgi.environ import EnvironMaker, SharedState
from picowsgi.wsgi.request_id import id_of
from picowsgi.wsgi.request_timeout import calls_application, checkpoint
from picowsgi.wsgi.response import FileWrapper, Response, real_file, to_bytes
from picowsgi.wsgi.response_head import Head, HeadEncoder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


def _no_count(_response: object) -> int:
    return 0


#: PyPy has no reference counts. There no count ever allows to use a response again.
getrefcount: Callable[[object], int] = getattr(sys, "getrefcount", _no_count)

_current = threading.local()

_ENDED = -100  # returned instead of the next request's number, which is not known yet

MakePage = Callable[["WSGIEnvironment", BaseException], tuple[list[tuple[str, str]], bytes]]


_ERROR_STATUS = "500 Internal Server Error"
_ERROR_PAGE = [("Content-Type", "text/plain; charset=utf-8")], b"Internal Server Error\n"


def _no_page(
    _environ: WSGIEnvironment, _error: BaseException
) -> tuple[list[tuple[str, str]], bytes]:
    """Return the headers and the body of an error response, which does not describe the error."""
    return _ERROR_PAGE


@contextmanager
def keep_current() -> Iterator[None]:
    """Restore this thread's gateway at the end, after another one has served in between."""
    outer = getattr(_current, "gateway", None)
    try:
        yield
    finally:
        _current.gateway = outer


def client_disconnected() -> bool:
    """Return whether the client of the calling thread's request has disconnected.

    A client that has only closed its side counts as disconnected too. In a thread that the
    application has started itself there is no request, and the result is always False, so that the
    thread finishes its work.
    """
    gateway = getattr(_current, "gateway", None)
    return gateway is not None and bool(core.client_gone(gateway.thread))


def early_hints(headers: list[tuple[str, str]]) -> None:
    """Send an interim response 103 for the calling thread's request (RFC 8297).

    The function sends nothing if the response has begun, or in a thread that the application has
    started itself, which has no request. It checks the headers in any case.

    Args:
        headers: pairs of name and value.

    Raises:
        ResponseError: a header is not valid.
    """
    head = HeadEncoder().encode_interim("103 Early Hints", headers)
    gateway = getattr(_current, "gateway", None)
    if gateway is not None:
        core.send_interim(gateway.thread, head, len(head))


#: The keys of an environ that PEP 3333 does not require.
EXTENSIONS = {
    "wsgi.file_wrapper": FileWrapper,
    "wsgi.early_hints": early_hints,
    "picowsgi.client_disconnected": client_disconnected,
    "waitress.client_disconnected": client_disconnected,
}


class Gateway:
    """Runs the requests of one serving thread, which makes the gateway, through `application`."""

    response = Response
    _make_page: MakePage = staticmethod(_no_page)

    def __init__(
        self,
        application: WSGIApplication,
        thread: core.CoreThread,
        bases: list[WSGIEnvironment],
        shared: SharedState,
        flags: int = 0,
        *,
        debug: bool = False,
    ) -> None:
        """Every response gets the additional `flags` (csrc/api.h).

        `debug`: the client gets the traceback of an error.
        """
        self.application = application
        self.thread: Any = thread.pointer
        self._use(HeadEncoder(flags))
        self.environs = EnvironMaker(thread, bases, shared)
        self._request = thread.request
        #: Whether to cut the response that has ended (a response in parts).
        self._cut = False
        self._process = os.getpid()
        self._core_thread = thread
        self._shared = shared
        if debug:
            from picowsgi.app.pages.error import make_page

            self._make_page = make_page
        _current.gateway = self

    def _use(self, encoder: HeadEncoder) -> None:
        self.encode = encoder.encode
        #: A response that is used again while no other object refers to it: see `serve`.
        self._response = self.response(self.thread, self.encode)
        self._alone = self._count_references()
        #: The response to an internal error, made now because memory may be short then.
        self._failure = encoder.encode(_ERROR_STATUS, _ERROR_PAGE[0]), _ERROR_PAGE[1]

    def _count_references(self) -> int:
        """Return the result of `getrefcount` for a response that only the gateway refers to."""
        response = self._response  # as in `serve`
        return getrefcount(response) if getrefcount is not _no_count else -1

    def run(self) -> None:
        """Serve requests until the server stops. An error ends only its own request."""
        number: int = core.IDLE
        while number != core.STOP:
            try:
                number = self._run(number)
            except BaseException as error:
                number = self._recover(error)
        self.leave_child()

    def _run(self, number: int) -> int:
        """Serve requests, beginning with the one of this number. Returns core.STOP."""
        serve, make, templates = self.serve, self.environs.make, self._shared.templates
        # CPython 3.11 optimizes the code of a loop only if the loop ends with an unconditional
        # jump, and this function is called once. Therefore the condition is in the middle.
        while True:
            template = templates.get(number)
            if template is not None:
                number = serve(template.copy())
            elif number >= 0:
                number = serve(make(number))
            elif number == _ENDED:
                number = core.finish(self.thread, self._cut)
            elif number == core.STOP:
                return number
            else:
                self._shared.take_news(self._core_thread)
                number = core.next_request(self.thread)

    def leave_child(self, error: BaseException | None = None) -> None:
        """End this process if it is a child that the application has forked."""
        if os.getpid() != self._process:
            fork_guard.leave_child(error)

    def serve(self, environ: WSGIEnvironment) -> int:
        """Run one request and send its response. Returns the number of the next request."""
        # To make a new Response takes a tenth of the time of a small request. Therefore the last
        # one is used again, but only if it has sent nothing in parts, and no other object refers to
        # it: the application by `start_response` or `write`, a thread, or a traceback.
        response = self._response
        if getrefcount(response) != self._alone or response.exchange:
            response = self._response = self.response(self.thread, self.encode)
        response.head = None
        response.over = False
        application = self.application
        try:
            result = application(environ, response.start_response)
            kind = type(result)  # also a checkpoint
        except BaseException as error:
            return self._fail(environ, response, None, error)
        head = response.head
        if (kind is list or kind is tuple) and head is not None and not response.started:
            items: Any = result
            if len(items) < 2:
                body = items[0] if items else b""
                if type(body) is bytes and (head.length < 0 or head.length == len(body)):
                    number = self._serve_whole(response, head, body)
                    if number != core.STARTED:
                        return number
        return self._serve_parts(environ, response, result)

    def _serve_whole(self, response: Response, head: Head, body: bytes) -> int:
        """Send a response that is complete in memory, and fetch the next request in the same call.

        Sends nothing and returns core.STARTED if another thread has sent a part by `write`.
        """
        response.over = True
        if self.environs.resource is not None:
            self.environs.close_resource()
        data, flags = head.data, head.flags
        size = len(body)
        if size > core.COPY_MOST:
            if core.BYTES_MOVE:
                body = core.pin(body)
            self._lend(body)
        number: int = core.respond(self.thread, data, len(data), body, size, flags)
        return number

    def _lend(self, pieces: Any) -> None:
        """Keep bytes that the core may read until it names the exchange.

        The order of the steps is such that an exception at any point leaks nothing (csrc/api.h).
        Earlier loans of the exchange stay too, because after an exception it is not known whether
        the core has got them.
        """
        request = self._request
        request.lends = 1
        loans = self._shared.loans
        number = request.exchange
        loans[number] = self._core_thread.owner, (pieces, loans.get(number))

    def _serve_parts(self, environ: WSGIEnvironment, response: Response, result: Any) -> int:
        """Send the items of an iterable one after the other."""
        response.exchange = self._request.exchange
        try:
            if not (isinstance(result, FileWrapper) and self._send_file(response, result)):
                self._send_items(response, result)
            if not response.started:
                response.begin()
            checkpoint()
        except BaseException as error:
            return self._fail(environ, response, result, error)
        self._close(environ, result)
        if response.overflow:
            self._complain(environ, "more content than its Content-Length says; the rest is cut")
            return self._finish(response, cut=True)
        if not response.complete:
            missing = self._content_missing()
            if missing > 0:
                self._complain(environ, f"{missing} bytes less than its Content-Length says")
                return self._finish(response, cut=True)
        return self._finish(response, cut=False)

    def _send_items(self, response: Response, result: Any) -> None:
        if isinstance(result, (list, tuple)) and _has_its_items(result):
            self._send_list(response, result)
            return
        for item in result:
            response.send(item)
            if response.enough:
                break

    def _send_list(self, response: Response, result: list[bytes] | tuple[bytes, ...]) -> None:
        """Send items that are in memory, without waiting for the client."""
        lent: list[Any] = []
        for item in result:
            data: Any = item if type(item) is bytes else to_bytes(item)
            size = len(data)
            if size > core.COPY_MOST:
                if core.BYTES_MOVE:
                    data = core.pin(data)
                if not lent:
                    self._lend(lent)
                lent.append(data)
            response.send_sized(data, size, core.FINISHED)
            if response.enough:
                break

    def _content_missing(self) -> int:
        """Return the number of bytes that are missing from the Content-Length."""
        missing: int = core.content_missing(self.thread)
        return missing

    def _send_file(self, response: Response, wrapper: FileWrapper) -> bool:
        """Send a real file by sendfile, from its position. Return False if it must be read."""
        file = real_file(wrapper.filelike)
        if file is None:
            return False
        offset = file.tell()
        size = max(os.fstat(file.fileno()).st_size - offset, 0)
        if response.head is not None and response.head.length < 0 and not response.started:
            response.head = response.head.with_length(size)
        if not response.started:
            response.begin()
        outcome = core.send_file(self.thread, file.fileno(), offset, size)
        if outcome == core.GONE:
            raise ClientGoneError
        return bool(outcome != core.REFUSED)

    def _finish(self, response: Response, *, cut: bool) -> int:
        """End a response in parts. `run` does the rest, when no variable refers to the response."""
        response.over = True
        self._cut = cut
        return _ENDED

    def _close(self, environ: WSGIEnvironment, result: Any) -> None:
        """Call `close` of the iterable, and free the content of the request."""
        try:
            close = getattr(result, "close", None)
            if close is not None:
                close()
                checkpoint()
        except BaseException as error:
            self.leave_child(error)
            self._log(environ, "in close()", error)
        if self.environs.resource is not None:
            self.environs.close_resource()

    def _fail(
        self, environ: WSGIEnvironment, response: Response, result: Any, error: BaseException
    ) -> int:
        """End a request whose application raised an error, or whose client has gone."""
        self.leave_child(error)
        if isinstance(error, ClientGoneError) or self._is_after_detach(error):
            get_logger().debug(
                "the client has gone: %s",
                request_line(environ),
                extra={"request_id": id_of(environ)},
            )
        elif isinstance(error, NoConnectionError):
            self._note(error)
            get_logger().error("%s: %s", error, request_line(environ))
        else:
            self._log(environ, "in the application", error)
        self._close(environ, result)
        if response.started:
            return self._finish(response, cut=True)
        try:
            headers, body = self._make_page(environ, error)
            head = self.encode(_ERROR_STATUS, headers)
        except BaseException as second:
            self._log(environ, "in the page for an error", second)
            head, body = self._failure
        number = self._serve_whole(response, head, body)
        return number if number != core.STARTED else self._finish(response, cut=True)

    def _is_after_detach(self, error: BaseException) -> bool:
        """Return whether the application ends a request in this way whose connection it has taken.

        Its client has gone, or the application raises StopIteration, as it does under gunicorn if
        there is no response.
        """
        is_usual = isinstance(error, (ConnectionError, StopIteration))
        return is_usual and bool(self.response.is_detached(self.thread, self._request.exchange))

    def _log(self, environ: WSGIEnvironment, where: str, error: BaseException) -> None:
        """Log an error with its traceback. Raises no exception, not even one of a log handler."""
        self._note(error)
        try:
            get_logger().error(
                "error %s: %s",
                where,
                request_line(environ),
                exc_info=error,
                extra={"request_id": id_of(environ)},
            )
        except BaseException as second:
            self._note(second)

    def _note(self, error: BaseException) -> None:
        """Do nothing. A subclass may keep the error; each error that ends a request comes here."""

    def _complain(self, environ: WSGIEnvironment, text: str) -> None:
        get_logger().error(
            "the application sent %s: %s",
            text,
            request_line(environ),
            extra={"request_id": id_of(environ)},
        )

    def _recover(self, error: BaseException) -> int:
        """Continue after an error of the server itself, such as no memory. Returns as `serve`."""
        try:
            get_logger().critical("an internal error ended a request", exc_info=error)
        except BaseException as second:
            self._note(second)
        while True:
            try:
                return self._abandon()
            except BaseException as second:
                self._note(second)

    def _abandon(self) -> int:
        """End the current request, if there is one, with a 500. Cut a response that has begun.

        Returns as `serve` does.
        """
        state = core.request_state(self.thread)
        number: int = core.IDLE
        if state == core.REQUEST_WAITS:
            head, body = self._failure
            data = head.data
            number = core.respond(self.thread, data, len(data), body, len(body), head.flags)
        if state == core.REQUEST_BEGUN or number == core.STARTED:
            core.send_end(self.thread, True)
            number = core.IDLE
        return number


calls_application(Gateway.serve, Gateway._serve_parts, Gateway._send_items, Gateway._close)


def _has_its_items(result: list[bytes] | tuple[bytes, ...]) -> bool:
    """Return whether an iteration gives the items that the sequence holds.

    A subclass may have another iterator, which may make items without an end.
    """
    kind = type(result)
    return kind.__iter__ is list.__iter__ or kind.__iter__ is tuple.__iter__
