"""A response's head, checked and encoded (PEP 3333, "The start_response() Callable").

Never lets a status or a field through that could be read as anything else on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from picowsgi import core
from picowsgi.errors import ResponseError
from picowsgi.log import get_logger, printable

_STATUS = re.compile(r"[1-9][0-9]{2} [^\x00-\x08\x0a-\x1f\x7f]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,18}")

# RFC 9110 section 7.6.1 and PEP 3333, "Other HTTP Features": not the application's to send.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
_PLAIN, _LENGTH_FIELD, _DATE_FIELD, _SERVER_FIELD, _DROPPED = range(5)
_SPECIAL = {"content-length": _LENGTH_FIELD, "date": _DATE_FIELD, "server": _SERVER_FIELD}
_KNOWN_NAMES = 1024  # how many checked names are remembered


class Head(NamedTuple):
    """A checked head: its bytes but for the empty line, core flags, and its Content-Length."""

    data: bytes
    flags: int
    length: int  # -1: the application gave none


class HeadEncoder:
    """Encodes heads for one serving thread, and remembers the last one."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._head = Head(b"", 0, -1)
        self._warned: set[str] = set()

    def encode(self, status: str, headers: list[tuple[str, str]]) -> Head:
        """Return the head for what the application gave to `start_response`.

        Raises ResponseError, saying what is wrong.
        """
        if headers == self._headers and status == self._status:
            return self._head
        head = self._encode(status, headers)
        # A copy, because the list is the application's to change.
        self._status, self._headers, self._head = status, list(headers), head
        return head

    def _encode(self, status: str, headers: list[tuple[str, str]]) -> Head:
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise ResponseError(f"the status must be text like '200 OK', not {status!r}")
        flags = core.ADD_DATE | core.ADD_SERVER
        length = -1
        pieces = ["HTTP/1.1 ", status, "\r\n"]
        lines = 1
        try:
            for name, value in headers:
                kind = self._names.get(name)
                if kind is None:
                    kind = self._learn(name)
                if kind != _PLAIN:
                    if kind == _DROPPED:
                        flags |= self._drop(name, value)
                        continue
                    if kind == _LENGTH_FIELD:
                        if length >= 0:
                            raise ResponseError("Content-Length is given twice")
                        length = _content_length(value)
                        if status.startswith(("1", "204")):
                            continue  # RFC 9110 section 8.6: it must not be sent
                        flags |= core.HAS_LENGTH
                    elif kind == _DATE_FIELD:
                        flags &= ~core.ADD_DATE
                    else:
                        flags &= ~core.ADD_SERVER
                pieces += (name, ": ", value, "\r\n")
                lines += 1
            text = "".join(pieces)
        except (TypeError, ValueError) as error:
            if isinstance(error, ResponseError):
                raise
            raise ResponseError(f"the headers must be pairs of texts: {_bad_pair(headers)}") from None
        if text.count("\n") != lines or text.count("\r") != lines or _CONTROL.search(text):
            raise ResponseError(f"a line end or control in the headers: {_bad_value(headers)}")
        try:
            return Head(text.encode("latin-1"), flags, length)
        except UnicodeEncodeError:
            raise ResponseError("a header has characters beyond latin-1") from None

    def _learn(self, name: str) -> int:
        if type(name) is not str:
            raise ResponseError(f"the name of a header must be text, not {name!r}")
        if not _NAME.fullmatch(name):
            raise ResponseError(f"not the name of a header: {name!r}")
        lower = name.lower()
        kind = _DROPPED if lower in _HOP_BY_HOP else _SPECIAL.get(lower, _PLAIN)
        if len(self._names) >= _KNOWN_NAMES:
            self._names.clear()
        self._names[name] = kind
        return kind

    def _drop(self, name: str, value: str) -> int:
        """Pass over a hop-by-hop field; returns the flag that it stands for."""
        lower = name.lower()
        if lower == "connection":
            options = [option.strip().lower() for option in value.split(",")]
            if "close" in options:
                return core.CLOSE
        if lower not in self._warned:
            self._warned.add(lower)
            get_logger().warning(
                "the application sends the hop-by-hop field %s, which is the server's alone "
                "(PEP 3333); it is dropped, now and from here on",
                printable(name),
            )
        return 0


def _content_length(value: str) -> int:
    if not _LENGTH.fullmatch(value):
        raise ResponseError(f"not a Content-Length: {value!r}")
    return int(value)


def _bad_pair(headers: Any) -> str:
    try:
        for pair in headers:
            name, value = pair
            if not isinstance(name, str) or not isinstance(value, str):
                return repr(pair)
    except (TypeError, ValueError):
        pass
    return repr(headers)


def _bad_value(headers: list[tuple[str, str]]) -> str:
    return ", ".join(repr(name) for name, value in headers if re.search("[\r\n]", value) or _CONTROL.search(value))


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

    A real file is sent by the core from where it stands; anything else with `read` is iterated.
    """

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def __getattr__(self, name: str) -> Any:
        """Have what the file has: close, and seek and tell for frameworks that answer ranges."""
        return getattr(self.filelike, name)
