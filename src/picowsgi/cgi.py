"""Run an application once, as a CGI script (RFC 3875), through the same gateway as the server.

    #!/usr/bin/env python3
    import picowsgi.cgi
    from mysite import application

    picowsgi.cgi.run(application)

Never opens a socket: the request is in the process's environment and its standard input, and the
response goes to its standard output.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from picowsgi import core
from picowsgi.log import configure, get_logger
from picowsgi.wsgi.detach import offer_nothing
from picowsgi.wsgi.gateway import Gateway
from picowsgi.wsgi.input import NO_CONTENT, ErrorStream
from picowsgi.wsgi.response import FileWrapper, Response
from picowsgi.wsgi.response_head import Head, HeadEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_BARE = re.compile(rb"HTTP/1\.1 (204|304) ")


def run(
    application: WSGIApplication,
    *,
    environ: Mapping[str, str] = os.environ,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> None:
    """Answer the request that the web server started this process for.

    If the application raises an exception, the response has status 500, and the traceback goes to
    standard error. If nothing reads the response, the function closes the application's iterable
    and returns as usual. Output of `print` goes to standard error.

    Args:
        application: a WSGI application (PEP 3333).
        environ: the request's variables (RFC 3875 section 4.1).
        stdin: a binary stream with the request's body, of which at most `CONTENT_LENGTH` bytes are
            read (RFC 3875 section 4.2). None: standard input.
        stdout: a binary stream for the response, which begins with `Status:` (RFC 3875 section
            6.3.3). None: standard output.
    """
    if not get_logger().hasHandlers():
        configure("info")
    if stdin is None:
        stdin = getattr(sys.stdin, "buffer", None)
    if stdout is None:
        stdout = getattr(sys.stdout, "buffer", None)
    output = _Output(stdout, environ.get("REQUEST_METHOD", "GET"))
    gateway = _CGIGateway(application, output)
    with redirect_stdout(sys.stderr):  # output of the application is not part of the response
        gateway.answer(environ, stdin)


def _make_environ(variables: Mapping[str, str], stdin: BinaryIO | None) -> WSGIEnvironment:
    """Return the environ (PEP 3333, "environ Variables"): text whose characters are bytes."""
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
    }
    for name, value in variables.items():
        environ[name] = os.fsencode(value).decode("latin-1")
    encrypted = environ.get("HTTPS", "").lower() in ("on", "1", "yes", "true")
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if encrypted else environ.get("REQUEST_SCHEME", "http"),
            "wsgi.input": _make_input(environ.get("CONTENT_LENGTH", ""), stdin),
            "wsgi.input_terminated": True,
            "wsgi.errors": ErrorStream(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": True,
            "wsgi.file_wrapper": FileWrapper,
        }
    )
    if "HTTP_UPGRADE" in environ:
        environ.update(offer_nothing())
    return environ


def _make_input(length: str, stdin: BinaryIO | None) -> BinaryIO:
    """Return the input with `length` bytes of body. RFC 3875 section 4.2: read no more of it."""
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else 0
    return io.BufferedReader(_Limited(stdin, size)) if size else NO_CONTENT


class _Limited(io.RawIOBase):
    """The first `size` bytes of a stream."""

    def __init__(self, stream: BinaryIO | None, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._stream is None:
            raise OSError(errno.EBADF, "standard input is closed")
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class _Output:
    """Standard output, where a head begins with `Status:` (RFC 3875 section 6.3.3)."""

    def __init__(self, stream: BinaryIO | None, method: str) -> None:
        """`stream` None: there is no standard output."""
        self._stream = stream
        self.method = method
        self.begun = False
        self._failed = stream is None
        self._wanted = True
        self._has_length = False
        #: Bytes of content that are still missing from the Content-Length.
        self.missing = 0

    def send_head(self, head: bytes, length: int) -> bool:
        """Send a head that ends without an empty line. Return False if no content may follow.

        `length` is its Content-Length, or -1.
        """
        self.begun = True
        self._wanted = self.method != "HEAD" and not _BARE.match(head)
        self.missing = max(length, 0) if self._wanted else 0
        self._has_length = length >= 0
        self._write(b"Status:%b\r\n" % head.removeprefix(b"HTTP/1.1"))
        return self._wanted

    def send(self, data: bytes) -> int:
        """Send content; returns what the core returns (`pw_send_data` in csrc/api.h)."""
        if not self._wanted:
            return core.UNWANTED
        outcome = 0
        if self._has_length:
            if len(data) > self.missing:
                outcome = core.OVERFLOW
            elif len(data) == self.missing:
                outcome = core.COMPLETE
            data = data[: self.missing]
            self.missing -= len(data)
        self._write(data)
        return core.GONE if self._failed else outcome

    def _write(self, data: bytes) -> None:
        if self._stream is None or self._failed:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._failed = True
            if not isinstance(error, BrokenPipeError):
                get_logger().error("the response cannot be written: %s", error)
            self._give_up()

    def _give_up(self) -> None:
        """Drop the buffer of standard output. Python would fail to write it at exit."""
        own = sys.__stdout__
        if own is None or self._stream is not own.buffer:
            return
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), own.fileno())
            own.flush()


class _CGIResponse(Response):
    """A response that goes to an `_Output` instead of the core."""

    __slots__ = ()

    @staticmethod
    def send_first(output: _Output, _exchange: int, *head_and_data: Any) -> int:
        head, _size, length, _head_flags, data, *_ = head_and_data
        return output.send(data) if output.send_head(head, length) else core.UNWANTED

    @staticmethod
    def send_data(output: _Output, _exchange: int, data: bytes, _size: int, _flags: int) -> int:
        return output.send(data)

    @staticmethod
    def check_client(output: _Output, _exchange: int) -> int:
        return core.UNWANTED if output.method == "HEAD" else 0

    @staticmethod
    def current_exchange(_output: _Output) -> int:
        return 0

    @staticmethod
    def is_detached(_output: _Output, _exchange: int) -> int:
        return 0


class _NoResource:
    """Replaces the gateway's `EnvironMaker`: a script has nothing to close at a request's end."""

    resource = None


class _NoNumber:
    """Replaces the core's request: a script has no number of an exchange."""

    exchange = 0


