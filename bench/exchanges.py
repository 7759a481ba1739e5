"""The requests of the scenarios, and the correct responses.

Never connects to a server.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from bench.apps import plain, postgres_app

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Exchange:
    """The bytes of one request, and the expected response.

    If not every byte of the response body is known, `content` is a function that checks it.
    """

    request: bytes
    content: bytes | Callable[[bytes], bool]
    fields: Fields = ()


def _request(line: str, fields: Fields = (), content: bytes = b"") -> bytes:
    head = [f"{line} HTTP/1.1", "Host: localhost:8000"]
    head += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*head, "", ""]).encode("ascii") + content


BROWSER: Fields = (
    (
        "User-Agent",
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/126.0.0.0 Safari/537.36"
        ),
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("Accept-Language", "en-US,en;q=0.9,de;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "http://localhost:8000/"),
    ("Cookie", "sessionid=abcdefghijklmnopqrstuvwxyz012345; csrftoken=0123456789abcdefghijklmno"),
    ("Cache-Control", "max-age=0"),
)


def hello(fields: Fields = (), line: str = "GET /") -> Callable[[], list[Exchange]]:
    return lambda: [Exchange(_request(line, fields), plain.HELLO)]


@cache
def varied() -> list[Exchange]:
    """Return 20,000 requests, each with another path, query, cookie and order of headers.

    All responses have the same size, so a wrong response changes the number of received bytes.
    """
    chance = random.Random(20240229)  # noqa: S311
    exchanges = []
    for number in range(20_000):
        path, query = f"/items/{number:05}/{chance.randrange(10**9):09}", f"page={number:05}"
        cookie = (
            f"sessionid={chance.getrandbits(128):032x}; csrftoken={chance.getrandbits(64):016x}"
        )
        others = [field for field in BROWSER if field[0] != "Cookie"]
        fields = chance.sample([*others, ("Cookie", cookie)], len(BROWSER))
        content = f"{path}?{query} {cookie}\n".encode("ascii")
        exchanges.append(Exchange(_request(f"GET {path}?{query}", tuple(fields)), content))
    return exchanges


def chunked(content: bytes, size: int) -> bytes:
    """Return a body in the chunked coding, in chunks of `size` bytes (RFC 9112, section 7.1)."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def post(size: int, chunk: int = 0, *, digest: bool = False) -> Callable[[], list[Exchange]]:
    """Requests with a Content-Length, or in chunks of `chunk` bytes.

    The response is the size of the body, with `digest` also its SHA-256.
    """

    def make() -> list[Exchange]:
        content = plain.LARGE[:size]
        answer = f"{size} {sha256(content).hexdigest()}" if digest else f"{size}"
        kind = ("Content-Type", "application/octet-stream")
        if chunk:
            framing, data = ("Transfer-Encoding", "chunked"), chunked(content, chunk)
        else:
            framing, data = ("Content-Length", str(size)), content
        target = "/?digest" if digest else "/"
        sent = _request(f"POST {target}", (framing, kind), data)
        return [Exchange(sent, answer.encode("ascii"))]

    return make


def get(
    content: Callable[[], bytes], fields: Fields = (), size: bool = True
) -> Callable[[], list[Exchange]]:
    def make() -> list[Exchange]:
        expected = content()
        framing: Fields = (("Content-Length", str(len(expected))),) if size else ()
        return [Exchange(_request("GET /"), expected, fields + framing)]

    return make


def flask() -> list[Exchange]:
    def is_right(content: bytes) -> bool:
        expected = {"id": 7, "name": "Ada Lovelace", "roles": ["reader", "author"], "page": 3}
        return bool(json.loads(content) == expected)

    return [Exchange(_request("GET /users/7?page=3", BROWSER), is_right)]


def django() -> list[Exchange]:
    def is_right(content: bytes) -> bool:
        rows = content.count(b"<tr class=") == 20 and b"<td>19<td>&lt;Row &amp; 19&gt;" in content
        return rows and b"<h1>TWENTY ROWS</h1>" in content and b"<p>20 rows for \xc3\xa9" in content

    return [Exchange(_request("GET /table?q=%C3%A9", BROWSER), is_right)]


def wait(microseconds: int) -> Callable[[], list[Exchange]]:
    """Requests in which the application sleeps for so many microseconds."""
    return lambda: [_wait(microseconds)]


def _wait(microseconds: int) -> Exchange:
    return Exchange(_request(f"GET /{microseconds}"), plain.waited(microseconds))


#: How many of `MIXED_REQUESTS` wait, by the microseconds.
MIXED_REQUESTS = 1000
MIXED = {0: 400, 1000: 500, 20_000: 100}


def mixed() -> list[Exchange]:
    """Return requests with and without a wait, in a random order that is the same in each run."""
    waits = [wait for wait, count in MIXED.items() for _ in range(count)]
    random.Random(20260101).shuffle(waits)  # noqa: S311
    return [_wait(microseconds) for microseconds in waits]


def compute(loops: int) -> Callable[[], list[Exchange]]:
    """Requests in which the application runs so many rounds of a loop in pure Python."""
    return lambda: [Exchange(_request(f"GET /{loops}"), plain.computed(loops))]


def database() -> list[Exchange]:
    """Return requests for different items, so that a response to another query is noticed."""
    chance = random.Random(20260102)  # noqa: S311
    items = chance.sample(range(10_000, 100_000), 1000)
    return [Exchange(_request(f"GET /{item}"), b"item %d\n" % item) for item in items]


def postgres() -> list[Exchange]:
    """Return requests for twenty rows, each from another first row."""
    first = list(range(postgres_app.TABLE_ROWS - postgres_app.QUERY_ROWS))
    random.Random(20260103).shuffle(first)  # noqa: S311
    return [
        Exchange(_request(f"GET /{number}"), postgres_app.page(postgres_app.rows(number)))
        for number in first
    ]
