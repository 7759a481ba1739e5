"""Random clients. They check every byte that they read."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from stress.exchanges import LOADS, PIECES, REPLACED, WRITERS, Exchange, draw
from stress.findings import first_difference, wrong_stretch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stress.findings import Findings

TIMEOUT = 20.0
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*\r\n")
_FIELD_LINE = re.compile(rb"([!-9;-~]+): ([ -~]*)\r\n")
#: What the server, or the page for an error, adds to the application's headers.
_ADDED = {"date", "server", "connection", "content-length", "transfer-encoding", "content-type"}


class WrongError(Exception):
    """A response is wrong. The arguments are the sort of failure, and lines that describe it."""


class EndedError(Exception):
    """The connection has ended too early; `begun`: a part of the response has come."""

    def __init__(self, how: str, *, begun: bool) -> None:
        super().__init__(how)
        self.begun = begun


class Wire:
    """One connection. A slow one has a small receive buffer, and may pause before it reads."""

    def __init__(self, port: int, random: Random, *, slow: bool) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT)
        if slow:  # the size must be set before connecting
            size = random.choice((4_096, 30_000, 30_000, 60_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Not `random` itself: how often a pause is drawn depends on timing, requests must not.
        self._random = Random(random.random())
        self._pauses = random.choice((0, 0, 0, 10)) if slow else 0  # that are left
        self._buffer = b""
        self.begun = False  # a part of the response has come
        self.ended = ""

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EndedError(repr(error), begun=False) from None

    def send_some(self, data: bytes) -> None:
        """Send as much as the server takes at once; afterwards the connection is useless."""
        self._socket.settimeout(0.05)
        with suppress(OSError):
            self._socket.sendall(data)

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            if not self._fill():
                raise EndedError(f"{self.ended} in a line", begun=self.begun)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def read(self, size: int) -> bytes:
        """Read so many bytes, or fewer at the end of the connection."""
        pieces = []
        left = size
        while left > 0 and (self._buffer or self._fill()):
            pieces.append(self._buffer[:left])
            self._buffer = self._buffer[left:]
            left -= len(pieces[-1])
        return b"".join(pieces)

    def begin(self) -> None:
        """Begin to read the next response."""
        self.begun = bool(self._buffer)

    def is_over(self) -> bool:
        return not self._buffer and not self._fill()

    def _fill(self) -> bool:
        if self.ended:
            return False
        if self._pauses and self._random.random() < 0.5:
            self._pauses -= 1
            time.sleep(self._random.choice((0.001, 0.005, 0.02)))
        try:
            self._buffer = self._buffer + self._socket.recv(1 << 18)
        except ConnectionResetError:
            self.ended = "reset"
            return False
        except TimeoutError:
            raise WrongError("no answer", f"nothing comes for {TIMEOUT:g} s") from None
        if not self._buffer:
            self.ended = "closed"
        self.begun |= bool(self._buffer)
        return bool(self._buffer)


class Client:
    """A client that opens one connection after the other, and uses each in a random way.

    `closes`: the server may close a connection between two exchanges, because it reloads. `cuts`:
    it may close a connection at any time, because a signal handler raises an exception.
    """

    def __init__(
        self,
        port: int,
        seed: str,
        aspects: Sequence[str],
        findings: Findings,
        *,
        closes: bool = False,
        cuts: bool = False,
    ) -> None:
        self._port = port
        self._seed = seed
        self._random = Random(seed)
        self._aspects = aspects
        self._findings = findings
        self._closes = closes or cuts
        self._cuts = cuts
        #: The server closes the connection after the last response that was read.
        self._is_last = False
        self._connection = ""
        self._load = ""  # of this connection: see `draw`
        self._exchange: Exchange | None = None  # the response that is being read

    def run(self, over: Callable[[], bool]) -> None:
        while not over():
            behaviour = self._random.choice(BEHAVIOURS)
            self._connection = f"{self._random.getrandbits(48):012x}"
            slow = self._random.random() < 0.6
            name = behaviour.__name__.strip("_") + (", slow" if slow else "")
            self._load = self._random.choice(LOADS)
            self._exchange = None
            try:
                wire = Wire(self._port, self._random, slow=slow)
            except OSError as error:
                self._fail(over, "connection", name, f"cannot connect: {error!r}")
                time.sleep(0.05)
                continue
            try:
                behaviour(self, wire)
                self._findings.count(f"client {name}")
            except WrongError as error:
                self._fail(over, error.args[0], name, *error.args[1:])
            except EndedError as error:
                if self._cuts or (self._closes and not error.begun):
                    self._findings.count("closed between two exchanges")
                else:
                    self._fail(over, "connection", name, str(error))
            finally:
                wire.close()

    def _fail(self, over: Callable[[], bool], sort: str, name: str, *lines: str) -> None:
        if sort == "connection" and over():
            return
        where = f"client {self._seed}: {name}, connection {self._connection}"
        self._findings.fail(sort, where, f"{self._exchange}", *lines)

    # ---------------------------------------------------------------- behaviours

    def one_after_the_other(self, wire: Wire) -> None:
        for exchange in self._draw(self._random.randrange(1, 12)):
            wire.send(exchange.request())
            self.read_response(wire, exchange)
            if self._is_last:
                break

    def pipelined(self, wire: Wire) -> None:
        load = self._random.choice((self._load, "brief"))
        exchanges = self._draw(self._random.randrange(2, 9), load=load)
        # Large uploads are left out: the server would wait for responses to be read first.
        exchanges = [each for each in exchanges if each.kind != "echo" or load == "brief"]
        wire.send(b"".join(each.request() for each in exchanges))
        for exchange in exchanges:
            self.read_response(wire, exchange)
            if self._is_last:
                break

    def half_closed(self, wire: Wire) -> None:
        exchanges = self._draw(self._random.randrange(1, 4), load="brief")
        wire.send(b"".join(each.request() for each in exchanges))
        wire.half_close()
        for exchange in exchanges:
            self.read_response(wire, exchange)
            if self._is_last:
                return
        if not wire.is_over():
            raise WrongError("framing", "more comes than was asked for")

    def closing(self, wire: Wire) -> None:
        (exchange,) = self._draw(1)
        old = self._random.random() < 0.5
        wire.send(exchange.request(version="1.0") if old else exchange.request(close=True))
        self.read_response(wire, exchange)
        if not wire.is_over():
            raise WrongError("framing", "more comes after the last response")

    def leaving(self, wire: Wire) -> None:
        exchanges = self._draw(self._random.randrange(1, 5))
        sent = b"".join(each.request() for each in exchanges)
        if self._random.random() < 0.3:
            sent = sent[: self._random.randrange(len(sent))]
            wire.send_some(sent)
        elif len(sent) < 50_000:
            wire.send(sent)
            self.read_response(wire, exchanges[0], most=self._random.choice((0, 1_000, 100_000)))
        wire.close(reset=self._random.random() < 0.5)

    def _draw(self, count: int, *, load: str = "") -> list[Exchange]:
        """Draw exchanges. Some are repeated, because the core recognises the same head again."""
        drawn: list[Exchange] = []
        for _ in range(count):
            if drawn and self._random.random() < 0.15:
                drawn.append(drawn[-1])
            else:
                load = load or self._load
                drawn.append(draw(self._random, self._aspects, self._connection, load=load))
                self._findings.ask(drawn[-1])
        return drawn

    # ---------------------------------------------------------------- responses

    def read_response(self, wire: Wire, exchange: Exchange, most: int | None = None) -> None:
        """Read a response and check it; `most`: read only so many bytes of its content."""
        self._exchange = exchange
        self._is_last = False
        wire.begin()
        status, fields = self._read_head(wire, exchange)
        while status == 103:
            if fields != [("x-id", exchange.id)]:
                raise WrongError("head", f"expected early hints with its id, got {fields}")
            status, fields = self._read_head(wire, exchange)
        if status == 500 and self._cuts and "content-type" in dict(fields):  # the server's page
            exchange = replace(exchange, failure="before start_response")
        self._check_head(exchange, status, fields)
        given = dict(fields)
        self._is_last = given.get("connection") == "close"
        if exchange.method == "HEAD":
            self._findings.count("HEAD")
            return
        if given.get("transfer-encoding") == "chunked":
            content, complete = self._read_chunked(wire, most)
        elif "content-length" in given:
            size = int(given["content-length"])
            content = wire.read(size if most is None else min(size, most))
            complete = len(content) == size
        elif self._is_last:
            content = wire.read(1 << 40 if most is None else most)
            complete = wire.ended == "closed"
        else:
            raise WrongError("head", f"expected one kind of framing, got {fields}")
        self._check_content(exchange, content, complete=complete, whole=most is None, wire=wire)

    def _read_head(self, wire: Wire, exchange: Exchange) -> tuple[int, list[tuple[str, str]]]:
        line = wire.line()
        match = _STATUS_LINE.fullmatch(line)
        if not match:
            owner = self._findings.owner(line[:32], exchange)
            raise WrongError("head", f"expected a status line, got {line[:200]!r}", owner)
        fields = []
        while (line := wire.line()) != b"\r\n":
            field = _FIELD_LINE.fullmatch(line)
            if not field:
                raise WrongError("head", f"expected a header, got {line[:200]!r}")
            fields.append((field[1].decode().lower(), field[2].decode()))
        return int(match[1]), fields

    def _read_chunked(self, wire: Wire, most: int | None) -> tuple[bytes, bool]:
        parts: list[bytes] = []
        while most is None or sum(map(len, parts)) < most:
            try:
                line = wire.line()
            except EndedError:
                return b"".join(parts), False
            if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
                raise WrongError("framing", f"expected the size of a chunk, got {line[:200]!r}")
            size = int(line, 16)
            part = wire.read(size + 2)
            parts.append(part[:size])
            if len(part) < size + 2:
                return b"".join(parts), False
            if part[size:] != b"\r\n":
                raise WrongError("framing", f"expected the end of a chunk, got {part[size:]!r}")
            if size == 0:
                return b"".join(parts), True
        return b"".join(parts), False

    def _check_head(self, exchange: Exchange, status: int, fields: list[tuple[str, str]]) -> None:
        if status != exchange.status:
            raise WrongError("head", f"expected status {exchange.status}, got {status} {fields}")
        expected = [] if exchange.ending == "replaced" else exchange.fields
        got = [(name, value) for name, value in fields if name not in _ADDED]
        if got != [(name.lower(), value) for name, value in expected]:
            raise WrongError("head", f"expected the headers {expected}", f"got {got}")
        names = [name for name, _ in fields]
        if len(set(names)) != len(names):
            raise WrongError("head", f"expected each header once, got {fields}")

    def _check_content(
        self, exchange: Exchange, content: bytes, *, complete: bool, whole: bool, wire: Wire
    ) -> None:
        if exchange.writes_pieces and exchange.status == 200:
            self._check_pieces(exchange, content, complete=complete)
        else:
            expected = self._expected(exchange)
            self._compare(exchange, expected, content)
            if complete and len(content) < len(expected) and whole:
                raise WrongError("ending", f"expected {len(expected)} bytes, got {len(content)}")
        if not whole:
            self._findings.count(f"{exchange.kind}: left")
            return
        ending = exchange.ending
        if complete == (ending == "cut"):
            if not complete and self._cuts:
                raise EndedError(wire.ended, begun=True)
            raise WrongError(
                "ending" if complete else "connection",
                f"expected it {ending}, got {len(content)} bytes, "
                f"{'complete' if complete else wire.ended}",
            )
        self._is_last |= ending in ("cut", "closed")
        large = "large " if len(content) > 16_384 else ""
        self._findings.count(f"{exchange.kind}: {large}{ending}")

    def _expected(self, exchange: Exchange) -> bytes:
        if exchange.ending == "replaced":
            return REPLACED
        content = exchange.content()
        if exchange.failure == "in the stream":
            return b"begun" + content
        if exchange.failure == "too long":
            return content[:-1]
        return content

    def _compare(self, exchange: Exchange, expected: bytes, got: bytes) -> None:
        at = first_difference(expected, got)
        if at < 0:
            if len(got) > len(expected):
                raise WrongError("content", f"expected {len(expected)} bytes, got {len(got)}")
            return
        if not self._findings.wants_more("content"):
            raise WrongError("content")
        size = wrong_stretch(expected, got, at)
        raise WrongError(
            "content",
            f"{size} bytes are wrong, from byte {at} of {len(expected)} on:",
            f"expected {expected[at : at + 24].hex(' ')}",
            f"got      {got[at : at + 24].hex(' ')}",
            self._findings.owner(got[at : at + min(size, 32)], exchange),
        )

    def _check_pieces(self, exchange: Exchange, content: bytes, *, complete: bool) -> None:
        """Check that the content is whole pieces, those of each writer in order."""
        at, numbers = 0, dict.fromkeys(range(WRITERS), 0)
        while at < len(content):
            line = content[at : at + exchange.piece_head]
            try:
                writer = int(line.split()[1])
                expected = exchange.piece(writer, numbers[writer])
            except (IndexError, KeyError, ValueError):
                if not complete:
                    return  # the response was cut within the line
                owner = self._findings.owner(line[:32], exchange)
                raise WrongError(
                    "content", f"expected a piece at {at}, got {line!r}", owner
                ) from None
            self._compare(exchange, expected, content[at : at + len(expected)])
            at += len(expected)
            numbers[writer] += 1
        if complete and at > len(content):
            raise WrongError("content", "the last piece is not whole")
        if complete and exchange.kind == "together" and set(numbers.values()) != {PIECES}:
            raise WrongError("content", f"expected {PIECES} pieces of each writer, got {numbers}")


BEHAVIOURS = [
    Client.one_after_the_other,
    Client.one_after_the_other,
    Client.one_after_the_other,
    Client.pipelined,
    Client.half_closed,
    Client.closing,
    Client.leaving,
]
