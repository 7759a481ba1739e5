"""Instances of picowsgi behind a proxy, and clients that load the proxy."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.observe import outer_environ
from support.processes import PROCESS_TIMEOUT, children, eventually, listens, lives

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POSTED = b"y" * 2000
CONTENT = b"x" * 3000

#: Names its instance in each response. A request takes 50 ms if its query is "slow".
APP = """
import hashlib, json, os, time
from pathlib import Path

HERE = Path(__file__).parent
INSTANCE = ("Instance", os.environ["INSTANCE"])

def app(environ, start_response):
    if environ["QUERY_STRING"] == "slow":
        time.sleep(0.05)
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [INSTANCE])
        return stream()
    if environ["PATH_INFO"] == "/environ":
        body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    elif environ["REQUEST_METHOD"] == "POST":
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(1 << 16):
            digest.update(piece)
        body = digest.hexdigest().encode()
    else:
        body = b"x" * 3000
    start_response("200 OK", [INSTANCE, ("Content-Length", str(len(body)))])
    return [body]

def stream():
    yield b"first"
    until = time.monotonic() + 10
    while not (HERE / "release").exists():
        if time.monotonic() > until:
            raise TimeoutError("the client has not read the first piece")
        time.sleep(0.005)
    for _ in range(500):
        yield b"z" * 10000
"""


def free_port() -> int:
    """Return a port that is free at all addresses.

    It is below those that the system gives to clients. A program that listens at all addresses
    cannot have the port of a client.
    """
    while True:
        port = random.randrange(15000, 32000)
        try:
            socket.create_server(("", port)).close()
        except OSError:
            continue
        return port


class Instance:
    """A picowsgi that always comes back at its address: a port of 127.0.0.1, or a unix socket."""

    def __init__(
        self,
        name: str,
        directory: Path,
        options: Sequence[str],
        *,
        port: int = 0,
        unix: Path | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.unix = unix
        self._directory = directory
        self._options = options
        self._log = directory / f"{name}.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "picowsgi", *self._options, "app:app"],
                cwd=self._directory,
                env={**outer_environ(), "INSTANCE": self.name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}" if self.unix is None else f"unix:{self.unix}"

    def serves(self) -> bool:
        """Return whether it listens, without a connection to it."""
        assert self.process.poll() is None, f"expected {self.name} to run: {self.log}"
        return listens(self.port) if self.unix is None else self.unix.exists()

    def stop(self) -> None:
        """Send SIGTERM, and wait for a normal end."""
        self.process.terminate()
        self.wait()

    def wait(self) -> None:
        status = self.process.wait(PROCESS_TIMEOUT)
        assert status == 0, f"expected {self.name} to end with 0, got {status}: {self.log}"

    def restart(self) -> None:
        self.stop()
        self.start()

    def end(self) -> None:
        """Kill it, with its workers."""
        kill_group(self.process)


def kill_group(leader: subprocess.Popen[bytes]) -> None:
    """Kill a process and its workers, and wait for the end of all."""
    workers = children(leader.pid)
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    eventually(lambda: not any(map(lives, workers)), "the workers to end")


def wait_for_all(instances: Sequence[Instance]) -> None:
    for one in instances:
        eventually(one.serves, f"{one.name} to listen")


class Program:
    """A proxy in a process group of its own. Its output is in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, **environ: str) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(command),
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_port(self, port: int) -> None:
        def is_open() -> bool:
            assert self.process.poll() is None, f"expected the proxy to run: {self.log}"
            return listens(port)

        eventually(is_open, "the proxy to listen")

    def end(self) -> None:
        """Kill it, with its workers."""
        kill_group(self.process)


def connect_to(
    port: int, context: ssl.SSLContext | None = None, source: str = "127.0.0.2"
) -> http.client.HTTPConnection:
    """Return a connection from the address `source`, over TLS with a context."""
    options = {"timeout": PROCESS_TIMEOUT, "source_address": (source, 0)}
    if context is None:
        return http.client.HTTPConnection("127.0.0.1", port, **options)  # type: ignore[arg-type]
    return http.client.HTTPSConnection("localhost", port, context=context, **options)  # type: ignore[arg-type]


class Clients:
    """They send requests without a pause, on persistent connections or one for each request.

    A third of the requests is slow, and a third has a body.
    """

    def __init__(self, connect: Callable[[], http.client.HTTPConnection]) -> None:
        self._connect = connect
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.answered = 0
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._latest: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0, number % 3), daemon=True)
            for number in range(6)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PROCESS_TIMEOUT)

    def wait_for_more(self, count: int = 200) -> None:
        goal = self.answered + count
        eventually(lambda: self.answered >= goal, f"{count} more responses ({self.failed[:3]})")

    def without(self, name: str) -> int:
        """Return how many responses there were since the last one of this instance."""
        with self._lock:
            return self.answered - self._latest.get(name, 0)

    def check(self) -> None:
        assert self.failed == [], (
            f"expected no failure, got {len(self.failed)} beside {self.answered} responses: "
            f"{self.failed[:3]}"
        )

    def _run(self, stays: bool, kind: int) -> None:
        connection = self._connect()
        while not self._over.is_set():
            began = time.monotonic()
            name = ""
            try:
                if kind == 2:
                    connection.request("POST", "/", POSTED)
                else:
                    connection.request("GET", "/?slow" if kind == 0 else "/")
                response = connection.getresponse()
                size = len(response.read())
                name = response.getheader("Instance", "")
                expected = 64 if kind == 2 else len(CONTENT)
                problem = "" if (response.status, size) == (200, expected) else str(response.status)
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
                connection.close()
            if not stays:
                connection.close()
            with self._lock:
                if problem:
                    took = time.monotonic() - began
                    self.failed.append(f"{'POST' if kind == 2 else 'GET'} {problem} {took:.3f} s")
                else:
                    self.answered += 1
                    self.served[name] += 1
                    self._latest[name] = self.answered
        connection.close()
