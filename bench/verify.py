"""Sends requests over a socket, and checks the responses strictly.

A server with wrong responses is not measured. Never depends on the server.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from bench.exchanges import Exchange
from bench.process import BenchError

TIMEOUT = 10.0

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class WrongAnswerError(BenchError):
    """The response is not the one that the scenario expects."""


@dataclass(frozen=True)
class Answer:
    """One response. `size` counts all bytes; `keeps_alive`: another response may follow."""

    status: int
    fields: tuple[tuple[str, str], ...]
    content: bytes
    framing: str
    keeps_alive: bool
    size: int


class Client:
    """One connection. Raises WrongAnswerError if a response is not HTTP/1, or ends early."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        except OSError as error:
            raise WrongAnswerError(f"cannot connect: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = bytearray()
        self._taken = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise WrongAnswerError(f"cannot send the request: {error}") from error

    def receive(self) -> Answer:
        """Read one complete response."""
        self._taken = 0
        status_line, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if match is None:
            raise WrongAnswerError(f"not a status line: {status_line[:80]!r}")
        fields = tuple(_field(line) for line in lines)
        lengths = _values(fields, "content-length")
        if _values(fields, "transfer-encoding") == ["chunked"] and not lengths:
            framing, content = "chunked", self._chunks()
        elif len(lengths) == 1 and not _values(fields, "transfer-encoding"):
            framing, content = "length", self._exactly(_number(lengths[0]))
        elif not lengths and not _values(fields, "transfer-encoding"):
            framing, content = "close", self._rest()
        else:
            raise WrongAnswerError(f"framed in two ways: {fields}")
        connection = ",".join(_values(fields, "connection")).lower()
        keeps_alive = framing != "close" and "close" not in connection
        if match[1] == b"0":
            keeps_alive = keeps_alive and "keep-alive" in connection
        return Answer(int(match[2]), fields, content, framing, keeps_alive, self._taken)

    def check_nothing_follows(self) -> None:
        """Raises WrongAnswerError if there are bytes after the response."""
        self._socket.setblocking(False)
        try:
            more = bytes(self._unread) or self._socket.recv(100)
        except OSError:
            more = b""
        finally:
            self._socket.settimeout(TIMEOUT)
        if more:
            raise WrongAnswerError(f"bytes after the response: {more[:80]!r}")

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(1 << 20)
        except OSError as error:
            raise WrongAnswerError(f"no complete response: {error}") from error
        self._unread += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._taken += size
        return taken

    def _until(self, end: bytes) -> bytes:
        while (at := self._unread.find(end)) < 0:
            if not self._fill():
                raise WrongAnswerError(f"closed in the middle of a head: {self._unread[:80]!r}")
        taken = self._take(at + len(end))
        return taken[: -len(end)]

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            if not self._fill():
                raise WrongAnswerError(f"closed after {len(self._unread)} of {size} bytes")
        return self._take(size)

    def _chunks(self) -> bytes:
        content = bytearray()
        while True:
            line = self._until(b"\r\n").partition(b";")[0].strip()
            if not _CHUNK_SIZE.fullmatch(line):
                raise WrongAnswerError(f"not the size of a chunk: {line[:80]!r}")
            size = int(line, 16)
            if size == 0:
                while self._until(b"\r\n"):
                    continue
                return bytes(content)
            content += self._exactly(size)
            if self._exactly(2) != b"\r\n":
                raise WrongAnswerError("a chunk is longer than its size")

    def _rest(self) -> bytes:
        while self._fill():
            continue
        return self._take(len(self._unread))


@dataclass(frozen=True)
class Verified:
    """Facts about the correct responses of a server. `size` is the mean number of bytes."""

    size: float
    framing: str
    keeps_alive: bool


def verify(port: int, proofs: Iterable[Exchange], sent: list[Exchange], pipeline: int) -> Verified:
    """Send each request, on one connection while the server keeps it open, and then as under load.

    Like the load, this also sends `pipeline` requests of `sent` at once. Raises WrongAnswerError.
    """
    for exchange in proofs:
        with Client(port) as client:
            client.send(exchange.request)
            check(exchange, client.receive())
    answers: list[Answer] = []
    while len(answers) < len(sent):
        with Client(port) as client:
            while len(answers) < len(sent):
                exchange = sent[len(answers)]
                client.send(exchange.request)
                answers.append(check(exchange, client.receive()))
                if b"\r\nConnection: close\r\n" in exchange.request and answers[-1].keeps_alive:
                    raise WrongAnswerError(
                        "the response to `Connection: close` does not contain it, so the load "
                        "would use the connection again (RFC 9112, section 9.6)"
                    )
                if not answers[-1].keeps_alive:
                    break
                client.check_nothing_follows()
    if pipeline > 1:
        with Client(port) as client:
            batch = [sent[number % len(sent)] for number in range(pipeline)]
            client.send(b"".join(exchange.request for exchange in batch))
            for exchange in batch:
                check(exchange, client.receive())
    mean = sum(answer.size for answer in answers) / len(answers)
    return Verified(mean, answers[0].framing, answers[0].keeps_alive)


def check(exchange: Exchange, answer: Answer) -> Answer:
    """Return the response. Raises WrongAnswerError if it is not the expected one."""
    if answer.status != 200:
        raise WrongAnswerError(f"status {answer.status}, expected 200")
    if callable(exchange.content):
        try:
            right = exchange.content(answer.content)
        except ValueError:
            right = False
        if not right:
            raise WrongAnswerError(f"wrong content: {answer.content[:80]!r}")
    elif answer.content != exchange.content:
        got, expected = answer.content, exchange.content
        raise WrongAnswerError(
            f"{len(got)} bytes of content {got[:60]!r}, "
            f"expected {len(expected)} bytes {expected[:60]!r}"
        )
    for name, value in exchange.fields:
        if _values(answer.fields, name.lower()) != [value]:
            raise WrongAnswerError(f"expected the header {name}: {value}")
    return answer


def _field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.decode("latin-1").partition(":")
    if not colon or not name or name != name.strip():
        raise WrongAnswerError(f"not a header: {line[:80]!r}")
    return name, value.strip()


def _values(fields: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in fields if key.lower() == name]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise WrongAnswerError(f"not a Content-Length: {text!r}")
    return int(text)
