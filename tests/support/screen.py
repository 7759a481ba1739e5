"""`picowsgi top` in a pseudo-terminal, and the text on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

from support.client import TIMEOUT
from support.observe import outer_environ, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: What the display writes at its begin and at its end.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def environ(**more: str) -> dict[str, str]:
    """Return an environment that decides nothing about colours and sizes."""
    kept = {
        name: value
        for name, value in outer_environ().items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")
    }
    return {**kept, "TERM": "xterm", "PYTHONUTF8": "1", **more}


def top(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "picowsgi", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environ(**more),
        check=False,
    )


def without_colours(text: str) -> str:
    """Return a text without the sequences for its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Terminal:
    """`picowsgi top` in a pseudo-terminal of a size, and the text on its screen.

    `before`: commands of the shell that starts it. `more`: variables of its environment.
    """

    def __init__(
        self,
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        stdin: int | None = None,
        start_new_session: bool = True,
        before: str = "",
        **more: str,
    ) -> None:
        self._outer, inner = pty.openpty()
        self.written = ""
        self.resize(*size)
        self.mode = termios.tcgetattr(inner)
        self.process = subprocess.Popen(
            [
                *("sh", "-c", f'{before} exec "$@"', "sh"),
                *(sys.executable, "-m", "picowsgi", "top", *arguments),
            ],
            stdin=inner if stdin is None else stdin,
            stdout=inner,
            stderr=inner,
            env=environ(**more),
            start_new_session=start_new_session,
            preexec_fn=None if start_new_session else os.setpgrp,
        )
        self.inner = inner

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Type these keys."""
        os.write(self._outer, keys)

    def read(self, seconds: float) -> bool:
        """Read what comes within this time; return whether there was something."""
        if not select.select([self._outer], [], [], seconds)[0]:
            return False
        self.written += os.read(self._outer, 65536).decode()
        return True

    def wait_for(self, condition: Callable[[list[str]], Any], wanted: str) -> list[str]:
        """Wait until the condition is true of the lines of the last screen."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(lines := self.lines()):
            assert time.monotonic() < deadline, f"expected {wanted}, got {lines} {self.written!r}"
            self.read(0.1)
        return lines

    def wait_for_text(self, pattern: str) -> list[str]:
        """Wait until a part of the last screen matches."""
        return self.wait_for(
            lambda lines: re.search(pattern, "\n".join(lines)), f"the text {pattern!r}"
        )

    def lines(self) -> list[str]:
        """Return the lines of the last whole screen, without colours."""
        frames = re.split(r"(?=\x1b\[1;1H)", self.written)
        whole = [frame for frame in frames[1:] if frame is not frames[-1] or "\x1b[J" in frame]
        if not whole:
            return []
        text = without_colours(whole[-1].partition("\x1b[?25h")[0])
        return re.findall(r"\x1b\[\d+;1H\x1b\[2K([^\x1b]*)", text)

    def finish(self) -> int:
        """Wait for the end, and check that the terminal is as before. Return the exit status."""
        wait_until(self._has_ended, "the end")
        while self.read(0.05):
            pass
        assert self.written.count("\x1b[?1049h") == self.written.count("\x1b[?1049l")
        assert self.written.count("\x1b[?25l") == self.written.count("\x1b[?25h")
        assert self.written.rpartition("\x1b[?1049h")[2].count(LEAVE) == 1
        assert termios.tcgetattr(self.inner) == self.mode
        return self.process.returncode

    def _has_ended(self) -> bool:
        self.read(0.01)
        return self.process.poll() is not None

    def end(self) -> None:
        """Kill the command if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.inner)
        os.close(self._outer)
