"""The head encoder: the heads that it may use again, and the objects that applications pass."""

from __future__ import annotations

import threading
from collections import UserString
from typing import Any
from unittest.mock import ANY

import pytest

from picowsgi import core
from picowsgi.errors import ResponseError
from picowsgi.wsgi.response_head import HeadEncoder
from picowsgi.wsgi.stepping import SteppingGateway

OK = "200 OK"
TEXT = ("Content-Type", "text/plain")


class Liar(str):
    """Equal to every text."""

    __slots__ = ()

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = str.__hash__

    def __str__(self) -> str:
        return "from __str__"

    def lower(self) -> str:
        return "from lower"


class AnyCase(str):
    """Equal to a text in any case, like the header names of some libraries."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str.lower(self) == str.lower(other)

    def __hash__(self) -> int:
        return hash(str.lower(self))


class LyingTuple(tuple[str, str]):
    __slots__ = ()

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = tuple.__hash__


class TurnedTuple(tuple[str, str]):
    """Compares as a tuple, and unpacks to other values."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return iter(["X-Turned", "1"])


class LyingList(list[tuple[str, str]]):
    __slots__ = ()

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Proxy:
    """Claims to be text, like lazy objects of frameworks."""

    __class__ = str  # type: ignore[assignment]

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


REMEMBERED = [
    (OK, [TEXT, ("Set-Cookie", "session=alice")]),
    (OK, [("Set-Cookie", "session=alice")]),
    (OK, [TEXT, ("X-A", "1"), ("Set-Cookie", "session=alice")]),
    (OK, []),
]
#: Each makes a status and headers, as the application passes them the next time.
ODD = {
    "the value is a liar": lambda: (OK, [TEXT, ("Set-Cookie", Liar("session=bob"))]),
    "the name is a liar": lambda: (OK, [TEXT, (Liar("X-Bob"), "session=alice")]),
    "the status is a liar": lambda: (
        Liar("404 Not Found"),
        [TEXT, ("Set-Cookie", "session=alice")],
    ),
    "the value is in another case": lambda: (
        OK,
        [TEXT, ("Set-Cookie", AnyCase("session=ALICE"))],
    ),
    "the only value is a liar": lambda: (OK, [("Set-Cookie", Liar("session=bob"))]),
    "one of three is a liar": lambda: (
        OK,
        [TEXT, ("X-A", "1"), ("Set-Cookie", Liar("session=bob"))],
    ),
    "a pair is a liar": lambda: (OK, [TEXT, LyingTuple(("Set-Cookie", "session=bob"))]),
    "a pair is turned": lambda: (OK, [TEXT, TurnedTuple(("Set-Cookie", "session=alice"))]),
    "the only pair is turned": lambda: (OK, [TurnedTuple(("Set-Cookie", "session=alice"))]),
    "a pair is a list": lambda: (OK, [TEXT, ["Set-Cookie", "session=bob"]]),
    "pairs are iterators": lambda: (OK, [iter(TEXT), iter(("Set-Cookie", "session=bob"))]),
    "the list is a liar": lambda: (OK, LyingList([TEXT, ("Set-Cookie", "session=bob")])),
    "an empty list is a liar": lambda: (OK, LyingList()),
    "a generator": lambda: (OK, (each for each in [TEXT, ("Set-Cookie", "session=bob")])),
    "an empty generator": lambda: (OK, iter(())),
    "a tuple": lambda: (OK, (TEXT, ("Set-Cookie", "session=bob"))),
    "a dictionary's items": lambda: (OK, {"Set-Cookie": "session=bob"}.items()),
    "the value is equal to everything": lambda: (OK, [TEXT, ("Set-Cookie", ANY)]),
    "the pair is equal to everything": lambda: (OK, [TEXT, ANY]),
    "the only pair is equal to everything": lambda: (OK, [ANY]),
    "the headers are equal to everything": lambda: (OK, ANY),
    "the status is equal to everything": lambda: (ANY, [TEXT, ("Set-Cookie", "session=alice")]),
    "the value is no text": lambda: (OK, [TEXT, ("Set-Cookie", UserString("session=alice"))]),
    "the value is a proxy": lambda: (OK, [TEXT, ("Set-Cookie", Proxy())]),
    "the status is a proxy": lambda: (Proxy(), [TEXT, ("Set-Cookie", "session=alice")]),
    "no status": lambda: (None, []),
    "empty headers": lambda: (None, [("", ""), ("", "")]),
    "headers of nothing": lambda: (OK, [(None, None), (None, None)]),
}


def outcome(encoder: HeadEncoder, status: Any, headers: Any) -> object:
    try:
        head = encoder.encode(status, headers)
    except ResponseError:
        return ResponseError
    return head.data, head.flags, head.length


@pytest.mark.parametrize("before", REMEMBERED, ids=lambda given: str(len(given[1])))
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_head_belongs_to_its_own_status_and_headers(odd: Any, before: Any) -> None:
    encoder = HeadEncoder()
    encoder.encode(*before)
    expected = outcome(HeadEncoder(), *odd())
    assert outcome(encoder, *odd()) == expected
    assert outcome(encoder, *before) == outcome(HeadEncoder(), *before)
    assert outcome(encoder, *odd()) == expected


