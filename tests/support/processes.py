"""Helpers for tests of processes and signals: an application, clients, the state of processes."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from picowsgi.system.cpus import has_gil

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

PROCESS_TIMEOUT = 15.0

needs_gil = pytest.mark.skipif(
    not has_gil(), reason="without the GIL no thread can block the others"
)

#: Responds as the path asks: with its process id, its version, or the size of a list.
APP = """
import os, re, sys, time
from pathlib import Path

VERSION = "1"
HERE = Path(__file__).parent
kept = []

def app(environ, start_response):
    path = environ["PATH_INFO"]
    answer = VERSION
    if path == "/pid":
        answer = str(os.getpid())
    elif path == "/hold":
        # Until the test releases it; the file shows that the request runs.
        (HERE / "held").touch()
        while not (HERE / "release").exists():
            time.sleep(0.005)
        answer = "released"
    elif path == "/grow":
        kept.append(b"x" * (150 << 20))
    elif path == "/spin":
        hold_the_interpreter()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]

def hold_the_interpreter():
    re.match("(a+)+$", "a" * 60 + "b")
"""


def write_app(directory: Path, text: str = APP) -> None:
    """Write the application as app.py, in one step, so that no process imports half of it."""
    draft = directory / "draft"
    draft.write_text(text)
    draft.replace(directory / "app.py")
    # Python would take a file of the same size and second for the compiled one.
    for compiled in (directory / "__pycache__").glob("app.*"):
        compiled.unlink()


def ask(port: int, path: str = "/") -> str:
    """Send a request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROCESS_TIMEOUT)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def eventually(what: Callable[[], object], wanted: str) -> None:
    """Wait until `what()` is true, for states that no message reports."""
    deadline = time.monotonic() + PROCESS_TIMEOUT
    while not what():
        assert time.monotonic() < deadline, f"expected {wanted} within {PROCESS_TIMEOUT:g} s"
        time.sleep(0.01)


def is_refused(port: int) -> bool:
    """Return whether a new connection is refused."""
    try:
        socket.create_connection(("127.0.0.1", port), PROCESS_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    return False


def listens(port: int) -> bool:
    """Return whether a socket listens on a port, without connecting."""
    files = [file for file in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if file.exists()]
    lines = [line for file in files for line in file.read_text().splitlines()[1:]]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def lives(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def threads(pid: int) -> int:
    """Return how many threads the process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


class Load:
    """Clients that send requests without a pause while the block runs. No request may fail.

    Some keep their connections as long as the server does, some open one for each request.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._counts = {"kept": 0, "opened": 0}
        self._changed = threading.Condition()
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(kind,), daemon=True)
            for kind in ("kept", "kept", "kept", "opened", "opened")
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PROCESS_TIMEOUT)
        if error is None:
            assert not self._failures, f"{len(self._failures)} failed: {self._failures[:3]}"

    def wait_for_more(self, count: int = 50) -> None:
        """Wait until so many more requests of either kind have been answered."""
        with self._changed:
            goal = {kind: done + count for kind, done in self._counts.items()}
            enough = self._changed.wait_for(
                lambda: all(self._counts[kind] >= goal[kind] for kind in goal), PROCESS_TIMEOUT
            )
        assert enough, f"expected more responses: {self._counts}, {self._failures[:3]}"

    def _run(self, kind: str) -> None:
        headers = {"Connection": "close"} if kind == "opened" else {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROCESS_TIMEOUT)
        while not self._over.is_set():
            try:
                # It connects again automatically, but only after a response with `Connection:
                # close`.
                connection.request("GET", "/", headers=headers)
                response = connection.getresponse()
                response.read()
                assert response.status == 200
            except Exception as error:
                self._failures.append(f"{kind}: {error!r}")
                connection.close()
            with self._changed:
                self._counts[kind] += 1
                self._changed.notify_all()
        connection.close()
