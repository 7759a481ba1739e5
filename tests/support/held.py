"""An application that holds its requests until the test releases them, and clients of it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from support import RawClient
from support.processes import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

# Seconds after which a server that cuts open requests has done so.
HELD = 1.3
GET = b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

#: Holds requests until the test releases them; each running request makes a file.
HOLDING_APP = """
import itertools, os, time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
numbers = itertools.count()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        with suppress(OSError):  # there may be no free descriptor
            (HERE / f"held-{os.getpid()}-{next(numbers)}").touch()
        while not (HERE / "release").exists():
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


class Held:
    """Requests that are in the application or wait for it, until they are released."""

    def __init__(self, directory: Path, port: int, count: int, running: int | None = None) -> None:
        """Send `count` requests, and wait until `running` of them (or all) run."""
        self._directory = directory
        self._stack = ExitStack()
        self.clients = [self._stack.enter_context(RawClient(port)) for _ in range(count)]
        for client in self.clients:
            client.send(GET)
        wanted = count if running is None else running
        eventually(lambda: len(self.running()) >= wanted, f"{wanted} requests to run")

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        (self._directory / "release").touch()
        self._stack.close()

    def running(self) -> list[int]:
        """Return the process of each request that has reached the application."""
        return [int(file.name.split("-")[1]) for file in self._directory.glob("held-*")]

    def check_that_all_are_answered(self) -> None:
        """Release them, and read a complete response for each."""
        (self._directory / "release").touch()
        for number, client in enumerate(self.clients):
            response = client.read_response()
            assert (response.status, response.complete) == (200, True), f"request {number}"


def hold_on(command: Any, seconds: float = HELD) -> None:
    """Wait as long as a server needs that cuts open requests."""
    time.sleep(seconds)
    assert command.process.poll() is None, (
        f"expected the server to wait for its requests: {command.log}"
    )
