"""Checks and encodes a response's head (PEP 3333, "The start_response() Callable").

Never accepts a status or a header that a client could read as something else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.errors import ResponseError
from picowsgi.log import get_logger, printable, show

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATUS = re.compile(r"[1-9][0-9]{2}( [^\x00-\x08\x0a-\x1f\x7f]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END_OR_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,18}")

# RFC 9110 section 7.6.1 and PEP 3333, "Other HTTP Features": an application must not send these.
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
# RFC 9110 section 15: the class of a status, by its first digit.
_CLASSES = {"2": "Successful", "3": "Redirection", "4": "Client Error", "5": "Server Error"}
_KNOWN_NAMES = 1024  # the number of checked names to remember

Header = tuple[str, str]
_NO_HEADER: Any = (object(), object())  # equal to no header of an application


class Head:
    """A checked head: its bytes without the empty line, flags for the core, and Content-Length.

    Do not change a head, because many responses may share it. It is not a tuple, because the server
    reads its fields in each request, and Python reads slots fastest.
    """

    __slots__ = ("data", "flags", "length")

    def __init__(self, data: bytes, flags: int, length: int) -> None:
        self.data = data
        self.flags = flags
        self.length = length  # -1: the head has none

    @property
    def has_no_content(self) -> bool:
        """Whether a response of this status never has content (RFC 9110 section 6.4.1)."""
        return self.data[9:12] in (b"204", b"304")

    def with_length(self, length: int) -> Head:
        """Return the same head with a Content-Length, if its status allows one."""
        if _has_no_length(self.data[9:12].decode("ascii")):
            return self
        data = b"%bContent-Length: %d\r\n" % (self.data, length)
        return Head(data, self.flags, length)


class HeadEncoder:
    """Encodes heads for one serving thread, and remembers the last one.

    All heads get the core's `flags` (csrc/api.h).

    Objects of the application may have an `__eq__` of their own, and may change. Therefore the
    encoder keeps each head with a copy of its status and headers: exact strings in exact tuples. It
    compares the copy only with another such copy, or with exact strings. It reads the value of each
    object of the application once, so the values that it compares are those that it encodes.
    """

    def __init__(self, flags: int = 0) -> None:
        self._flags = core.ADD_DATE | core.ADD_SERVER | flags
        self._names: dict[str, int] = {}
        #: The last status, its headers, and their head. One assignment replaces all three, because
        #: a thread of the application may call start_response at any time, even after its request.
        self._last: tuple[str | None, tuple[Header, ...], Head] = None, (), Head(b"", 0, -1)
        #: The same for the last head with two headers.
        self._last_of_two: tuple[str | None, Header, Header, Head]
        self._last_of_two = None, _NO_HEADER, _NO_HEADER, self._last[2]
        self._warned: set[str] = set()

    def encode(self, status: str, headers: list[tuple[str, str]]) -> Head:
        """Return the head for the arguments of `start_response`.

        Raises ResponseError, whose text says what is wrong.
        """
        # Most small responses have two headers. The code for them copies nothing and calls nothing.
        if type(headers) is not list or len(headers) != 2:
            return self._encode_copy(status, _copy(headers))
        last_status, last_one, last_two, head = self._last_of_two
        if status is last_status or (type(status) is str and status == last_status):
            try:
                one, two = headers
                if one is last_one and two is last_two:
                    return head
                name, value = one
                other, second = two
            except (TypeError, ValueError):
                return self._encode_copy(status, _copy(headers))  # raises an error with the reason
            last_name, last_value = last_one
            last_other, last_second = last_two
            if (
                (second is last_second or (type(second) is str and second == last_second))
                and (value is last_value or (type(value) is str and value == last_value))
                and (other is last_other or (type(other) is str and other == last_other))
                and (name is last_name or (type(name) is str and name == last_name))
            ):
                return head
            if type(name) is type(value) is type(other) is type(second) is str:
                one = one if type(one) is tuple else (name, value)
                two = two if type(two) is tuple else (other, second)
                return self._encode_copy(status, (one, two))
            headers = [(name, value), (other, second)]
        return self._encode_copy(status, _copy(headers))

    def encode_interim(self, status: str, headers: list[tuple[str, str]]) -> bytes:
        """Return a whole interim response (1xx). Raises ResponseError as `encode` does."""
        return self._encode(_check_status(status), _copy(headers)).data + b"\r\n"

    def _encode_copy(self, status: str, headers: tuple[Header, ...]) -> Head:
        last_status, last_headers, head = self._last
        if type(status) is not str or status != last_status:
            status = _check_status(status)
        if status == last_status and headers == last_headers:
            return head
        if status[0] == "1":
            raise ResponseError(
                f"the status {status!r} is interim, so it cannot be the response; "
                "environ['wsgi.early_hints'](headers) sends a 103"
            )
        head = self._encode(status, headers)
        self._last = status, headers, head
        if len(headers) == 2:
            self._last_of_two = status, *headers, head
        return head

    def _encode(self, status: str, headers: tuple[Header, ...]) -> Head:
        if len(status) == 3:
            status = f"{status} {_reason(status)}"
        pieces = ["HTTP/1.1 ", status, "\r\n"]
        special = []
        lines = 1
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
        """Return the flags and the Content-Length from the headers that the server knows."""
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
        if not _NAME.fullmatch(name):
            raise ResponseError(f"not the name of a header: {name!r}")
        lower = name.lower()
        kind = _DROPPED if lower in _HOP_BY_HOP else _SPECIAL.get(lower, _PLAIN)
        if len(self._names) >= _KNOWN_NAMES:
            self._names.clear()
        self._names[name] = kind
        return kind

    def _drop(self, name: str, value: str) -> int:
        """Drop a hop-by-hop header. Returns the flag that it means."""
        lower = name.lower()
        if lower == "connection":
            options = [option.strip().lower() for option in value.split(",")]
            if "close" in options:
                return core.CLOSE
        if lower not in self._warned:
            self._warned.add(lower)
            get_logger().warning(
                "the application sends the hop-by-hop header %s, which only a server may send "
                "(PEP 3333); this header is dropped from all responses",
                printable(name),
            )
        return 0


def _has_no_length(status: str) -> bool:
    """Return whether such a response must not have a Content-Length (RFC 9110 section 8.6)."""
    return status.startswith(("1", "204"))


def _content_length(value: str) -> int:
    if not _LENGTH.fullmatch(value):
        raise ResponseError(f"not a Content-Length: {value!r}")
    return int(value)


def _check_status(status: object) -> str:
    """Return the status as an exact string."""
    if not issubclass(type(status), str):  # isinstance is True for a proxy object
        raise ResponseError(f"the status must be text like '200 OK', not {show(status)}")
    text = str.__str__(status)
    if not _STATUS.fullmatch(text):
        raise ResponseError(f"the status must be text like '200 OK', not {text!r}")
    return text


def _copy(headers: object) -> tuple[Header, ...]:
    """Return a copy of the headers as exact strings in exact tuples of two.

    The function reads the value of each object once. It does not copy exact tuples of two exact
    strings.
    """
    try:
        given: Iterator[Any] = iter(headers)  # type: ignore[call-overload]
    except TypeError:
        raise ResponseError(f"the headers must be a list, not {show(headers)}") from None
    pairs = [*given]
    for number, pair in enumerate(pairs):
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise ResponseError(f"not a pair of texts: {show(pair)}") from None
        if not type(name) is type(value) is str:
            if not (issubclass(type(name), str) and issubclass(type(value), str)):
                raise ResponseError(f"not a pair of texts: {show(pair)}")
            pairs[number] = str.__str__(name), str.__str__(value)
        elif type(pair) is not tuple:
            pairs[number] = name, value
    return tuple(pairs)


def _reason(status: str) -> str:
    """Return the reason phrase for a status code without one."""
    from http import HTTPStatus  # slow to import, and rarely needed

    try:
        return HTTPStatus(int(status)).phrase
    except ValueError:
        return _CLASSES.get(status[0], "Unknown")


def _bad_values(headers: tuple[Header, ...]) -> str:
    return ", ".join(repr(name) for name, value in headers if _LINE_END_OR_CONTROL.search(value))
