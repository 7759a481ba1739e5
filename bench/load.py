"""Loads a server with wrk (a closed loop), open_loop (a fixed rate), or many idle connections.

Never checks the body of a response: `verify` did that before. Here they are only counted.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import BenchError
from bench.scenarios import Scenario

LUA = Path(__file__).resolve().parent / "lua" / "load.lua"
TIMEOUT = 10

_RESULT = re.compile(r"^RESULT (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """The result of a load. `latency` has microseconds by percentile, such as "99"."""

    requests: int
    seconds: float
    latency: dict[str, float]
    bytes: int = 0


@contextmanager
def request_file(scenario: Scenario, *, framed: bool) -> Iterator[str]:
    """Write the requests of a scenario to a file. `framed`: a line with its size before each."""
    with tempfile.NamedTemporaryFile(prefix="bench-requests-") as file:
        for exchange in scenario.exchanges():
            data = exchange.request * scenario.pipeline
            if framed:
                file.write(b"%d\n" % len(data))
            file.write(data)
        file.flush()
        yield file.name


def closed_loop(
    scenario: Scenario, file: str, port: int, seconds: float, processor: int | None
) -> Load:
    """Run wrk with a framed request file. Raises BenchError if wrk reports any error."""
    # wrk accepts only whole seconds.
    text = _run(
        [
            *("wrk", "--threads", "1", "--connections", str(scenario.connections)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", f"{TIMEOUT}s"),
            *("--script", str(LUA), f"http://127.0.0.1:{port}", "--", file),
        ],
        processor,
        seconds + TIMEOUT + 20,
    )
    return parse_wrk(text)


def parse_wrk(text: str) -> Load:
    """Parse the output of wrk with load.lua. Raises BenchError if it reports an error."""
    result = _parse(text, "wrk")
    errors = {kind: count for kind, count in result["errors"].items() if count}
    if errors:
        seen = ", ".join(f"{count} {kind}" for kind, count in errors.items())
        raise BenchError(f"errors under load: {seen}, in {result['requests']} requests")
    if result["requests"] == 0:
        raise BenchError("no request was answered under load")
    return Load(
        result["requests"], result["microseconds"] / 1e6, result["latency"], result["bytes"]
    )


def fixed_rate(
    program: Path, scenario: Scenario, size: int, port: int, seconds: float, processor: int | None
) -> Load:
    """Run open_loop. `size` is that of a response body. Raises BenchError for wrong responses."""
    with request_file(scenario, framed=False) as file:
        text = _run(
            [
                *(str(program), str(port), str(scenario.rate), f"{seconds:g}"),
                *(str(scenario.connections), str(size), file),
            ],
            processor,
            seconds + 20,
        )
    return parse_open_loop(text, scenario.rate)


def parse_open_loop(text: str, rate: int) -> Load:
    """Parse the output of open_loop. Raises BenchError if a response is wrong or missing."""
    result = _parse(text, "open_loop")
    if result["wrong"]:
        raise BenchError(f"{result['wrong']} wrong responses, {result['requests']} correct ones")
    due = result["requests"] + result["lost"]
    if result["lost"]:
        raise BenchError(
            f"cannot keep up with {rate} requests a second: {result['lost']} of {due} had no "
            "response two seconds after the end"
        )
    return Load(result["requests"], result["seconds"], result["latency"])


@contextmanager
def idle_connections(port: int, request: bytes, count: int, marker: bytes) -> Iterator[None]:
    """Open `count` connections, each with one request and a response that contains `marker`.

    Raises BenchError if the server does not keep all of them open.
    """
    with ExitStack() as stack:
        opened: list[socket.socket] = []
        for _ in range(0, count, 100):
            batch = []
            for _ in range(min(100, count - len(opened))):
                try:
                    client = socket.create_connection(("127.0.0.1", port), TIMEOUT)
                except OSError as error:
                    raise BenchError(f"connection {len(opened) + 1}: {error}") from error
                stack.callback(client.close)
                client.sendall(request)
                batch.append(client)
            opened += batch
            for number, client in enumerate(batch, len(opened) - len(batch) + 1):
                _expect(client, marker, number)
        yield
        ended = _count_ended(opened)
        if ended:
            raise BenchError(f"the server has closed {ended} of {count} idle connections")


def _expect(client: socket.socket, marker: bytes, number: int) -> None:
    data = b""
    while marker not in data:
        try:
            more = client.recv(65536)
        except OSError as error:
            raise BenchError(f"no response on idle connection {number}: {error}") from error
        if not more:
            raise BenchError(f"idle connection {number} was closed without a response")
        data += more


def _count_ended(clients: Sequence[socket.socket]) -> int:
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        return len(selector.select(0))


def _parse(text: str, program: str) -> dict[str, Any]:
    match = _RESULT.search(text)
    if match is None:
        last: Iterable[str] = text.strip().splitlines()[-1:] or ["nothing"]
        raise BenchError(f"{program} printed no result, but: {' '.join(last)}")
    return json.loads(match[1])  # type: ignore[no-any-return]


def _run(command: list[str], processor: int | None, timeout: float) -> str:
    pinned = ["taskset", "--cpu-list", str(processor)] if processor is not None else []
    try:
        done = subprocess.run(
            [*pinned, *command], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {timeout:.0f} s") from None
    return done.stdout + done.stderr
