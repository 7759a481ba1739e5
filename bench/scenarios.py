"""The scenarios: the application, the requests, the load, and the expected responses.

The same bytes verify a response, load a server and count instructions. Never connects to a server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from bench import exchanges
from bench.apps import plain
from bench.exchanges import Exchange

Kind = Literal["closed", "rate", "idle"]


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    - `exchanges` returns the requests of the load, which are sent in turn, again and again.
      `proofs` returns more requests, which are only verified.
    - `connections` are open at a time, and the load sends `pipeline` requests at once on each.
    - `threads` is the number of threads for servers that need them for this scenario.
    - `wait` is the mean time in seconds that the application waits in a request; 0: none or
      unknown.
    - `service` is a service that the application needs (`services.SERVICES`).
    - `kind` is the kind of load. `closed`: a connection sends its next request after the response
      (wrk). `rate`: `rate` requests a second are sent, no matter when responses arrive. `idle`:
      each connection sends one request, and then waits.
    - `limits`: nginx and the core without Python can answer it, too.
    - `system_calls`: the system calls are counted.
    - `memory`: the memory is measured, after it has become stable.
    """

    name: str
    title: str
    application: str
    exchanges: Callable[[], list[Exchange]]
    proofs: Callable[[], list[Exchange]] = list
    connections: int = 64
    pipeline: int = 1
    threads: int = 1
    wait: float = 0.0
    service: str = ""
    kind: Kind = "closed"
    rate: int = 0
    limits: bool = False
    system_calls: bool = False
    memory: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that a results file has about this scenario."""
        return {
            "title": self.title,
            "kind": self.kind,
            "connections": self.connections,
            "pipeline": self.pipeline,
            "threads": self.threads,
            "rate": self.rate,
            "ideal": self.ideal,
        }

    @property
    def ideal(self) -> float:
        """The requests a second if all threads only waited; 0: unknown."""
        return min(self.threads, self.connections) / self.wait if self.wait else 0.0


def _waiting(name: str, title: str, microseconds: int, connections: int = 32) -> Scenario:
    return Scenario(
        name,
        f"an application that waits {title}, 16 threads",
        "plain:wait",
        exchanges.wait(microseconds),
        connections=connections,
        threads=16,
        wait=microseconds / 1e6,
    )


def _computing(name: str, title: str, loops: int) -> Scenario:
    return Scenario(
        name,
        f"{title} of pure Python, 16 threads",
        "plain:compute",
        exchanges.compute(loops),
        connections=32,
        threads=16,
    )


_ALL = (
    Scenario(
        "hello",
        "hello world, 64 connections kept alive",
        "plain:hello",
        exchanges.hello(),
        limits=True,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "fields",
        "hello world, a request with seven headers like a browser's",
        "plain:hello",
        exchanges.hello(exchanges.BROWSER),
        limits=True,
    ),
    Scenario(
        "varied",
        "a different path, query, cookie and header order in each request",
        "plain:echo",
        exchanges.varied,
        system_calls=True,
    ),
    Scenario(
        "one",
        "hello world on one connection: latency",
        "plain:hello",
        exchanges.hello(),
        connections=1,
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "many",
        "hello world on 256 connections",
        "plain:hello",
        exchanges.hello(),
        connections=256,
        limits=True,
    ),
    Scenario(
        "close",
        "a new connection for every request",
        "plain:hello",
        exchanges.hello((("Connection", "close"),)),
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "pipelined",
        "hello world, 16 pipelined requests at a time",
        "plain:hello",
        exchanges.hello(),
        pipeline=16,
        limits=True,
        system_calls=True,
    ),
    Scenario(
        "post_1k",
        "POST of 1 kB with a Content-Length",
        "plain:upload",
        exchanges.post(1000),
        exchanges.post(1000, digest=True),
    ),
    Scenario(
        "post_1k_chunked",
        "POST of 1 kB in chunks",
        "plain:upload",
        exchanges.post(1000, 500),
        exchanges.post(1000, 500, digest=True),
    ),
    Scenario(
        "post_1m",
        "POST of 1 MB with a Content-Length",
        "plain:upload",
        exchanges.post(1 << 20),
        exchanges.post(1 << 20, digest=True),
        connections=16,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "post_1m_chunked",
        "POST of 1 MB in chunks of 16 kB",
        "plain:upload",
        exchanges.post(1 << 20, 16384),
        exchanges.post(1 << 20, 16384, digest=True),
        connections=16,
    ),
    Scenario(
        "response_fields",
        "a response with twelve headers",
        "plain:fields",
        exchanges.get(lambda: plain.HELLO, tuple(plain.FIELDS)),
    ),
    Scenario(
        "response_1m",
        "a response of 1 MB of bytes",
        "plain:large",
        exchanges.get(lambda: plain.LARGE),
        connections=16,
        system_calls=True,
        memory=True,
    ),
    Scenario(
        "file_10m",
        "a file of 10 MB by wsgi.file_wrapper",
        "plain:file",
        exchanges.get(plain.file_content),
        connections=8,
        memory=True,
    ),
    Scenario(
        "stream",
        "a stream of 100 chunks of 100 bytes",
        "plain:stream",
        exchanges.get(lambda: plain.CHUNK * plain.CHUNKS, size=False),
        system_calls=True,
    ),
    Scenario(
        "sleep",
        "an application that sleeps 50 ms, 16 threads",
        "plain:sleep",
        exchanges.hello(),
        threads=16,
        wait=plain.SLEEP,
    ),
    _waiting("wait_300us", "0.3 ms", 300),
    _waiting("wait_1ms", "1 ms", 1000),
    _waiting("wait_1ms_4", "1 ms, 4 connections", 1000, connections=4),
    _waiting("wait_1ms_256", "1 ms, 256 connections", 1000, connections=256),
    _waiting("wait_2ms", "2 ms", 2000),
    _waiting("wait_5ms", "5 ms", 5000),
    Scenario(
        "mixed",
        "40 % do not wait, 50 % wait 1 ms, 10 % wait 20 ms, 16 threads",
        "plain:wait",
        exchanges.mixed,
        connections=32,
        threads=16,
        wait=sum(wait * count for wait, count in exchanges.MIXED.items())
        / exchanges.MIXED_REQUESTS
        / 1e6,
    ),
    Scenario(
        "database",
        "a database stand-in that responds in 1 ms, 16 threads",
        "database_app:app",
        exchanges.database,
        connections=32,
        threads=16,
        wait=0.001,
        service="stand_in",
    ),
    Scenario(
        "postgres",
        "PostgreSQL, a query of 20 rows, 16 threads",
        "postgres_app:app",
        exchanges.postgres,
        connections=32,
        threads=16,
        service="postgres",
    ),
    _computing("compute_100us", "0.1 ms", plain.LOOPS_100US),
    _computing("compute_1ms", "1 ms", plain.LOOPS_1MS),
    Scenario("flask", "Flask: a route and JSON", "flask_app:app", exchanges.flask),
    Scenario(
        "django",
        "Django: middleware and a page from a template",
        "django_app:app",
        exchanges.django,
        memory=True,
    ),
    Scenario(
        "rate_2000",
        "hello world at 2,000 requests a second: latency",
        "plain:hello",
        exchanges.hello(),
        kind="rate",
        rate=2000,
        limits=True,
    ),
    Scenario(
        "rate_10000",
        "hello world at 10,000 requests a second: latency",
        "plain:hello",
        exchanges.hello(),
        kind="rate",
        rate=10_000,
        limits=True,
    ),
    Scenario(
        "idle",
        "10,000 idle connections: memory",
        "plain:hello",
        exchanges.hello(),
        connections=10_000,
        kind="idle",
        limits=True,
    ),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}


def samples(scenario: Scenario, most: int = 40) -> list[Exchange]:
    """Return the requests that are verified before a load: the proofs and the first of the load."""
    return [*scenario.proofs(), *islice(scenario.exchanges(), most)]