@pytest.mark.parametrize("headers", [None, [], [(None, None)] * 2, [("", "")] * 2, [TEXT] * 2])
def test_before_the_first_head_no_head_is_reused(headers: Any) -> None:
    encoder = HeadEncoder()
    for _ in range(2):
        assert outcome(encoder, None, headers) is ResponseError


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pair_that_is_changed_in_place_is_encoded_again(count: int) -> None:
    encoder = HeadEncoder()
    headers: Any = [["X-A", "1"], ["X-B", "2"], ["X-C", "3"]][-count:]
    for user in ("alice", "bob", "carol"):
        headers[-1][1] = user
        assert f"X-C: {user}\r\n".encode() in encoder.encode(OK, headers).data


def test_a_list_that_is_changed_in_place_is_encoded_again() -> None:
    encoder = HeadEncoder()
    headers = [TEXT, ("Set-Cookie", "session=alice")]
    assert b"alice" in encoder.encode(OK, headers).data
    headers[1] = ("Set-Cookie", "session=bob")
    assert b"session=bob" in encoder.encode(OK, headers).data
    headers.pop()
    assert b"Set-Cookie" not in encoder.encode(OK, headers).data
    headers.clear()
    assert encoder.encode(OK, headers).data == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("status", [OK, "200"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 12])
def test_plain_headers_that_are_repeated_are_encoded_once(count: int, status: str) -> None:
    encoder = HeadEncoder()

    def headers() -> list[tuple[str, str]]:
        return [(f"X-{number}", str(number)) for number in range(count)]

    first = encoder.encode(status, headers())
    assert encoder.encode(str(status.encode(), "ascii"), headers()) is first


def test_an_object_of_the_application_is_read_once() -> None:
    asked = []

    class Pair:
        def __init__(self, *pair: str) -> None:
            self.pair = pair

        def __iter__(self) -> Any:
            asked.append(self.pair)
            return iter(self.pair)

    encoder = HeadEncoder()
    pairs: Any = [Pair("X-A", "1"), Pair("X-B", "2")]
    for _ in range(3):
        asked.clear()
        assert encoder.encode(OK, pairs).data == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\n"
        assert asked == [("X-A", "1"), ("X-B", "2")]


def test_no_method_of_a_string_subclass_is_called() -> None:
    headers: Any = [(Liar("Content-Length"), Liar("5")), ("X-A", Liar("a"))]
    head = HeadEncoder().encode(Liar("200 Fine"), headers)
    assert head.data == b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-A: a\r\n"
    assert head.length == 5
    assert head.flags & core.HAS_LENGTH


def test_a_thread_that_encodes_at_the_same_time_gets_its_own_head() -> None:
    encoder = HeadEncoder()
    wrong = []

    def encode(user: str) -> None:
        for number in range(3000):
            count = number % 3
            cookie = ("Set-Cookie", f"session={user}")
            data = encoder.encode(OK, [TEXT] * count + [cookie]).data
            if f"session={user}\r\n".encode() not in data or data.count(b"text/plain") != count:
                wrong.append(data)

    threads = [threading.Thread(target=encode, args=[user]) for user in ("alice", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("200", "200 OK"),
        ("404", "404 Not Found"),
        ("503", "503 Service Unavailable"),
        ("299", "299 Successful"),
        ("399", "399 Redirection"),
        ("499", "499 Client Error"),
        ("599", "599 Server Error"),
        ("999", "999 Unknown"),
        ("200 ", "200 "),
        ("200 Fine", "200 Fine"),
    ],
)
def test_a_status_without_a_reason_gets_the_standard_one(status: str, line: str) -> None:
    encoder = HeadEncoder()
    for _ in range(2):
        assert encoder.encode(status, []).data == f"HTTP/1.1 {line}\r\n".encode()


@pytest.mark.parametrize("status", ["100 Continue", "101", "103 Early Hints", "199 x"])
def test_an_interim_status_is_refused(status: str) -> None:
    with pytest.raises(ResponseError, match=r"interim, so it cannot be the response"):
        HeadEncoder().encode(status, [TEXT])


HOP_BY_HOP = ["Connection", "keep-alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"]


@pytest.mark.parametrize("value", [None, 5, b"close", ["close"], object(), ANY, Proxy()], ids=type)
@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_a_hop_by_hop_header_whose_value_is_not_text_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ResponseError, match="not a pair of texts"):
        HeadEncoder().encode(OK, [TEXT, (name, value)])


def test_an_object_that_cannot_be_printed_is_refused_too() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    shown = "<Unshowable object: RuntimeError in its __repr__>"
    for status, headers in [(OK, Unshowable()), (Unshowable(), []), (OK, [Unshowable()])]:
        with pytest.raises(ResponseError, match=shown):
            HeadEncoder().encode(status, headers)  # type: ignore[arg-type]


def test_logs_show_the_head_that_was_sent() -> None:
    gateway = SteppingGateway.__new__(SteppingGateway)
    headers = (pair for pair in [("X-A", "b: c"), ("X-Empty", "")])
    gateway._head = HeadEncoder().encode("200", headers)  # type: ignore[arg-type]
    assert gateway.status == "200 OK"
    assert gateway.headers == [("X-A", "b: c"), ("X-Empty", "")]
