"""The format of the access log: the named formats, and the atoms of a format.

Never formats a line, and never imports the core: `threads.access_log` makes the core's program.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
COMBINED = COMMON + ' "%(f)s" "%(a)s"'
#: One JSON object in a line; durations are microseconds.
JSON = (
    '{"time":"%(t)s","remote_addr":"%(h)s","user":"%(u)s","method":"%(m)s","target":"%(R)s",'
    '"protocol":"%(H)s","status":%(s)s,"bytes":%(B)s,"duration":%(D)s,"queued":%(Q)s,'
    '"referer":"%(f)s","user_agent":"%(a)s","pid":%(p)s}'
)
#: The default in a terminal.
SHORT = "%(c)s %(s)s %(m)s %(R)s %(B)s B %(d)s"
#: JSON with the id of the request.
JSON_WITH_ID = JSON[:-1] + ',"request_id":"%(I)s"}'
_NAMED = {"common": COMMON, "combined": COMBINED, "json": JSON, "short": SHORT}

#: The letters that a part of the kind "letter" may have.
LETTERS = frozenset("BDHILMQRTUbcdhmpqstu")

_ATOM = re.compile(r"%(?:%|\((?:\{([^{}()]+)\}([a-z])|([A-Za-z]))\)s)")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_LITERAL_MOST = 4096


class Part(NamedTuple):
    """A part of a format: literal text, the name of a field, or the letter of an atom."""

    kind: Literal["text", "request field", "response field", "letter"]
    text: str


#: Letters that mean other parts.
_SHORTHANDS = {
    "a": [Part("request field", "user-agent")],
    "f": [Part("request field", "referer")],
    "l": [Part("text", "-")],
    "r": [
        Part("letter", "m"),
        Part("text", " "),
        Part("letter", "R"),
        Part("text", " "),
        Part("letter", "H"),
    ],
}


def check_format(text: str) -> None:
    """Raise ValueError, whose text says what was expected, if `text` is no format."""
    if text != "auto":
        parse_format(text)


def is_json(text: str) -> bool:
    """Return whether this format makes JSON, so that the values are parts of JSON strings."""
    return text == "json" or text.lstrip().startswith("{")


def parse_format(text: str) -> list[Part]:
    """Return the parts of `common`, `combined`, `json`, `short`, or a text with atoms.

    The atoms, such as `%(h)s`, are those of gunicorn. picowsgi adds five: R is the target as the
    client sent it, Q is the time that the complete request waited, in microseconds, c is the time
    of day, d is the duration with its unit, and I is the id of the request. Raises ValueError,
    whose text says what was expected.
    """
    source = _NAMED.get(text, text)
    if not source.isprintable() or not source.isascii():
        raise ValueError(
            "auto, short, common, combined, json, or printable ASCII text with atoms like %(h)s"
        )
    parts: list[Part] = []
    position = 0
    for match in _ATOM.finditer(source):
        parts += _literal(source[position : match.start()])
        position = match.end()
        name, kind, letter = match.groups()
        if match[0] == "%%":
            parts.append(Part("text", "%"))
        elif name is not None:
            parts.append(_field(name, kind))
        else:
            parts += _letter(letter)
    return parts + _literal(source[position:])


def _literal(text: str) -> list[Part]:
    if "%" in text:
        raise ValueError(f"atoms like %(h)s, and %% for a percent sign; not {text!r}")
    if len(text) > _LITERAL_MOST:
        raise ValueError(f"at most {_LITERAL_MOST} characters between two atoms")
    return [Part("text", text)] if text else []


def _field(name: str, kind: str) -> Part:
    if kind not in "io" or not _NAME.fullmatch(name):
        raise ValueError(f"%({{name}}i)s or %({{name}}o)s, a field's name; not {{{name}}}{kind}")
    return Part("request field" if kind == "i" else "response field", name.lower())


def _letter(letter: str) -> list[Part]:
    if letter in _SHORTHANDS:
        return _SHORTHANDS[letter]
    if letter not in LETTERS:
        raise ValueError(f"one of the atoms {', '.join(sorted({*LETTERS, *_SHORTHANDS}))}")
    return [Part("letter", letter)]
