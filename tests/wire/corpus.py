r"""The parser of the wire corpus: `cases/KIND/RULE.http`, one case a file, printable ASCII only.

    # The rule.
    # The specification that has it.
    option: max_fields = 3          a keyword of the server, any number of them
    request: GET /a?b=c             method and raw target of a request the application must see
    PATH_INFO = /a                  with this value in its environ
    HTTP_X_ABSENT absent            and without that key
    content = hello                 and with this content (none, when the line is missing)
    or: 400|501                     this last request may be refused with one of these instead
    status: 400                     after the requests, this error, and the connection is closed
    connection: closed              whether it stays open (`kept` is the default)
    interim: 100                    a `100 Continue` may be sent, once
    then: half-close                the client shuts down its sending side after the bytes

    GET /a?b=c HTTP/1.1\r\n         after the one empty line: the bytes, one wire line per text line
    Host: {"a" * 200}\r\n
    \r\n

The end of a text line stands for nothing: every byte outside 0x20..0x7e is spelled
`\r \n \t \0 \xNN`, a backslash is `\\`, and a blank at the end of a text line is `\x20`.
`{"..." * N}` repeats. `status: none` stands for a connection that is closed without an answer.
Keys and values around `=` are latin-1 text and use the same spellings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = Path(__file__).parent / "cases"

_REPETITION = re.compile(r'\{"((?:[^"\\]|\\.)*)" \* ([0-9]{1,7})\}')
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.|$)")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\", '"': '"'}
_OPTION = re.compile(r"([a-z_]+) = (\S+)")
_KEY = re.compile(r"(.+?) (?:=(?: (.*))?|(absent))")
_STATUSES = re.compile(r"(?:[0-9]{3}|none)(?:\|(?:[0-9]{3}|none))*")


class CorpusError(Exception):
    """A case that does not follow the format."""


@dataclass
class Request:
    """The expected request in the application. None in `environ`: the key is absent."""

    method: str
    target: str
    environ: dict[str, str | None] = field(default_factory=dict)
    content: bytes = b""


@dataclass
class Case:
    kind: str
    name: str
    rule: str
    data: bytes = b""
    options: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    statuses: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    closed: bool = False
    interim: bool = False
    half_close: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"


def load_cases(directory: Path = CASES) -> Iterator[Case]:
    """Return every case below `directory`, in the order of their names."""
    for path in sorted(directory.glob("*/*.http")):
        try:
            yield parse_case(path.read_text("ascii"), path.parent.name, path.stem)
        except (CorpusError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}: {error}") from error


def parse_case(text: str, kind: str = "", name: str = "") -> Case:
    head, blank, wire = text.partition("\n\n")
    if not blank or not wire.endswith("\n"):
        raise CorpusError("expected an empty line, then the bytes, then the end of a line")
    lines = head.split("\n")
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    if not comments:
        raise CorpusError("expected a comment that says what the rule is")
    case = Case(kind, name, " ".join(comments))
    for line in lines[len(comments) :]:
        _read_expectation(case, line)
    if not case.requests and not case.statuses:
        raise CorpusError("expected a `request:` or a `status:`")
    case.closed = case.closed or bool(case.statuses)
    case.data = b"".join(_wire_bytes(line) for line in wire[:-1].split("\n"))
    return case


def unescape(text: str) -> str:
    """Return the text that `text` spells, one character per byte."""
    if not re.fullmatch(r"[ -~]*", text) or text.endswith(" "):
        raise CorpusError(f"expected printable ASCII without a blank at the end, got {text!r}")
    spelled, done = [], 0
    for match in _REPETITION.finditer(text):
        spelled += [_spelled(text[done : match.start()]), _spelled(match[1]) * int(match[2])]
        done = match.end()
    return "".join(spelled) + _spelled(text[done:])


def _spelled(text: str) -> str:
    return _ESCAPE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[1][:1] == "x" and len(match[1]) == 3:
        return chr(int(match[1][1:], 16))
    if match[1] not in _ESCAPES:
        raise CorpusError(f"expected an escape that the format has, got {match[0]!r}")
    return _ESCAPES[match[1]]


def _read_expectation(case: Case, line: str) -> None:
    word, _, value = line.partition(": ")
    match word, value:
        case "option", _ if option := _OPTION.fullmatch(value):
            case.options[option[1]] = option[2]
        case "request", _ if unescape(value).count(" ") == 1:
            method, target = unescape(value).split(" ")
            case.requests.append(Request(method, target))
        case "status", _ if _STATUSES.fullmatch(value):
            case.statuses = tuple(value.split("|"))
        case "or", _ if case.requests and _STATUSES.fullmatch(value):
            case.alternatives = tuple(value.split("|"))
        case "connection", "kept" | "closed":
            case.closed = value == "closed"
        case "interim", "100":
            case.interim = True
        case "then", "half-close":
            case.half_close = True
        case _:
            _read_request_line(case, line)


def _read_request_line(case: Case, line: str) -> None:
    match = _KEY.fullmatch(line)
    if not match or not case.requests:
        raise CorpusError(f"expected one of the lines that the format has, got {line!r}")
    key, value = unescape(match[1]), None if match[3] else unescape(match[2] or "")
    if key != "content":
        case.requests[-1].environ[key] = value
    elif value is not None:
        case.requests[-1].content = value.encode("latin-1")


def _wire_bytes(line: str) -> bytes:
    if not line:
        raise CorpusError("expected bytes on every line after the first empty one")
    return unescape(line).encode("latin-1")
