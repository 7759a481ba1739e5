"""picowsgi as a command, in a separate process: the fixtures of several folders of tests."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import outer_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


REPOSITORY = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
LISTENS = r"http://(?:127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1?\]):[1-9]\d*"


class Command:
    """A picowsgi process: its URL once it listens, its log, and its end.

    It leads a group of its own, as in a terminal. `stdout`: its standard output is in the log too,
    or goes to this descriptor.
    """

    def __init__(
        self,
        arguments: list[str],
        directory: Path,
        environ: Mapping[str, str],
        stdout: bool | int = False,
    ) -> None:
        is_seen = stdout is True
        elsewhere = subprocess.DEVNULL if stdout is False else stdout
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**outer_environ(), "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_seen else elsewhere,
            stderr=subprocess.STDOUT if is_seen else subprocess.PIPE,
            start_new_session=True,
        )
        self._output = self.process.stdout if is_seen else self.process.stderr
        os.set_blocking(self._output.fileno(), False)
        self.url = ""
        self._written = b""
        self._ended = False
        self._known = threading.Event()
        self._changed = threading.Condition()
        self._no_more, self._done = socket.socketpair()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """All that the process has written so far, to the last byte."""
        with self._changed:
            self._take()
            return self._written.decode("utf-8", "replace")

    def wait_until_it_listens(self) -> None:
        announced = self._known.wait(START_TIMEOUT)
        assert announced, f"expected a start line with the URL, got only:\n{self.log}"
        assert self.url, f"expected a start line with the URL, but it ended:\n{self.log}"

    @property
    def port(self) -> int:
        """The port in its URL."""
        return int(self.url.rpartition(":")[2])

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the process has written `text` so many times."""
        with self._changed:
            written = self._changed.wait_for(lambda: self.log.count(text) >= count, STOP_TIMEOUT)
        assert written, f"expected {text!r} {count} times, got only:\n{self.log}"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(how)
        return self.wait()

    def interrupt(self) -> int:
        """Act as Ctrl-C in a terminal, wait for the end, and return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit and return its status; `log` then has the whole output of the process.

        A process that it has started may live longer and have the same output.
        """
        return self.process.wait(STOP_TIMEOUT)

    def end(self) -> None:
        """Kill the rest of the process."""
        with suppress(ProcessLookupError):  # and its whole group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._done.close()
        self._reader.join(STOP_TIMEOUT)
        self._no_more.close()
        self._output.close()

    def _read(self) -> None:
        while not self._ended:
            ready, _, _ = select.select([self._output, self._no_more], [], [])
            log = self.log
            if not self.url and (found := re.search(LISTENS, log[: log.rfind("\n") + 1])):
                self.url = found[0]
                self._known.set()
            if self._no_more in ready:
                break
        self._known.set()

    def _take(self) -> None:
        """Read the bytes in the pipe. Each reader of the log does it, not one thread alone."""
        while not self._ended:
            try:
                part = os.read(self._output.fileno(), 65536)
            except BlockingIOError:
                return
            self._written += part
            self._ended = not part
            self._changed.notify_all()


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    """Start `python ARGUMENTS` and wait for its URL: `command("-m", "picowsgi", "app:app")`."""
    started: list[Command] = []

    def start(
        *arguments: str | Path,
        directory: Path = REPOSITORY,
        environ: Mapping[str, str] | None = None,
        stdout: bool | int = False,
        listens: bool = True,
    ) -> Command:
        one = Command([str(argument) for argument in arguments], directory, environ or {}, stdout)
        started.append(one)
        if listens:
            one.wait_until_it_listens()
        return one

    yield start
    for one in started:
        one.end()


@pytest.fixture
def picowsgi(command: Callable[..., Command]) -> Callable[..., Command]:
    """Start the command on a free port: `picowsgi("examples/function.py")`."""

    def start(*arguments: str | Path, **options: object) -> Command:
        return command("-m", "picowsgi", "--port", "0", *arguments, **options)

    return start
