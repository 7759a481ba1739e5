"""The format of the access log, compiled to the program that the core runs for each line.

Never formats a line: that is the core's (csrc/access.c), which escapes what comes from outside.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.log import get_logger
from picowsgi.system.terminal import is_terminal, wants_colour

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings

COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
COMBINED = COMMON + ' "%(f)s" "%(a)s"'
#: One JSON object a line; durations are microseconds.
JSON = (
    '{"time":"%(t)s","remote_addr":"%(h)s","user":"%(u)s","method":"%(m)s","target":"%(R)s",'
    '"protocol":"%(H)s","status":%(s)s,"bytes":%(B)s,"duration":%(D)s,"queued":%(Q)s,'
    '"referer":"%(f)s","user_agent":"%(a)s","pid":%(p)s}'
)
#: For somebody who looks on.
SHORT = "%(c)s %(s)s %(m)s %(R)s %(B)s B %(d)s"
_NAMED = {"common": COMMON, "combined": COMBINED, "json": JSON, "short": SHORT}

_RESET = "\x1b[0m"
_SLOW_COLOUR = "\x1b[1;35m"
#: By the first digit of the status.
_STATUS_COLOURS = {"2": "\x1b[32m", "3": "\x1b[36m", "4": "\x1b[33m", "5": "\x1b[1;31m"}

_ATOM = re.compile(r"%(?:%|\((?:\{([^{}()]+)\}([a-z])|([A-Za-z]))\)s)")
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
    "d": core.ATOM_DURATION,
}
_FIELDS = {"f": "referer", "a": "user-agent"}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")


class AccessLog:
    """Where the lines go, and the program that makes them; `descriptor` -1: nowhere.

    Raises OSError where the file cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.access_log_file
        wanted = settings.access_log == "on"
        if settings.access_log == "auto":
            wanted = is_terminal(sys.stdout)
        self.descriptor = self._open() if wanted else -1
        #: Somebody looks on: a line is written at once, and may have colours.
        self.in_terminal = self.descriptor >= 0 and os.isatty(self.descriptor)
        form = settings.access_log_format
        if form == "auto":
            form = "short" if self.in_terminal else "combined"
        self.json = is_json(form)
        marks = self.in_terminal or form == "short"
        self.program = compile_format(
            form,
            slow=settings.access_log_slow if marks else 0.0,
            colour=wants_colour(in_terminal=self.in_terminal, standard=self._path == "-"),
        )

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def reopen(self, log_to: Callable[[int], object]) -> None:
        """Open the file again, as after a rotation; `log_to` is told the new descriptor.

        Where it cannot be opened, that is logged, and the old file stays in use.
        """
        if self.descriptor >= 0 and self._path != "-":
            try:
                new = self._open()
            except OSError as error:
                get_logger().error("cannot open the access log again: %s", error)
                return
            old, self.descriptor = self.descriptor, new
            log_to(self.descriptor)
            os.close(old)

    def close(self) -> None:
        """Close the file; the core must not write any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check_format(text: str) -> None:
    """Raise ValueError, whose text says what was expected, where `text` is no format."""
    if text != "auto":
        compile_format(text)


def is_json(text: str) -> bool:
    """Tell whether the values of this format stand in JSON strings."""
    return text == "json" or text.lstrip().startswith("{")


def compile_format(text: str, *, slow: float = 0.0, colour: bool = False) -> bytes:
    """Return the program for `common`, `combined`, `json`, `short`, or a text with atoms.

    The atoms such as `%(h)s` are gunicorn's; picowsgi's own are R, the target as it came, Q, the
    microseconds that the complete request waited, c, the time of day, and d, the duration with
    its unit. A request of `slow` seconds or longer (0: none) is marked, and with `colour` the
    status has one; neither where the format is JSON. Raises ValueError, whose text says what was
    expected.
    """
    source = _NAMED.get(text, text)
    json = is_json(text)
    if not source.isprintable() or not source.isascii():
        raise ValueError(
            "auto, short, common, combined, json, or printable ASCII text with atoms like %(h)s"
        )
    program = b""
    position = 0
    for match in _ATOM.finditer(source):
        program += _literal(source[position : match.start()])
        position = match.end()
        name, kind, letter = match.groups()
        if match[0] == "%%":
            program += _literal("%", atoms=False)
        elif name is not None:
            program += _named(name, kind)
        elif letter == "s" and colour and not json:
            program += _coloured_status()
        else:
            program += _letter(letter, json)
    program += _literal(source[position:])
    return program if json or not slow else program + _slow_mark(slow, colour)


def _atom(code: int, text: str = "") -> bytes:
    data = text.encode("latin-1")
    return bytes([code]) + len(data).to_bytes(2, "big") + data


def _coloured_status() -> bytes:
    begin = [_atom(core.ATOM_IF_STATUS, digit + code) for digit, code in _STATUS_COLOURS.items()]
    return b"".join(begin) + _atom(core.ATOM_STATUS) + _literal(_RESET)


def _slow_mark(seconds: float, colour: bool) -> bytes:
    text = f"{_SLOW_COLOUR}slow{_RESET}" if colour else "slow"
    least = int(seconds * 1000).to_bytes(4, "big").decode("latin-1")
    return _atom(core.ATOM_IF_SLOW, f"{least} {text}")


def _literal(text: str, *, atoms: bool = True) -> bytes:
    if atoms and "%" in text:
        raise ValueError(f"atoms like %(h)s, and %% for a percent sign; not {text!r}")
    if len(text) > 4096:
        raise ValueError("at most 4096 characters between two atoms")
    return _atom(core.ATOM_LITERAL, text) if text else b""


def _named(name: str, kind: str) -> bytes:
    if kind not in "io" or not _NAME.fullmatch(name):
        raise ValueError(f"%({{name}}i)s or %({{name}}o)s, a field's name; not {{{name}}}{kind}")
    code = core.ATOM_FIELD if kind == "i" else core.ATOM_RESPONSE_FIELD
    return _atom(code, name.lower())


def _letter(letter: str, json: bool) -> bytes:
    if letter == "t" and not json:
        return _literal("[") + _atom(core.ATOM_TIME) + _literal("]")
    if letter == "t":
        return _atom(core.ATOM_TIME)
    if letter == "r":
        parts = (core.ATOM_METHOD, core.ATOM_TARGET, core.ATOM_PROTOCOL)
        return _literal(" ").join(map(_atom, parts))
    if letter == "l":
        return _literal("-")
    if letter == "p":
        return _literal(str(os.getpid()) if json else f"<{os.getpid()}>")
    if letter in _FIELDS:
        return _atom(core.ATOM_FIELD, _FIELDS[letter])
    if letter not in _CODES:
        raise ValueError(f"one of the atoms {', '.join(sorted([*_CODES, *_FIELDS, *'tlrp']))}")
    return _atom(_CODES[letter])
