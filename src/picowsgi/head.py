"""A response's head, checked and encoded (PEP 3333, "The start_response() Callable").

Never lets a status or a field through that could be read as anything else on the wire.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from picowsgi import core
from picowsgi.errors import ResponseError
from picowsgi.log import get_logger, printable

_STATUS = re.compile(r"[1-9][0-9]{2} [^\x00-\x08\x0a-\x1f\x7f]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END_OR_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
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

    @property
    def has_no_content(self) -> bool:
        """Whether a response of this status never has content (RFC 9110 section 6.4.1)."""
        return self.data[9:12] in (b"204", b"304")

    def with_length(self, length: int) -> Head:
        """Return the same head with a Content-Length, where its status allows one."""
        if _has_no_length(self.data[9:12].decode("ascii")):
            return self
        data = b"%bContent-Length: %d\r\n" % (self.data, length)
        return self._replace(data=data, length=length)


class HeadEncoder:
    """Encodes heads for one serving thread, and remembers the last one.

    All of them get the core's `flags` (csrc/api.h).
    """

    def __init__(self, flags: int = 0) -> None:
        self._flags = core.ADD_DATE | core.ADD_SERVER | flags
        self._names: dict[str, int] = {}
        self._status: str | None = None
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
        pieces = ["HTTP/1.1 ", status, "\r\n"]
        special = []
        lines = 1
        try:
            for name, value in headers:
                kind = self._names.get(name)
                if kind is None:
                    kind = self._learn(name)
                if kind != _PLAIN:
                    special.append((kind, name, value))
                    if kind == _DROPPED or (kind == _LENGTH_FIELD and _has_no_length(status)):
                        continue
                pieces += (name, ": ", value, "\r\n")
                lines += 1
            text = "".join(pieces)
        except ResponseError:
            raise
        except (TypeError, ValueError):
            raise ResponseError(f"not a pair of texts: {_bad_pair(headers)}") from None
        if text.count("\n") != lines or text.count("\r") != lines or _CONTROL.search(text):
            raise ResponseError(f"a line end or control in the headers: {_bad_values(headers)}")
        flags, length = self._weigh(special)
        if _has_no_length(status):
            flags &= ~core.HAS_LENGTH
        try:
            return Head(text.encode("latin-1"), flags, length)
        except UnicodeEncodeError:
            raise ResponseError("a header has characters beyond latin-1") from None

    def _weigh(self, special: list[tuple[int, str, str]]) -> tuple[int, int]:
        """Return the flags and the Content-Length that the fields known to the server make."""
        flags = self._flags
        length = -1
        for kind, name, value in special:
            if kind == _DATE_FIELD:
                flags &= ~core.ADD_DATE
            elif kind == _SERVER_FIELD:
                flags &= ~core.ADD_SERVER
            elif kind == _DROPPED:
                flags |= self._drop(name, value)
            elif length >= 0:
                raise ResponseError("Content-Length is given twice")
            else:
                length = _content_length(value)
                flags |= core.HAS_LENGTH
        return flags, length

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


def _has_no_length(status: str) -> bool:
    """RFC 9110 section 8.6: such a response must not have a Content-Length."""
    return status.startswith(("1", "204"))


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


def _bad_values(headers: list[tuple[str, str]]) -> str:
    return ", ".join(repr(name) for name, value in headers if _LINE_END_OR_CONTROL.search(value))
