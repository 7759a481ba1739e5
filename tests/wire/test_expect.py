"""`Expect: 100-continue`, with a client that waits for the interim response."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import connect
from wire.observer import Observer, seen_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from picowsgi import Server

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
FRAMED = [
    pytest.param(b"Content-Length: 5\r\n\r\n", b"hello", id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", id="chunked"),
]


@pytest.mark.parametrize(("framing", "content"), FRAMED)
def test_the_interim_response_comes_once_before_the_content(
    serve: Callable[..., Server], framing: bytes, content: bytes
) -> None:
    with connect(serve(Observer())) as client:
        for _ in range(3):
            client.send(HEAD + framing)
            assert client.read_interim() == 100
            client.send(content)
            response = client.read_response()
            assert response.interim == (), f"expected one interim response, got {response.interim}"
            assert seen_in(response).content == b"hello"


@pytest.mark.parametrize(("framing", "content"), FRAMED)
def test_the_interim_response_comes_once_when_the_content_comes_in_pieces(
    serve: Callable[..., Server], framing: bytes, content: bytes
) -> None:
    with connect(serve(Observer())) as client:
        client.send(HEAD + framing)
        assert client.read_interim() == 100
        for byte in content:
            client.send(bytes([byte]))
        response = client.read_response()
        assert response.interim == (), f"expected one interim response, got {response.interim}"
        assert seen_in(response).content == b"hello"


def test_a_request_without_the_field_gets_no_interim_response(serve: Callable[..., Server]) -> None:
    with connect(serve(Observer())) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        client.send(b"hello")
        assert client.read_response().interim == ()


def test_content_over_the_limit_is_refused_instead_of_asked_for(
    serve: Callable[..., Server],
) -> None:
    with connect(serve(Observer(), max_body_size=4)) as client:
        client.send(HEAD + b"Content-Length: 5\r\n\r\n")
        response = client.read_response()
        assert (response.status, response.interim) == (413, ())
        client.read_nothing_more()


def test_an_expected_content_waits_behind_the_responses_to_earlier_requests(
    serve: Callable[..., Server],
) -> None:
    with connect(serve(Observer())) as client:
        client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD + b"Content-Length: 5\r\n\r\n")
        first = client.read_response()
        assert first.interim == (), "expected the first response before the interim one"
        assert seen_in(first).environ["REQUEST_URI"] == "/1"
        assert client.read_interim() == 100
        client.send(b"hello")
        assert seen_in(client.read_response()).content == b"hello"
