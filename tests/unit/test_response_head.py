"""The head of a response on the wire, and the heads that are refused (PEP 3333, RFC 9110)."""

from __future__ import annotations

from typing import Any

import pytest

from picowsgi import core
from picowsgi.errors import ResponseError
from picowsgi.wsgi import response_head
from picowsgi.wsgi.response_head import Head, HeadEncoder

OK = "200 OK"
TEXT = ("Content-Type", "text/plain")
ADDED = core.ADD_DATE | core.ADD_SERVER


def encode(*headers: Any, status: str = OK) -> Head:
    return HeadEncoder().encode(status, [*headers])


def refusal(*headers: Any, status: Any = OK) -> str:
    with pytest.raises(ResponseError) as caught:
        encode(*headers, status=status)
    return str(caught.value)


@pytest.mark.parametrize("count", range(5))
def test_a_head_has_its_status_and_its_headers_in_their_order(count: int) -> None:
    headers = [(f"X-{number}", str(number)) for number in range(count)]
    encoder = HeadEncoder()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    for _ in range(3):
        head = encoder.encode(OK, headers)
        assert head.data == f"HTTP/1.1 200 OK\r\n{lines}".encode()
        assert (head.flags, head.length) == (ADDED, -1)


def test_a_value_is_latin_1_and_may_contain_tabs() -> None:
    assert encode(("X-A", "\xe9\t\xff")).data.endswith(b"X-A: \xe9\t\xff\r\n")
    assert encode(status="200 D\xe9j\xe0\tvu").data == b"HTTP/1.1 200 D\xe9j\xe0\tvu\r\n"


def test_the_flags_of_the_encoder_are_in_every_head() -> None:
    head = HeadEncoder(core.RETURN).encode(OK, [TEXT])
    assert head.flags == ADDED | core.RETURN


def test_date_and_server_of_the_application_are_not_added_again() -> None:
    head = encode(("dAte", "now"), TEXT)
    assert (head.flags, b"dAte: now\r\n" in head.data) == (core.ADD_SERVER, True)
    head = encode(TEXT, ("Server", "mine"))
    assert (head.flags, b"Server: mine\r\n" in head.data) == (core.ADD_DATE, True)
    assert encode(("Date", "now"), ("SERVER", "mine"), TEXT).flags == 0


def test_a_length_is_parsed_and_is_in_the_head() -> None:
    for text in ("0", "12", "9" * 18, "007"):
        head = encode(("content-length", text), TEXT)
        assert (head.length, head.flags) == (int(text), ADDED | core.HAS_LENGTH)
        assert f"content-length: {text}\r\n".encode() in head.data


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1 ", "1,1", "0x1", "٣", "9" * 19])
def test_an_invalid_length_is_refused(text: str) -> None:
    assert refusal(("Content-Length", text)) == f"not a Content-Length: {text!r}"


def test_a_second_length_is_refused_even_if_it_is_equal() -> None:
    for second in ("5", "6"):
        pairs = ("Content-Length", "0"), ("content-length", second)
        assert refusal(*pairs) == "Content-Length is given twice"


@pytest.mark.parametrize("status", ["204 No Content", "204"])
def test_a_status_without_content_gets_no_length(status: str) -> None:
    head = encode(("Content-Length", "5"), TEXT, status=status)
    assert head.data == b"HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n"
    assert head.flags == ADDED
    assert head.with_length(7) is head


def test_a_length_can_be_added_to_a_head_that_may_have_one() -> None:
    for status, line in ((OK, b"200 OK"), ("304 Not Modified", b"304 Not Modified")):
        head = encode(status=status)
        again = head.with_length(70)
        assert again.data == b"HTTP/1.1 " + line + b"\r\nContent-Length: 70\r\n"
        assert (again.flags, again.length) == (head.flags, 70)
        assert head.length == -1


@pytest.mark.parametrize(
    ("status", "expected"),
    [("200 OK", False), ("204 x", True), ("304 x", True), ("205 x", False), ("404 204", False)],
)
def test_no_content_and_not_modified_have_no_content(status: str, expected: bool) -> None:
    assert encode(status=status).has_no_content is expected


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("299", b"299 Successful"),
        ("399", b"399 Redirection"),
        ("499", b"499 Client Error"),
        ("599", b"599 Server Error"),
        ("699", b"699 Unknown"),
        ("200 ", b"200 "),
        ("404", b"404 Not Found"),
    ],
)
def test_a_status_without_a_reason_gets_one(status: str, line: bytes) -> None:
    assert encode(status=status).data == b"HTTP/1.1 " + line + b"\r\n"


@pytest.mark.parametrize(
    "status", ["", "OK", "20", "2000 OK", "200OK", "020 x", "200 a\r\nb", "200 a\x00", 200, None]
)
def test_an_invalid_status_is_refused(status: Any) -> None:
    for headers in ([], [TEXT, TEXT]):
        assert refusal(*headers, status=status).startswith("the status must be text like '200 OK'")


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\n", "(a)"])
def test_an_invalid_name_is_refused(name: str) -> None:
    assert refusal((name, "v")) == f"not the name of a header: {name!r}"
    assert refusal((name, "v"), TEXT) == f"not the name of a header: {name!r}"


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\rb", "\n", "\x00", "\x0b", "\x1b", "\x7f", "a\n\r"]
)
@pytest.mark.parametrize("before", [[], [TEXT], [TEXT, TEXT]])
def test_a_value_that_could_end_its_line_is_refused(value: str, before: list[Any]) -> None:
    expected = "a line end or control in the headers: 'X-Bad'"
    assert refusal(*before, ("X-Bad", value)) == expected


