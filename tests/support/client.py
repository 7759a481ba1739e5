"""A raw HTTP/1 client for the tests: sends exact bytes, reads strictly, always times out.

It knows nothing of picowsgi. It connects to any object with a `port`.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TIMEOUT = 10.0

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ([\t \x21-\x7e\x80-\xff]*)")
_FIELD_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*"
)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;.*)?")


class Addressed(Protocol):
    """Any object that listens on a TCP port of this machine."""

    @property
    def port(self) -> int: ...


@dataclass(frozen=True)
class Response:
    """One final response; `interim` holds the statuses of the 1xx responses that came before it."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    content: bytes
    complete: bool
    interim: tuple[int, ...] = ()

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The one value of the field `name`, or None; a second such field fails the test."""
        values = self.values(name)
        assert len(values) <= 1, f"expected at most one field {name}, got {values}"
        return values[0] if values else None

    def tokens(self, name: str) -> list[str]:
        """The members of a comma-separated field, in lower case."""
        members = [part.strip().lower() for part in ",".join(self.values(name)).split(",")]
        return [member for member in members if member]


class RawClient:
    """A TCP connection without Nagle's algorithm, which reads while it sends: no deadlocks.

    `receive_buffer` makes the system keep only about so many bytes that have not been read.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        timeout: float = TIMEOUT,
        receive_buffer: int | None = None,
    ) -> None:
        self.timeout = timeout
        self._received = bytearray()
        self._unread = bytearray()
        self._ended: str | None = None
        self._socket = socket.socket(socket.AF_INET)
        self._socket.settimeout(timeout)
        if receive_buffer is not None:  # before the connect, which negotiates the window
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self.local_port: int = self._socket.getsockname()[1]

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def received(self) -> bytes:
        """Every byte that has arrived so far."""
        return bytes(self._received)

    def wait_for_bytes(self) -> None:
        """Wait until a response has begun."""
        if not self._unread:
            self._fill(time.monotonic() + self.timeout, "the first bytes of a response")

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def half_close(self) -> None:
        """Shut the sending side. It is no error here if the peer has already disconnected."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def send(self, data: bytes) -> bool:
        """Send all of `data`; return False if the peer has closed and takes no more of it."""
        view = memoryview(data)
        deadline = time.monotonic() + self.timeout
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, "room to send")
            except (BrokenPipeError, ConnectionResetError):
                return False
        return True

    def read_response(self, method: str = "GET") -> Response:
        """Return the next final response. `method` is that of its request: HEAD has no content."""
        deadline = time.monotonic() + self.timeout
        interim: list[int] = []
        while True:
            status, reason, fields = self._read_head(deadline)
            if status == 101 or status >= 200:
                break
            interim.append(status)
        head = Response(status, reason, fields, b"", True, tuple(interim))
        if method == "HEAD" or status in (101, 204, 304):
            return head
        content, complete = self._read_content(head, deadline)
        return Response(status, reason, fields, content, complete, tuple(interim))

    def read_interim(self) -> int:
        """Return the status of the expected next 1xx response."""
        status, reason, _ = self._read_head(time.monotonic() + self.timeout)
        assert 100 <= status < 200, f"expected an interim response, got {status} {reason}"
        return status

    def is_over(self) -> bool:
        """Wait for the next byte or for the end of the connection; return True at the end."""
        return not self._unread and not self._fill(time.monotonic() + self.timeout, "a response")

    def read_some(self, most: int) -> int:
        """Receive at most `most` bytes that have arrived, and return their number. Never waits."""
        before = len(self._unread)
        if self._ended is None:
            self._receive(most)
        return len(self._unread) - before

    def end(self) -> str:
        """Read up to the end of the connection; return "closed" or "reset"."""
        deadline = time.monotonic() + self.timeout
        while self._fill(deadline, "the connection to end"):
            pass
        assert self._ended is not None
        return self._ended

    def read_to_end(self) -> bytes:
        """Return all bytes up to the expected orderly close."""
        deadline = time.monotonic() + self.timeout
        while self._fill(deadline, "the connection to be closed"):
            pass
        assert self._ended == "closed", (
            f"expected an orderly close, got {self._ended} after {bytes(self._received[-300:])!r}"
        )
        return self._take(len(self._unread))

    def read_nothing_more(self) -> None:
        """Check that the connection closes in an orderly way, without another byte."""
        rest = self.read_to_end()
        assert not rest, f"expected the end, got {len(rest)} bytes: {rest[:300]!r}"

    def _read_head(self, deadline: float) -> tuple[int, str, list[tuple[str, str]]]:
        line = self._read_line(deadline, "a status line")
        match = _STATUS_LINE.fullmatch(line)
        assert match, f"expected a status line, got {line!r}"
        fields: list[tuple[str, str]] = []
        while line := self._read_line(deadline, "a field line or the end of the response head"):
            field = _FIELD_LINE.fullmatch(line)
            assert field, f"expected a field line, got {line!r}"
            fields.append((field[1].decode("ascii"), field[2].decode("latin-1")))
        return int(match[1]), match[2].decode("latin-1"), fields

    def _read_content(self, head: Response, deadline: float) -> tuple[bytes, bool]:
        coding, length = head.value("Transfer-Encoding"), head.value("Content-Length")
        assert coding is None or length is None, f"expected one kind of framing, got {head.fields}"
        if coding is not None:
            assert coding == "chunked", f"expected the coding chunked, got {coding!r}"
            return self._read_chunked(deadline)
        if length is not None:
            assert re.fullmatch("[0-9]+", length), f"expected a length in digits, got {length!r}"
            size = int(length)
            while len(self._unread) < size:
                if not self._fill(deadline, f"{size} bytes of content"):
                    return self._take(len(self._unread)), False
            return self._take(size), True
        while self._fill(deadline, "the close that ends the content"):
            pass
        return self._take(len(self._unread)), self._ended == "closed"

    def _read_chunked(self, deadline: float) -> tuple[bytes, bool]:
        content = bytearray()
        while True:
            if not self._await_line(deadline):
                return bytes(content), False
            line = self._read_line(deadline, "a chunk size")
            match = _CHUNK_SIZE.fullmatch(line)
            assert match, f"expected a chunk size, got {line!r}"
            size = int(match[1], 16)
            if size == 0:
                break
            while len(self._unread) < size + 2:
                if not self._fill(deadline, f"a chunk of {size} bytes"):
                    content += self._take(min(size, len(self._unread)))
                    return bytes(content), False
            content += self._take(size)
            ending = self._take(2)
            assert ending == b"\r\n", f"expected CRLF after a chunk, got {ending!r}"
        while self._await_line(deadline):
            if not self._read_line(deadline, "the end of the trailer section"):
                return bytes(content), True
        return bytes(content), False

    def _await_line(self, deadline: float) -> bool:
        while b"\n" not in self._unread:
            if not self._fill(deadline, "a line of the chunked content"):
                return False
        return True

    def _read_line(self, deadline: float, wanted: str) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            assert self._fill(deadline, wanted), (
                f"expected {wanted}, but the connection was {self._ended} "
                f"after {bytes(self._received[-300:])!r}"
            )
        line = self._take(end + 1)
        assert line.endswith(b"\r\n"), f"expected {wanted} to end with CRLF, got {line!r}"
        return line[:-2]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken

    def _fill(self, deadline: float, wanted: str) -> bool:
        """Wait for more bytes; return False at the end of the connection."""
        while self._ended is None:
            before = len(self._unread)
            self._receive()
            if len(self._unread) > before:
                return True
            if self._ended is None:
                self._wait(select.POLLIN, deadline, wanted)
        return False

    def _receive(self, most: int = 1 << 16) -> None:
        try:
            data = self._socket.recv(most)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self._ended = "reset"
            return
        if not data:
            self._ended = "closed"
        self._received += data
        self._unread += data

    def _wait(self, event: int, deadline: float, wanted: str) -> None:
        """Wait for `event`. While it waits for room to send, it reads the bytes that arrive."""
        events = event | (select.POLLIN if self._ended is None else 0)
        self._poll.register(self._socket, events)
        left = deadline - time.monotonic()
        ready = self._poll.poll(max(0.0, left) * 1000)
        assert ready, (
            f"expected {wanted} within {self.timeout:g} s; received so far "
            f"({len(self._received)} bytes): {bytes(self._received[-300:])!r}"
        )
        if event == select.POLLOUT and self._ended is None:
            self._receive()


def connect(server: Addressed) -> RawClient:
    return RawClient(server.port)


def exchange(
    server: Addressed, data: bytes, count: int = 1, methods: Sequence[str] = ()
) -> list[Response]:
    """Send `data` on a new connection and read `count` responses.

    `methods` are those of the requests, where one of them is HEAD.
    """
    with connect(server) as client:
        client.send(data)
        return [
            client.read_response(methods[number] if number < len(methods) else "GET")
            for number in range(count)
        ]


def raw(server: Addressed, data: bytes, count: int = 0, methods: Sequence[str] = ()) -> bytes:
    """Return the bytes that arrive after `data`: `count` responses, or (0) all up to the close."""
    with connect(server) as client:
        client.send(data)
        if count == 0:
            client.read_to_end()
        for number in range(count):
            client.read_response(methods[number] if number < len(methods) else "GET")
        return client.received


def slow_client(server: Addressed) -> RawClient:
    """A client with a small receive buffer."""
    return RawClient(server.port, receive_buffer=4096)
