"""The access log: its file, and the program that the core runs for each line.

Never formats a line. The core does, and escapes all bytes from outside (csrc/access.c).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.config.log_format import JSON_WITH_ID, Part, is_json, parse_format
from picowsgi.line_output import may_block, open_log
from picowsgi.log import get_logger
from picowsgi.system.terminal import is_terminal, wants_colour
from picowsgi.threads.line_relay import LineRelay

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings

_RESET = "\x1b[0m"
_SLOW_COLOUR = "\x1b[1;35m"
#: The colours of a status, by its first digit.
_STATUS_COLOURS = {"2": "\x1b[32m", "3": "\x1b[36m", "4": "\x1b[33m", "5": "\x1b[1;31m"}

_CODES = {
    "h": core.ATOM_ADDRESS,
    "u": core.ATOM_USER,
    "m": core.ATOM_METHOD,
    "R": core.ATOM_TARGET,
    "U": core.ATOM_PATH,
    "q": core.ATOM_QUERY,
    "H": core.ATOM_PROTOCOL,
    "s": core.ATOM_STATUS,
    "B": core.ATOM_BYTES,
    "b": core.ATOM_BYTES_OR_DASH,
    "T": core.ATOM_SECONDS,
    "L": core.ATOM_DECIMAL_SECONDS,
    "M": core.ATOM_MILLISECONDS,
    "D": core.ATOM_MICROSECONDS,
    "Q": core.ATOM_QUEUE,
    "c": core.ATOM_CLOCK,
    "t": core.ATOM_TIME,
    "I": core.ATOM_REQUEST_ID,
    "d": core.ATOM_DURATION,
}


#: The lines go to this logger if the program, or --log-config, has added handlers to it.
_logger = logging.getLogger("picowsgi.access")


def _write_records(_descriptor: int, lines: bytes, note: Callable[[bytes], object]) -> int:
    """Write a record for each line; the function `write` of a `LineRelay`."""
    for line in lines.splitlines(keepends=True):
        _logger.info("%s", line.rstrip(b"\n").decode("latin-1"))
        note(line)
    return 0


class AccessLog:
    """The output of the lines, and the program that makes them; `descriptor` -1: no file.

    Raises OSError if the file cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.access_log_file
        is_logged = self._path == "-" and bool(_logger.handlers)
        wanted = settings.access_log == "on"
        if settings.access_log == "auto":
            wanted = is_logged or is_terminal(sys.stdout)
        self.descriptor = self._open() if wanted and not is_logged else -1
        self._relay = self._make_relay()
        if wanted and is_logged:
            if _logger.level == logging.NOTSET:
                _logger.setLevel(logging.INFO)
            self._relay = LineRelay(-1, _write_records)
        #: In a terminal the core writes each line at once, and a line may have colours.
        self.in_terminal = self.descriptor >= 0 and os.isatty(self.descriptor)
        form = settings.access_log_format
        if form == "auto":
            form = "short" if self.in_terminal else "combined"
            if settings.log_format == "json":
                form = "json"
        if form == "json" and settings.request_id:
            form = JSON_WITH_ID
        self.json = is_json(form)
        #: Whether requests get an id, for the log or the application.
        self.request_ids = settings.request_id or Part("letter", "I") in parse_format(form)
        marks = self.in_terminal or form == "short"
        self.program = compile_format(
            form,
            slow=settings.access_log_slow if marks else 0.0,
            colour=wants_colour(
                in_terminal=self.in_terminal, standard=self._path == "-" and not is_logged
            ),
        )

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        return open_log(self._path)

    def _make_relay(self) -> LineRelay | None:
        """Return a relay if a write to the descriptor may block, else None."""
        if self.descriptor >= 0 and may_block(self.descriptor):
            return LineRelay(self.descriptor)
        return None

    @property
    def output(self) -> core.AccessOutput:
        """The output as the core needs it."""
        return core.AccessOutput(
            self._for_core, self.program, self.json, self.in_terminal, self.request_ids
        )

    @property
    def _for_core(self) -> int:
        return self.descriptor if self._relay is None else self._relay.fileno()

    def start(self) -> None:
        """Begin to write. Call this once, in the process that serves."""
        if self._relay is not None:
            self._relay.start()

    def reopen(self, log_to: Callable[[int], object]) -> None:
        """Open the file again, after a rotation, and call `log_to` with the core's new descriptor.

        If the file cannot be opened, the function logs that, and the old file stays in use.
        """
        if self.descriptor >= 0 and self._path != "-":
            try:
                new = self._open()
            except OSError as error:
                get_logger().error("cannot open the access log again: %s", error)
                return
            if self._relay is not None:
                self.descriptor = new
                self._relay.write_to(new)
                return
            old, self.descriptor = self.descriptor, new
            self._relay = self._make_relay()
            self.start()
            log_to(self._for_core)
            os.close(old)

    def close(self, most: float = 2.0, quiet: float = 0.3) -> int:
        """Close the file, after the core's last write. Returns the number of lost lines.

        The function waits for unwritten lines, as `LineRelay.close` does.
        """
        relay, self._relay = self._relay, None
        descriptor, self.descriptor = self.descriptor, -1
        if relay is not None:
            return relay.close(most, quiet)
        if descriptor >= 0:
            os.close(descriptor)
        return 0


def compile_format(text: str, *, slow: float = 0.0, colour: bool = False) -> bytes:
    """Return the program for a format (`config.log_format`).

    The program marks requests of `slow` seconds or longer (0: no marks). With `colour` it colours
    the status. JSON has neither. Raises ValueError, whose text says what was expected.
    """
    json = is_json(text)
    program = b"".join(_compile(part, json, colour) for part in parse_format(text))
    return program if json or not slow else program + _slow_mark(slow, colour)


def _compile(part: Part, json: bool, colour: bool) -> bytes:
    if part.kind == "text":
        return _literal(part.text)
    if part.kind == "request field":
        return _atom(core.ATOM_FIELD, part.text)
    if part.kind == "response field":
        return _atom(core.ATOM_RESPONSE_FIELD, part.text)
    if part.text == "p":
        return _literal(str(os.getpid()) if json else f"<{os.getpid()}>")
    if part.text == "t" and not json:
        return _literal("[") + _atom(core.ATOM_TIME) + _literal("]")
    if part.text == "s" and colour and not json:
        return _coloured_status()
    return _atom(_CODES[part.text])


def _atom(code: int, text: str = "") -> bytes:
    data = text.encode("latin-1")
    return bytes([code]) + len(data).to_bytes(2, "big") + data


def _literal(text: str) -> bytes:
    return _atom(core.ATOM_LITERAL, text)


def _coloured_status() -> bytes:
    begin = [_atom(core.ATOM_IF_STATUS, digit + code) for digit, code in _STATUS_COLOURS.items()]
    return b"".join(begin) + _atom(core.ATOM_STATUS) + _literal(_RESET)


def _slow_mark(seconds: float, colour: bool) -> bytes:
    text = f"{_SLOW_COLOUR}slow{_RESET}" if colour else "slow"
    least = int(seconds * 1000).to_bytes(4, "big").decode("latin-1")
    return _atom(core.ATOM_IF_SLOW, f"{least} {text}")