def test_all_values_that_could_end_their_line_are_named() -> None:
    text = refusal(("X-A", "a\n"), ("X-B", "fine"), ("X-C", "\r"))
    assert text == "a line end or control in the headers: 'X-A', 'X-C'"


def test_characters_beyond_latin_1_are_refused() -> None:
    assert refusal(("X-A", "€")) == "a header has characters beyond latin-1"


@pytest.mark.parametrize("headers", [None, 5, object()])
def test_headers_that_are_not_a_list_are_refused(headers: Any) -> None:
    with pytest.raises(ResponseError, match="the headers must be a list, not "):
        HeadEncoder().encode(OK, headers)


@pytest.mark.parametrize(
    "pair", [("a",), ("a", "b", "c"), "abc", 5, None, ("a", 5), (5, "a"), (b"a", b"b"), ("a", None)]
)
@pytest.mark.parametrize("before", [[], [TEXT]])
def test_an_invalid_pair_is_refused(pair: Any, before: list[Any]) -> None:
    assert refusal(*before, pair) == f"not a pair of texts: {pair!r}"
    assert refusal(pair, *before) == f"not a pair of texts: {pair!r}"


def test_an_interim_response_ends_with_an_empty_line() -> None:
    data = HeadEncoder().encode_interim("103", [("Link", "</a>")])
    assert data == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with pytest.raises(ResponseError, match="not a pair of texts"):
        HeadEncoder().encode_interim("103", [5])  # type: ignore[list-item]
    with pytest.raises(ResponseError, match="the status"):
        HeadEncoder().encode_interim("x", [])


def test_an_interim_status_is_not_a_response() -> None:
    assert "wsgi.early_hints" in refusal(status="100 Continue")


# Hop-by-hop fields (PEP 3333, "Other HTTP Features")


def test_a_hop_by_hop_field_is_dropped_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = HeadEncoder()
    names = [
        *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"),
        *("Proxy-Connection", "TE", "Trailer", "Trailers", "Transfer-Encoding", "Upgrade"),
    ]
    for number, name in enumerate(names):
        for spelling in (name, name.upper(), name.lower()):
            head = encoder.encode(OK, [TEXT, (spelling, str(number)), ("X-A", "1")])
            assert head.data == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: 1\r\n"
            assert head.flags == ADDED
    messages = [one.getMessage() for one in caplog.records]
    assert [text.split(",")[0].split()[-1] for text in messages] == names


@pytest.mark.parametrize("value", ["close", "Close", "upgrade, CLOSE", "close ,x"])
def test_an_application_may_ask_for_a_close_of_the_connection(
    caplog: pytest.LogCaptureFixture, value: str
) -> None:
    head = encode(("Connection", value), TEXT)
    assert (head.flags, b"onnection" in head.data) == (ADDED | core.CLOSE, False)
    assert caplog.records == []
    assert encode(("Keep-Alive", "close"), TEXT).flags == ADDED


# The cache of names


def test_the_same_texts_give_the_same_head() -> None:
    encoder = HeadEncoder()
    for count in range(4):
        first = encoder.encode(OK, [TEXT] * count)
        copies = [
            ("".join(["Content", "-Type"]), "".join(["text", "/plain"])) for _ in range(count)
        ]
        assert encoder.encode("".join(["200 ", "OK"]), copies) is first


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("which", ["status", "name", "value"])
def test_a_different_text_gives_another_head(count: int, which: str) -> None:
    headers = [("X-A", "1"), ("X-B", "2"), ("X-C", "3")][:count]
    for place in range(count):
        encoder = HeadEncoder()
        before = encoder.encode(OK, headers).data
        other = list(headers)
        if which == "name":
            other[place] = ("X-D", headers[place][1])
        elif which == "value":
            other[place] = (headers[place][0], "9")
        status = "404 Not Found" if which == "status" else OK
        after = encoder.encode(status, other).data
        assert after != before
        assert after == HeadEncoder().encode(status, other).data
        assert encoder.encode(OK, headers).data == before


def test_two_headers_that_replace_others_come_last() -> None:
    encoder = HeadEncoder()
    two, other = [TEXT, ("X-A", "1")], [TEXT, ("X-A", "2")]
    for headers in (two, [TEXT], other, two, [TEXT], two):
        assert encoder.encode(OK, headers).data == HeadEncoder().encode(OK, headers).data


def test_the_number_of_remembered_names_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_head, "_KNOWN_NAMES", 10)
    encoder = HeadEncoder()
    for number in range(35):
        encoder.encode(OK, [(f"X-{number}", "1")])
        assert 0 < len(encoder._names) <= 10
        encoder.encode(OK, [("X-A", "1")])
        assert "X-A" in encoder._names
