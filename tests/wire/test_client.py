"""The client of the tests, against fixed bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support import RawClient, exchange, raw


@dataclass
class Canned:
    """Listens, and answers its one connection with fixed bytes, then closes it."""

    listener: socket.socket
    answer: bytes

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(self.answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)


Answering = Callable[[bytes], Canned]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """`answering(data)` returns a listener that answers with `data`."""
    started: list[tuple[Canned, threading.Thread]] = []

    def start(answer: bytes) -> Canned:
        canned = Canned(socket.create_server(("127.0.0.1", 0)), answer)
        thread = threading.Thread(target=canned.run)
        thread.start()
        started.append((canned, thread))
        return canned

    yield start
    for canned, thread in started:
        thread.join(10)
        assert not thread.is_alive()
        canned.listener.close()


def test_a_response_with_a_length_is_complete(answering: Answering) -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b \r\na:c\r\n\r\nhi")
    [response] = exchange(server, b"x")
    assert (response.status, response.reason) == (200, "OK")
    assert (response.content, response.complete) == (b"hi", True)
    assert response.values("A") == ["b", "c"]


def test_a_response_shorter_than_its_length_is_incomplete(answering: Answering) -> None:
    [response] = exchange(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"), b"x")
    assert (response.content, response.complete) == (b"hi", False)


def test_a_chunked_response_is_joined(answering: Answering) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    [response] = exchange(answering(head + b"2\r\nhi\r\n1;a\r\n!\r\n0\r\nT: v\r\n\r\n"), b"x")
    assert (response.content, response.complete) == (b"hi!", True)


@pytest.mark.parametrize("cut", [b"2\r\nh", b"2\r\nhi\r\n", b"2\r\nhi\r\n0", b"0\r\nT: v\r\n"])
def test_an_incomplete_chunked_response_is_incomplete(answering: Answering, cut: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    [response] = exchange(answering(head + cut), b"x")
    assert not response.complete


def test_a_response_without_a_length_ends_with_the_connection(answering: Answering) -> None:
    [response] = exchange(answering(b"HTTP/1.0 200 OK\r\n\r\nhi"), b"x")
    assert (response.content, response.complete) == (b"hi", True)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_ends_with_its_head(
    answering: Answering, method: str, status: int
) -> None:
    first = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status
    server = answering(first + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    responses = exchange(server, b"x", 2, [method])
    assert [(one.status, one.content) for one in responses] == [(status, b""), (200, b"hi")]


def test_interim_responses_are_recorded(answering: Answering) -> None:
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    [response] = exchange(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + final), b"x")
    assert (response.status, response.interim) == (200, (100,))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyy",
    ],
)
def test_an_invalid_response_fails_with_the_expected_value(
    answering: Answering, answer: bytes
) -> None:
    with pytest.raises(AssertionError, match="expected"):
        exchange(answering(answer), b"x")


def test_bytes_after_a_response_are_noticed(answering: Answering) -> None:
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!")
    with RawClient(server.port) as client:
        client.send(b"x")
        assert client.read_response().content == b"hi"
        assert not client.is_over()
        with pytest.raises(AssertionError, match="expected the end"):
            client.read_nothing_more()


def test_raw_gives_all_bytes_up_to_the_close(answering: Answering) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more"
    assert raw(answering(answer), b"x") == answer


def test_a_silent_server_fails_the_test_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        RawClient(listener.getsockname()[1], timeout=0.05) as client,
        pytest.raises(AssertionError, match=r"expected a status line within 0\.05 s"),
    ):
        client.read_response()
