"""The HTTP client of `picowsgi top`, with servers that send a page of metrics or other bytes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from picowsgi.top.address import parse_address
from picowsgi.top.fetch import MOST_BYTES, PageError, UnreachableError, fetch
from picowsgi.top.monitor import take_sample
from support.metrics_server import MetricsServer, page, response

if TYPE_CHECKING:
    from pathlib import Path


def get(server: MetricsServer, timeout: float = 10.0) -> str:
    return fetch(parse_address(server.address), timeout)


def test_the_page_comes_from_a_port_a_url_or_a_unix_socket(tmp_path: Path) -> None:
    with MetricsServer() as server, MetricsServer(path=tmp_path / "s") as on_a_path:
        assert get(server) == page(1)
        assert fetch(parse_address(f"http://{server.address}/a?b")) == page(2)
        assert get(on_a_path) == page(1)
    assert [head.split(b"\r\n")[:2] for head in (*server.requests, *on_a_path.requests)] == [
        [b"GET /metrics HTTP/1.0", f"Host: {server.address}".encode()],
        [b"GET /a?b HTTP/1.0", f"Host: {server.address}".encode()],
        [b"GET /metrics HTTP/1.0", b"Host: localhost"],
    ]


def test_a_response_may_end_with_the_connection() -> None:
    with MetricsServer(lambda _number: b"HTTP/1.0 200 OK\r\n\r\na 1\n") as server:
        assert get(server) == "a 1\n"


def test_bytes_after_the_body_are_not_read() -> None:
    with MetricsServer(lambda _number: response("a 1\n") + b"more") as server:
        assert get(server) == "a 1\n"


def test_a_response_is_whole_while_its_connection_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = parse_address(f"127.0.0.1:{listening.getsockname()[1]}")
        sent: list[socket.socket] = []
        with MetricsServer(lambda _number: sent.append(listening) or response("a 1\n")) as server:  # type: ignore[func-returns-value]
            assert get(server) == "a 1\n"
        with pytest.raises(UnreachableError, match=r"^no response from \S+ within 0\.2 s$"):
            fetch(address, 0.2)


class Pieces:
    """A connection whose bytes arrive one at a time, and that never ends."""

    def __init__(self, data: bytes) -> None:
        self._left = [data[at : at + 1] for at in range(len(data))]

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= 3

    def sendall(self, data: bytes) -> None: ...

    def recv(self, _most: int) -> bytes:
        assert self._left, "expected no read after the end of the response"
        return self._left.pop(0)


def test_a_response_may_arrive_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picowsgi.top.fetch._connect", lambda *_: Pieces(response("a 1\n")))
    assert fetch(parse_address("127.0.0.1:1")) == "a 1\n"


def test_a_server_that_sends_nothing_is_unreachable_after_the_time() -> None:
    with (
        MetricsServer(lambda _number: None) as server,
        pytest.raises(UnreachableError, match=r"^no response from 127\.0\.0\.1:\d+ within 0\.2 s$"),
    ):
        get(server, 0.2)


def test_an_address_without_a_server_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for text, reason in (
        (f"127.0.0.1:{port}", "Connection refused"),
        (f"unix:{tmp_path}/absent", "No such file or directory"),
        (f"unix:/{'x' * 200}", "AF_UNIX path too long"),
        (f"{'x' * 64}.example:1", "encod"),
    ):
        with pytest.raises(UnreachableError) as refused:
            fetch(parse_address(text))
        assert str(refused.value).startswith(f"no metrics from {text}: ")
        assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has closed the connection without a response"),
        (response("a 1\n")[:-1], "has closed the connection within the response"),
        (response("a 1\n")[:30], "has closed the connection within the response"),
    ],
)
def test_a_response_that_breaks_off_is_no_page(data: bytes, message: str) -> None:
    with MetricsServer(lambda _number: data) as server:
        with pytest.raises(UnreachableError) as refused:
            get(server)
        assert str(refused.value) == f"{server.address} {message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "{} does not send an HTTP response"),
        (b"HTTP/1.1 200 \x1b[31m\r\n\r\n", "{} does not send an HTTP response"),
        (
            response("", "404 Not Found"),
            (
                "{} responds to GET /metrics with 404 Not Found; "
                "name the address of the server's --metrics"
            ),
        ),
        (
            b"HTTP/1.1 503\r\n\r\n",
            "{} responds to GET /metrics with 503; name the address of the server's --metrics",
        ),
        (response(b"\xff"), "the page of {} is not UTF-8, so it is no metrics page"),
        (b"x" * (MOST_BYTES + 1), "{} sends more than 4 MiB, which is no metrics page"),
        (
            response("<html>\x1b[31m"),
            (
                r"the page of {} is no metrics page: line 1: expected NAME{{LABELS}} VALUE, "
                r"got <html>\x1b[31m"
            ),
        ),
        (
            response("a 1\n"),
            "the page of {} has no metrics of picowsgi: picowsgi_info is missing",
        ),
    ],
)
def test_a_response_that_is_no_page_of_picowsgi_is_refused_in_one_line(
    data: bytes, message: str
) -> None:
    with MetricsServer(lambda _number: data) as server:
        with pytest.raises(PageError) as refused:
            take_sample(parse_address(server.address))
        assert str(refused.value) == message.format(server.address)


def test_a_sample_has_the_time_of_its_exchange() -> None:
    with MetricsServer() as server:
        address = parse_address(server.address)
        first, second = take_sample(address), take_sample(address)
    assert first.at < second.at
    assert 0 <= second.since_1970 - first.since_1970 < 10
    assert second.page["picowsgi_sent_bytes_total"] == {(): 2 * 1048576.0}
