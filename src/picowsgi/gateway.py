"""One request through the application and back (PEP 3333).

Never touches a socket, and never has more than one request at a time.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.environ import EnvironMaker, base_environ
from picowsgi.errors import ResponseError
from picowsgi.log import get_logger, printable
from picowsgi.response import FileWrapper, Head, HeadEncoder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_ERROR_HEADERS = [("Content-Type", "text/plain; charset=utf-8")]
_ERROR_BODY = b"Internal Server Error\n"


class ClientGone(Exception):
    """The client is not there any more; nobody is told of it but the application's close()."""


class Response:
    """What the application says about one response, and how far it has been sent."""

    #: None until start_response is called.
    head: Head | None = None
    #: The head has been handed to the core: it cannot be changed any more.
    started = False
    #: Bytes of content that the Content-Length still allows; -1: it does not say.
    left = -1
    #: The application gave more content than its Content-Length.
    overflow = False
    #: The request is over: start_response and write come too late.
    over = False

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        #: Large content that the core may still read, the oldest first.
        self.held: deque[bytes] | None = None

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Any:
        """Set the head (PEP 3333); returns `write`."""
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no reference cycle
        elif self.head is not None:
            raise ResponseError("start_response is called again without exc_info")
        if self.over:
            raise ResponseError("start_response is called after the end of the request")
        self.head = self._gateway.encode(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send content at once (PEP 3333, "The write() Callable")."""
        if self.over:
            raise ResponseError("write is called after the end of the request")
        self.send(data)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send content, and the head before the first of it; waits for a slow client.

        Raises ClientGone.
        """
        if type(data) is not bytes:
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise ResponseError(f"content must be bytes, not {type(data).__name__}")
            data = bytes(data)
        if not data:
            return
        if not self.started:
            self.begin()
        if self.left >= 0:
            if len(data) > self.left:
                self.overflow = True
                data = data[: self.left]
            self.left -= len(data)
        borrowed = core.send_data(self._gateway.thread, data, len(data), flags)
        if borrowed < 0:
            raise ClientGone
        if borrowed or self.held:
            self._hold(data, borrowed)

    def begin(self) -> None:
        """Hand the head to the core; it leaves with the first content."""
        head = self.head
        if head is None:
            raise ResponseError("the application has not called start_response")
        self.started = True
        self.left = head.length
        data, flags, length = head
        if core.send_head(self._gateway.thread, data, len(data), length, flags) < 0:
            raise ClientGone

    def _hold(self, data: bytes, borrowed: int) -> None:
        """Keep what the core may still read, and let go of the rest (csrc/api.h)."""
        if self.held is None:
            self.held = deque()
        if len(data) > core.COPY_MOST:
            self.held.append(data)
        while len(self.held) > borrowed:
            self.held.popleft()


class Gateway:
    """Runs the requests of one serving thread through `application`."""

    def __init__(
        self,
        application: WSGIApplication,
        thread: core.CoreThread,
        sockets: Sequence[socket.socket],
    ) -> None:
        self.application = application
        self.thread: Any = thread.pointer
        self._request = thread.request
        self.encode = HeadEncoder().encode
        self._held: dict[int, object] = {}
        bases = [base_environ(sock, self._extensions()) for sock in sockets]
        self.environs = EnvironMaker(thread, bases, self._release)

    def _extensions(self) -> dict[str, Any]:
        """Return what an environ holds that depends on this gateway."""
        return {
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.early_hints": self.early_hints,
            "picowsgi.client_disconnected": self.client_disconnected,
            "waitress.client_disconnected": self.client_disconnected,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
        }

    def _release(self, connection: int) -> None:
        """Let go of what was kept for a connection: the core has sent it."""
        self._held.pop(connection, None)

    def client_disconnected(self) -> bool:
        """Tell whether the client of this thread's request has closed its side or is gone."""
        return bool(core.client_gone(self.thread))

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send an interim response 103 with these fields (RFC 8297)."""
        head = HeadEncoder().encode("103 Early Hints", headers).data + b"\r\n"
        core.send_interim(self.thread, head, len(head))

    def serve(self, environ: WSGIEnvironment) -> int:
        """Run one request and send its response; returns the number of the next one."""
        response = Response(self)
        try:
            result = self.application(environ, response.start_response)
        except BaseException as error:
            return self._fail(environ, response, None, error)
        kind = type(result)
        if (kind is list or kind is tuple) and len(result) == 1 and not response.started:  # type: ignore[arg-type]
            body = result[0]  # type: ignore[index]
            head = response.head
            if type(body) is bytes and head is not None:
                data, flags, length = head
                if length < 0 or length == len(body):
                    response.over = True
                    if self.environs.spooled is not None:
                        self.environs.close_spooled()
                    number: int = core.respond(
                        self.thread, data, len(data), body, len(body), flags
                    )
                    if number == core.HOLD:
                        self._held[self._request.connection] = head, body
                        return core.next_request(self.thread)  # type: ignore[no-any-return]
                    return number
        return self._serve_parts(environ, response, result)

    def _serve_parts(self, environ: WSGIEnvironment, response: Response, result: Any) -> int:
        """Send the items of an iterable one after the other."""
        try:
            if isinstance(result, FileWrapper) and self._send_file(response, result):
                pass
            elif isinstance(result, (list, tuple)):
                self._send_list(response, result)
            else:
                for item in result:
                    response.send(item)
                    if response.overflow:
                        break
            if not response.started:
                response.begin()
        except BaseException as error:
            return self._fail(environ, response, result, error)
        return self._end(environ, response, result)

    def _send_list(self, response: Response, items: list[bytes] | tuple[bytes, ...]) -> None:
        """Send what is in memory already: without waiting for the client."""
        if len(items) == 1 and response.head is not None and not response.started:
            # Here only because its length is wrong, or it is no plain bytes.
            if response.head.length < 0 and isinstance(items[0], (bytearray, memoryview)):
                items = [bytes(items[0])]
        for item in items:
            response.send(item, core.FINISHED)
            if response.overflow:
                break

    def _send_file(self, response: Response, wrapper: FileWrapper) -> bool:
        """Send a real file by sendfile, from where it stands; False where it is none."""
        try:
            descriptor = wrapper.filelike.fileno()
            status = os.fstat(descriptor)
            offset = wrapper.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        size = max(status.st_size - offset, 0)
        if response.head is not None and response.head.length < 0 and not response.started:
            response.head = response.head._replace(
                data=response.head.data + b"Content-Length: %d\r\n" % size, length=size
            )
        if not response.started:
            response.begin()
        if response.left >= 0:
            size = min(size, response.left)
            response.left -= size
        elif size:
            return False  # chunks cannot be made of a file without reading it
        if core.send_file(self.thread, descriptor, offset, size) < 0:
            raise ClientGone
        return True

    def _end(self, environ: WSGIEnvironment, response: Response, result: Any) -> int:
        """All items are sent: close, compare the length, and go on."""
        self._close(environ, response, result)
        cut = False
        if response.overflow:
            cut = True
            self._complain(environ, "more content than its Content-Length says; the rest is cut")
        elif response.left > 0 and environ["REQUEST_METHOD"] != "HEAD":
            if response.head is not None and not response.head.data.startswith(
                (b"HTTP/1.1 304", b"HTTP/1.1 204", b"HTTP/1.1 1")
            ):
                cut = True
                self._complain(
                    environ, f"{response.left} bytes less than its Content-Length says"
                )
        return self._finish(response, cut)

    def _finish(self, response: Response, cut: bool) -> int:
        response.over = True
        connection = self._request.connection
        if core.send_end(self.thread, cut) > 0:
            self._held[connection] = response.held
        return core.next_request(self.thread)  # type: ignore[no-any-return]

    def _close(self, environ: WSGIEnvironment, response: Response, result: Any) -> None:
        """Call the iterable's close(), and free the request's content."""
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:
                self._log(environ, "in close()", error)
        if self.environs.spooled is not None:
            self.environs.close_spooled()

    def _fail(
        self, environ: WSGIEnvironment, response: Response, result: Any, error: BaseException
    ) -> int:
        """End a request whose application raised an error, or whose client has gone."""
        if isinstance(error, ClientGone):
            get_logger().debug("the client has gone: %s", _request_line(environ))
        else:
            self._log(environ, "in the application", error)
        self._close(environ, response, result)
        if response.started:
            return self._finish(response, cut=True)
        head = self.encode("500 Internal Server Error", _ERROR_HEADERS)
        response.over = True
        number: int = core.respond(
            self.thread, head.data, len(head.data), _ERROR_BODY, len(_ERROR_BODY), head.flags
        )
        return number

    def _log(self, environ: WSGIEnvironment, where: str, error: BaseException) -> None:
        get_logger().error("error %s: %s", where, _request_line(environ), exc_info=error)

    def _complain(self, environ: WSGIEnvironment, text: str) -> None:
        get_logger().error("the application sent %s: %s", text, _request_line(environ))


def _request_line(environ: WSGIEnvironment) -> str:
    return printable(f"{environ.get('REQUEST_METHOD')} {environ.get('REQUEST_URI')}")
