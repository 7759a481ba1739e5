"""A program in a terminal of its own, as a developer uses it: keys, output and settings."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support import outer_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

START_TIMEOUT = 30.0
CTRL_C = "\x03"


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`python ARGUMENTS` as the foreground program of a terminal. `text` is the output so far."""

    def __init__(
        self, arguments: list[str], directory: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.text = ""
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**outer_environ(), "TERM": "xterm", "NO_COLOR": "1", **(environ or {})},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            preexec_fn=_take_terminal,
        )
        self._inner = inner  # open, so that the output can be read after the end
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._screen, 65536):
                with self._changed:
                    self.text += data.decode("utf-8", "replace").replace("\r\n", "\n")
                    self._changed.notify_all()

    def wait_for(self, pattern: str, start: int = 0) -> re.Match[str]:
        """Wait until a part of the output after `start` matches."""
        deadline = time.monotonic() + START_TIMEOUT
        with self._changed:
            while not (found := re.compile(pattern).search(self.text, start)):
                left = deadline - time.monotonic()
                assert left > 0, f"expected {pattern!r}, got only:\n{self.text[start:]}"
                self._changed.wait(left)
        return found

    @property
    def port(self) -> int:
        """The port that the server announces."""
        return int(self.wait_for(r"http://127\.0\.0\.1:([1-9]\d*)\D")[1])

    def press(self, keys: str) -> int:
        """Type these keys. Returns the length of the output before."""
        with self._changed:
            length = len(self.text)
        os.write(self._screen, keys.encode())
        return length

    def wait(self, timeout: float = START_TIMEOUT) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(timeout)

    def is_as_before(self) -> bool:
        """Return whether the terminal has the settings that it had before the program."""
        return termios.tcgetattr(self._inner) == self.before

    def end(self) -> None:
        """Kill the program, and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._inner)
        self._reader.join(START_TIMEOUT)
        os.close(self._screen)
