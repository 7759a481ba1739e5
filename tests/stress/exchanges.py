"""A request and its response: one description that the application and the clients share.

The random id of a request decides every byte of the response and its headers. So a client sees a
byte of another response, and can find the response that the byte belongs to.
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

#: The ways in which an application makes a response.
KINDS = ("whole", "list", "stream", "write", "file", "echo", "fail", "together", "late")
#: What a run can be restricted to. "headers": applications of all kinds use all HEADERS.
ASPECTS = (*KINDS, "headers")
#: A list of tuples; a list of lists that a thread changes in place for each response; an iterator;
#: an empty list.
HEADERS = ("list", "in-place", "iterator", "none")
#: Where an application fails, and how its response ends: complete; closed (complete, and the
#: server closes the connection); replaced by the server's page; or cut.
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
#: The content of the server's page.
REPLACED = b"Internal Server Error\n"
WRITERS = 3  # threads that write at once in "together"
PIECES = 12  # of each of these writers

_SMALL = (0, 1, 2, 100, 1_000, 2_048, 4_096)
#: Around the sizes that the core copies, and that the buffers of sockets hold.
_EDGES = (16_383, 16_384, 16_385, 32_768, 65_536, 87_380, 131_072, 212_992, 262_144, 425_984)


@dataclass(frozen=True)
class Exchange:
    """A request, which decides the response."""

    id: str
    kind: str
    method: str = "GET"
    connection: str = ""  # a random id; all requests of a connection have the same
    size: int = 0  # of the content
    parts: int = 1
    framed: bool = False  # the application gives a Content-Length
    headers: str = "list"
    wait: str = ""
    failure: str = ""
    chunked: bool = False  # the upload is

    @classmethod
    def from_environ(cls, environ: WSGIEnvironment) -> Exchange:
        """Read what `request` has written."""
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
        """The bytes of the request."""
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
        """How the response ends: see FAILURES."""
        return FAILURES[self.failure] if self.failure else "complete"

    @property
    def status(self) -> int:
        return 500 if self.ending == "replaced" or self.failure == "exc_info" else 200

    @property
    def writes_pieces(self) -> bool:
        """Whether threads write the content in pieces, so that the order of the pieces is open."""
        return self.kind in ("together", "late")

    def content(self) -> bytes:
        """The content of the response, and of the upload of an echo."""
        return pattern(self.id, self.size)

    def cut(self, content: bytes) -> Iterator[bytes]:
        """Cut the content into the parts that the application sends; some may be empty."""
        at, random = 0, Random(self.id)
        for left in range(self.parts, 1, -1):
            end = min(len(content), at + random.randint(0, 2 * (len(content) - at) // left))
            yield content[at:end]
            at = end
        yield content[at:]

    def piece(self, writer: int, number: int) -> bytes:
        """A piece of a writer. Its first line names the writer and the number of the piece."""
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
    """Random bytes that the key decides."""
    return hashlib.shake_128(key.encode()).digest(size)


def draw(random: Random, aspects: Sequence[str], connection: str, *, load: str) -> Exchange:
    """A random exchange of a connection.

    `load`: "mixed"; "heavy", mostly whole bodies that the socket does not take at once; or "brief",
    short requests and responses that leave the connection open.
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
    )
    if exchange.kind == "echo":
        return replace(exchange, method="POST", chunked=random.random() < 0.5)
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
