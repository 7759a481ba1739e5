"""What a client asks for, and what it must get: one description that both sides read.

Everything in a response follows from the id of its request: the content, byte by byte, and the
headers. So a byte of another response does not match, and can be traced to the response that it
belongs to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from itertools import product
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from wsgiref.types import WSGIEnvironment

#: The ways to make a response. "headers" is no way of its own: with it, others give their headers
#: in the less common ways of HEADERS.
KINDS = ("whole", "list", "stream", "write", "file", "echo", "fail", "together", "late")
ASPECTS = (*KINDS, "headers")
#: A list of tuples; a list of lists that each thread changes in place; an iterator; none at all.
HEADERS = ("list", "in-place", "iterator", "none")
#: Where an application fails, and where its response then ends.
FAILURES = {
    "before start_response": "replaced",
    "after start_response": "replaced",
    "exc_info": "complete",
    "in the stream": "cut",
    "too short": "cut",
    "too long": "closed",
    "in close": "complete",
}
WAITS = ("", "", "sleep", "sleep", "compute")
LOADS = ("mixed", "mixed", "heavy")
#: The content of a response that the server makes in the place of one that has failed.
REPLACED = b"Internal Server Error\n"
WRITERS = 3  # threads that write at once, in "together"
PIECES = 12  # that each writer writes

_SMALL = (0, 1, 2, 100, 1_000, 2_048, 4_096)
#: Around what the core copies, and what the buffers of sockets hold.
_EDGES = (16_383, 16_384, 16_385, 32_768, 65_536, 87_380, 131_072, 212_992, 262_144, 425_984)


@dataclass(frozen=True)
class Exchange:
    """A request, and with it all that its response has to be."""

    id: str
    kind: str
    method: str = "GET"
    connection: str = ""  # the id of the connection, the same in all of its requests
    size: int = 0  # of the content
    parts: int = 1
    framed: bool = False  # the application gives a Content-Length
    headers: str = "list"
    wait: str = ""
    failure: str = ""
    chunked: bool = False  # the upload is

    @classmethod
    def from_environ(cls, environ: WSGIEnvironment) -> Exchange:
        """Read what `head` has written."""
        _, kind, id_ = environ["PATH_INFO"].split("/")
        given = dict(parse_qsl(environ["QUERY_STRING"]))
        return cls(
            id_,
            kind,
            environ["REQUEST_METHOD"],
            environ["HTTP_X_CONNECTION"],
            int(given.get("size", 0)),
            int(given.get("parts", 1)),
            "framed" in given,
            given.get("headers", "list"),
            given.get("wait", ""),
            given.get("failure", ""),
        )

    def __str__(self) -> str:
        given = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("id", "kind", "method", "connection")
            and getattr(self, each.name) != each.default
        }
        return f"{self.method} /{self.kind}/{self.id}?{urlencode(given)}"

    def request(self, *, version: str = "1.1", close: bool = False) -> bytes:
        """The whole request as bytes."""
        lines = [f"{self} HTTP/{version}", "Host: stress", f"X-Connection: {self.connection}"]
        if close:
            lines.append("Connection: close")
        upload = self.content() if self.kind == "echo" else b""
        if self.kind == "echo" and self.chunked and version == "1.1":
            lines.append("Transfer-Encoding: chunked")
            parts = [part for part in self.cut(upload) if part]
            upload = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            upload += b"0\r\n\r\n"
        elif self.kind == "echo":
            lines.append(f"Content-Length: {len(upload)}")
        return "\r\n".join([*lines, "", ""]).encode() + upload

    # ---------------------------------------------------------------- the response

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The headers that the application gives."""
        if self.headers == "none":
            return []
        cookie = f"session={self.id}; connection={self.connection}"
        return [("X-Id", self.id), ("Set-Cookie", cookie)]

    @property
    def length(self) -> int:
        """The Content-Length that the application gives; -1: none."""
        if not self.framed or self.headers == "none":
            return -1
        more = {"too short": 10, "too long": -1, "in the stream": 15}
        return self.size + more.get(self.failure, 0)

    @property
    def ending(self) -> str:
        """How the response ends: complete, closed (complete, the last one), replaced, or cut."""
        return FAILURES[self.failure] if self.failure else "complete"

    @property
    def status(self) -> int:
        return 500 if self.ending == "replaced" or self.failure == "exc_info" else 200

    @property
    def writes_pieces(self) -> bool:
        """Whether the content is pieces of several writers, in some order."""
        return self.kind in ("together", "late")

    def content(self) -> bytes:
        """The content of the response, and of the upload of an echo."""
        return pattern(self.id, self.size)

    def cut(self, content: bytes) -> Iterator[bytes]:
        """The parts in which the application gives the content; some may be empty."""
        at, random = 0, Random(self.id)
        for left in range(self.parts, 1, -1):
            end = min(len(content), at + random.randint(0, 2 * (len(content) - at) // left))
            yield content[at:end]
            at = end
        yield content[at:]

    def piece(self, writer: int, number: int) -> bytes:
        """One of the pieces that a writer writes, which says of itself what it is."""
        size = self.piece_size(writer, number)
        head = f"{self.id} {writer:2d} {number:6d}\n".encode()
        return head + pattern(f"{self.id} {writer} {number}", size - self.piece_head)

    def piece_size(self, writer: int, number: int) -> int:
        key = Random(f"{self.id} {writer} {number}")
        return self.piece_head + key.choice((10, 1_200, 5_000, 40_000))

    @property
    def piece_head(self) -> int:
        """The size of a piece's first line."""
        return len(self.id) + 11


def pattern(key: str, size: int) -> bytes:
    """So many bytes of which each depends on the key and on its place."""
    return hashlib.shake_128(key.encode()).digest(size)


def draw(random: Random, aspects: Sequence[str], connection: str, *, load: str) -> Exchange:
    """A random exchange of a connection.

    `load`: "mixed"; "heavy", mostly whole responses that the socket does not take at once; or
    "brief", nothing that is long to send, and none that ends the connection.
    """
    kinds = [kind for kind in KINDS if kind in aspects and (kind, load) != ("fail", "brief")]
    if load == "heavy" and "whole" in kinds and random.random() < 0.7:
        kinds = ["whole"]
    exchange = Exchange(
        f"{random.getrandbits(64):016x}",
        random.choice(kinds or KINDS[:1]),
        connection=connection,
        size=SIZES[load](random),
        parts=random.choice((1, 2, 3, 7)),
        framed=random.random() < 0.5,
        headers=random.choice(HEADERS) if "headers" in aspects else "list",
        wait=random.choice(WAITS),
        chunked=random.random() < 0.5,
    )
    if exchange.kind == "echo":
        return replace(exchange, method="POST")
    if exchange.kind == "fail":
        exchange = replace(exchange, failure=random.choice(list(FAILURES)))
        if exchange.failure in ("too short", "too long"):
            return replace(exchange, framed=True, size=exchange.size + 1, headers="list")
        return exchange
    if exchange.kind == "late":
        return replace(exchange, framed=False)
    if exchange.kind == "together":
        sizes = (exchange.piece_size(*each) for each in product(range(WRITERS), range(PIECES)))
        exchange = replace(exchange, size=sum(sizes))
    if random.random() < 0.08:
        return replace(exchange, method="HEAD")
    return exchange


def _mixed_size(random: Random) -> int:
    match random.randrange(20):
        case 0 | 1 | 2 | 3:
            return random.choice(_SMALL)
        case 4 | 5 | 6 | 7:
            return random.choice(_EDGES) + random.randint(-1, 1)
        case 19:
            return random.randint(600_000, 4 << 20)
        case _:
            return random.randint(17_000, 600_000)


SIZES: dict[str, Callable[[Random], int]] = {
    "mixed": _mixed_size,
    "heavy": lambda random: random.randint(150_000, 500_000),
    "brief": lambda random: random.choice(_SMALL),
}
