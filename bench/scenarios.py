"""The scenarios: what is asked of which application, how, and what must come back.

The same bytes are used to verify an answer, to load a server and to count instructions. Never
talks to a server.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import islice
from typing import Literal

from bench.apps import plain

Kind = Literal["closed", "rate", "idle"]

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Exchange:
    """The bytes of one request, and what its response must be.

    `content` is a test of the response's content, where it is not known byte for byte.
    """

    request: bytes
    content: bytes | Callable[[bytes], bool]
    fields: Fields = ()


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    `exchanges` makes the requests that are sent, one after the other and again from the first;
    `proofs` more that are only verified. `connections` are open at a time, with `pipeline` requests
    sent at once on each. The servers that need threads for it get `threads`. `kind` says how it is
    loaded: `closed`, each connection sends when it has its answer (wrk); `rate`, requests leave at
    `rate` a second whether or not answers come; `idle`, connections are opened, ask once and wait.
    `limits` says whether nginx and the core alone can answer it. `system_calls` says whether those
    are counted, `memory` whether that is waited for to settle.
    """

    name: str
    title: str
    application: str
    exchanges: Callable[[], list[Exchange]]
    proofs: Callable[[], list[Exchange]] = list
    connections: int = 64
    pipeline: int = 1
    threads: int = 1
    kind: Kind = "closed"
    rate: int = 0
    limits: bool = False
    system_calls: bool = False
    memory: bool = False


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
    """Return what makes one request for hello world, with these fields."""
    return lambda: [Exchange(_request(line, fields), plain.HELLO)]


@cache
def _varied() -> list[Exchange]:
    """20,000 requests, no two of which have the path, the query, the cookie or the session alike.

    All are of one size, so that a wrong answer shows in the bytes received.
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
    """Content in the chunked coding, in chunks of `size` bytes (RFC 9112, section 7.1)."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _post(size: int, chunk: int = 0, *, digest: bool = False) -> Callable[[], list[Exchange]]:
    """With a length, or in chunks of `chunk` bytes. The answer is the size, or has a digest too."""

    def make() -> list[Exchange]:
        content = plain.LARGE[:size]
        answer = f"{size} {sha256(content).hexdigest()}" if digest else f"{size}"
        kind = ("Content-Type", "application/octet-stream")
        if chunk:
            framing, data = ("Transfer-Encoding", "chunked"), chunked(content, chunk)
        else:
            framing, data = ("Content-Length", str(size)), content
        target = "/?digest" if digest else "/"
        request = _request(f"POST {target}", (framing, kind), data)
        return [Exchange(request, answer.encode("ascii"))]

    return make


def _get(
    content: Callable[[], bytes], fields: Fields = (), size: bool = True
) -> Callable[[], list[Exchange]]:
    def make() -> list[Exchange]:
        expected = content()
        framing: Fields = (("Content-Length", str(len(expected))),) if size else ()
        return [Exchange(_request("GET /"), expected, fields + framing)]

    return make


def _flask() -> list[Exchange]:
    def is_right(content: bytes) -> bool:
        expected = {"id": 7, "name": "Ada Lovelace", "roles": ["reader", "author"], "page": 3}
        return bool(json.loads(content) == expected)

    return [Exchange(_request("GET /users/7?page=3", BROWSER), is_right)]


def _django() -> list[Exchange]:
    def is_right(content: bytes) -> bool:
        rows = content.count(b"<tr class=") == 20 and b"<td>19<td>&lt;Row &amp; 19&gt;" in content
        return rows and b"<h1>TWENTY ROWS</h1>" in content and b"<p>20 rows for \xc3\xa9" in content

    return [Exchange(_request("GET /table?q=%C3%A9", BROWSER), is_right)]


_ALL = (
    Scenario(
        "hello",
        "hello world, 64 connections kept alive",
        "plain:hello",
        hello(),
        limits=True,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "fields",
        "hello world, asked with seven fields as a browser sends them",
        "plain:hello",
        hello(BROWSER),
        limits=True,
    ),
    Scenario(
        "varied",
        "another path, query, cookie and order of fields in every request",
        "plain:echo",
        _varied,
        system_calls=True,
    ),
    Scenario(
        "one",
        "hello world on one connection: latency",
        "plain:hello",
        hello(),
        connections=1,
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "many",
        "hello world on 256 connections",
        "plain:hello",
        hello(),
        connections=256,
        limits=True,
    ),
    Scenario(
        "close",
        "a new connection for every request",
        "plain:hello",
        hello((("Connection", "close"),)),
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "pipelined",
        "hello world, 16 requests at a time",
        "plain:hello",
        hello(),
        pipeline=16,
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "post_1k",
        "POST of 1 kB with a length",
        "plain:upload",
        _post(1000),
        _post(1000, digest=True),
    ),
    Scenario(
        "post_1k_chunked",
        "POST of 1 kB in chunks",
        "plain:upload",
        _post(1000, 500),
        _post(1000, 500, digest=True),
    ),
    Scenario(
        "post_1m",
        "POST of 1 MB with a length",
        "plain:upload",
        _post(1 << 20),
        _post(1 << 20, digest=True),
        connections=16,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "post_1m_chunked",
        "POST of 1 MB in chunks of 16 kB",
        "plain:upload",
        _post(1 << 20, 16384),
        _post(1 << 20, 16384, digest=True),
        connections=16,
    ),
    Scenario(
        "response_fields",
        "a response with twelve fields",
        "plain:fields",
        _get(lambda: plain.HELLO, tuple(plain.FIELDS)),
    ),
    Scenario(
        "response_1m",
        "a response of 1 MB of bytes",
        "plain:large",
        _get(lambda: plain.LARGE),
        connections=16,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "file_10m",
        "a file of 10 MB by wsgi.file_wrapper",
        "plain:file",
        _get(plain.file_content),
        connections=8,
        memory=True,
    ),
    Scenario(
        "stream",
        "a stream of 100 chunks of 100 bytes",
        "plain:stream",
        _get(lambda: plain.CHUNK * plain.CHUNKS, size=False),
        system_calls=True,
    ),
    Scenario(
        "sleep",
        "an application that sleeps 50 ms, 16 threads",
        "plain:sleep",
        hello(),
        threads=16,
    ),
    Scenario("flask", "Flask: a route and JSON", "flask_app:app", _flask),
    Scenario(
        "django",
        "Django: middleware and a page from a template",
        "django_app:app",
        _django,
        memory=True,
    ),
    Scenario(
        "rate_2000",
        "hello world at 2,000 requests a second: latency",
        "plain:hello",
        hello(),
        kind="rate",
        rate=2000,
        limits=True,
    ),
    Scenario(
        "rate_10000",
        "hello world at 10,000 requests a second: latency",
        "plain:hello",
        hello(),
        kind="rate",
        rate=10_000,
        limits=True,
    ),
    Scenario(
        "idle",
        "10,000 idle connections: memory",
        "plain:hello",
        hello(),
        connections=10_000,
        kind="idle",
        limits=True,
    ),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}


def samples(scenario: Scenario, most: int = 40) -> list[Exchange]:
    """What is verified before a load: the proofs, and the first of what is sent."""
    return [*scenario.proofs(), *islice(scenario.exchanges(), most)]
