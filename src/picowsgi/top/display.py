"""The terminal: its mode, its size and its screen. Never decides what to show.

The display uses the alternate screen, so the earlier output of the terminal is still there after
the end. All terminals of today know these control sequences of xterm.
"""

from __future__ import annotations

import os
import select
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from picowsgi.top.draw import ASCII_BLOCKS, BLOCKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import TextIO

_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[2J"  # the alternate screen, without a cursor
_LEAVE = b"\x1b[0m\x1b[?25h\x1b[?1049l"
#: Used if the terminal does not know its size, as on a serial line.
_SIZE = os.terminal_size((80, 24))
#: Seconds at the end for a terminal that takes no bytes.
_END_WAIT = 0.5


class Display:
    """The screen of a terminal, as a context manager. Its end restores the terminal."""

    def __init__(self, stdin: TextIO | None, stdout: TextIO) -> None:
        self._out = stdout.fileno()
        self._keyboard = _find_keyboard(stdin)
        #: The descriptor to read keys from; None: no key can come.
        self.keys = self._keyboard
        self.blocks = BLOCKS if _can_write(BLOCKS, stdout) else ASCII_BLOCKS
        self._mode = None if self._keyboard is None else _mode_of(self._keyboard)

    def __enter__(self) -> Display:
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Show an empty screen, and read keys one by one without their echo."""
        if self._keyboard is not None and self._mode is not None:
            _set_mode(self._keyboard, _without_echo(self._mode))
        self._write(_ENTER)

    def leave(self) -> None:
        """Restore the mode and the screen of the terminal, if it still exists."""
        with suppress(termios.error):
            termios.tcflow(self._out, termios.TCOON)  # after Ctrl-S it would take no bytes
        if self._keyboard is not None and self._mode is not None:
            with suppress(OSError):
                _set_mode(self._keyboard, self._mode)
        with suppress(OSError):
            if select.select([], [self._out], [], _END_WAIT)[1]:
                self._write(_LEAVE)

    def size(self) -> os.terminal_size:
        """Return the current width and height."""
        try:
            size = os.get_terminal_size(self._out)
        except OSError:
            return _SIZE
        return size if size.columns > 0 and size.lines > 0 else _SIZE

    def show(self, lines: Sequence[str]) -> None:
        """Replace the screen by these lines, as many as it has room for.

        None of them may be wider than the terminal.
        """
        height = self.size().lines
        shown = lines[:height]
        # A line is erased before its text: after the last column the cursor may still be on it.
        text = "".join(f"\x1b[{row};1H\x1b[2K{line}" for row, line in enumerate(shown, 1))
        if len(shown) < height:
            text += f"\x1b[{len(shown) + 1};1H\x1b[J"
        self._write(text.encode("utf-8", "replace"))

    def read_keys(self) -> bytes:
        """Return the keys that were pressed. Call this when `keys` is readable."""
        if self.keys is None:
            return b""
        pressed = b""
        with suppress(OSError):  # the terminal has gone
            pressed = os.read(self.keys, 1024)
        if not pressed:
            self.keys = None
        return pressed

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]


# termios.error is no OSError.


def _mode_of(descriptor: int) -> list[Any]:
    try:
        return termios.tcgetattr(descriptor)
    except termios.error as error:
        raise OSError(*error.args) from None


def _set_mode(descriptor: int, mode: list[Any]) -> None:
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    except termios.error as error:
        raise OSError(*error.args) from None


def _without_echo(mode: list[Any]) -> list[Any]:
    """Return a mode in which each key can be read at once, and is not shown."""
    controls = [*mode[6]]
    controls[termios.VMIN], controls[termios.VTIME] = 1, 0
    return [*mode[:3], mode[3] & ~(termios.ICANON | termios.ECHO), *mode[4:6], controls]


def _find_keyboard(stdin: TextIO | None) -> int | None:
    try:
        descriptor = stdin.fileno() if stdin is not None else -1
    except (OSError, ValueError):  # it is closed, or has no descriptor
        return None
    return descriptor if descriptor >= 0 and os.isatty(descriptor) else None


def _can_write(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