class _CGIGateway(Gateway):
    """Runs one request, and returns."""

    response = _CGIResponse

    def __init__(self, application: WSGIApplication, output: _Output) -> None:
        self.application = application
        self.thread = output
        self.environs: Any = _NoResource
        self._request: Any = _NoNumber
        self._process = os.getpid()
        self._use(HeadEncoder())

    def answer(self, variables: Mapping[str, str], stdin: BinaryIO | None) -> None:
        """Answer the request; the answer to an internal error is a 500."""
        try:
            self.serve(_make_environ(variables, stdin))
        except Exception as error:
            self._recover(error)

    def _serve_whole(self, response: Response, head: Head, body: bytes) -> int:
        response.over = True
        # RFC 9110 section 8.6: the Content-Length for a HEAD is the length of a GET's content. If
        # the application returns no content for a HEAD, that length is not known.
        is_known = bool(body) or self.thread.method != "HEAD"
        if head.length < 0 and is_known and not _BARE.match(head.data):
            head = head.with_length(len(body))
        self.thread.send_head(head.data, head.length)
        self.thread.send(body)
        return core.IDLE

    def _content_missing(self) -> int:
        missing: int = self.thread.missing
        return missing

    def _send_items(self, response: Response, result: Any) -> None:
        for item in result:
            response.send(item)
            if response.enough:
                break

    def _send_file(self, _response: Response, _wrapper: FileWrapper) -> bool:
        return False

    def _finish(self, response: Response, *, cut: bool) -> int:  # noqa: ARG002
        response.over = True
        return core.IDLE

    def _abandon(self) -> int:
        if not self.thread.begun:
            head, body = self._failure
            self.thread.send_head(head.data, head.length)
            self.thread.send(body)
        return core.IDLE
