"""Error responses to clients that a case of the corpus cannot describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import connect
from wire.observer import Observer, is_observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from picowsgi import Server

UPLOAD = 20 << 20


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Host: a\r\nX : y\r\n", 400),
        (b"Host: a\r\nContent-Length: 9999999999\r\n", 413),
        (b"Host: a\r\nExpect: x\r\n", 417),
    ],
)
def test_an_error_response_to_head_has_no_content(
    serve: Callable[..., Server], fields: bytes, status: int
) -> None:
    with connect(serve(Observer())) as client:
        client.send(b"HEAD / HTTP/1.1\r\n" + fields + b"\r\n")
        response = client.read_response("HEAD")
        assert response.status == status
        assert response.tokens("Connection") == ["close"]
        client.read_nothing_more()


def test_a_client_that_sends_all_its_content_gets_its_413_and_no_reset(
    serve: Callable[..., Server],
) -> None:
    with connect(serve(Observer(), max_body_size=1000)) as client:
        head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % UPLOAD
        assert client.send(head + bytes(UPLOAD)), "expected the content to be drained"
        response = client.read_response()
        assert (response.status, response.complete) == (413, True)
        client.read_nothing_more()


def test_requests_after_an_error_are_not_served(
    serve: Callable[..., Server],
) -> None:
    observer = Observer()
    with connect(serve(observer)) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
        client.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        client.half_close()
        client.read_nothing_more()
    assert not observer.calls, f"expected no call of the application, got {observer.calls}"


def test_the_responses_before_an_error_arrive_first(serve: Callable[..., Server]) -> None:
    with connect(serve(Observer())) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100 + b"GET / HTTP/1.1\r\n\r\n")
        assert all(is_observed(client.read_response()) for _ in range(100))
        assert client.read_response().status == 400
        client.read_nothing_more()
