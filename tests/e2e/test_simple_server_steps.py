"""picowsgi.simple_server: `handle_request`, and a descriptor for loops of other programs."""

from __future__ import annotations

import select
import threading

import pytest

from picowsgi.simple_server import WSGIServer
from support import TIMEOUT, RawClient
from support.stand_in import (
    LARGE,
    asked,
    get,
    hello,
    server_for,
)


def readable(server, seconds):
    return bool(select.select([server], [], [], seconds)[0])


@pytest.fixture
def with_descriptor(monkeypatch):
    """The default poller of the build, regardless of the environment: poll(2) has no descriptor."""
    monkeypatch.delenv("PICOWSGI_POLLER", raising=False)


# --- handle_request -----------------------------------------------------------------------------


def test_handle_request_serves_one_request():
    count = []

    def app(environ, start_response):
        count.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with server_for(app) as server, asked(server, "/1") as one, asked(server, "/2") as two:
        server.handle_request()
        assert len(count) == 1
        server.handle_request()
        assert len(count) == 2
        assert one.read_response().content == two.read_response().content == b"hello"


def test_handle_request_sends_all_before_it_returns():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [LARGE]

    with server_for(app) as server:
        got = []
        client = threading.Thread(target=lambda: got.append(get(server)))
        client.start()
        server.handle_request()
        client.join(TIMEOUT)
        assert got == [(200, LARGE)]


def test_handle_request_returns_after_the_timeout():
    called = []

    class Server(WSGIServer):
        timeout = 0.05

        def handle_timeout(self):
            called.append(1)

    with server_for(hello, server_class=Server) as server:
        server.handle_request()
        assert called == [1]
        server.timeout = 0
        server.handle_request()
        assert called == [1, 1]
        server.timeout = None
        server.socket.settimeout(0.05)
        server.handle_request()
        assert called == [1, 1, 1]
        with asked(server) as client:
            server.handle_request()
            assert client.read_response().status == 200
        assert called == [1, 1, 1]


@pytest.mark.usefixtures("with_descriptor")
@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
def test_the_descriptor_is_readable_when_a_request_waits(kept):
    with server_for(hello) as server:
        assert not readable(server, 0.02)
        with asked(server) as client:
            assert readable(server, TIMEOUT)
            server.handle_request()
            assert client.read_response().status == 200
            if kept:
                assert not readable(server, 0.02)
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert readable(server, TIMEOUT)
                server.handle_request()
                assert client.read_response().status == 200


@pytest.mark.usefixtures("with_descriptor")
def test_the_descriptor_stays_readable_while_received_requests_wait():
    with server_for(hello) as server, RawClient(server.server_port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        for _ in range(3):
            assert readable(server, TIMEOUT)
            server.handle_request()
        assert [client.read_response().content for _ in range(3)] == [b"hello"] * 3


def test_poll_serves_requests_and_says_that_it_has_no_descriptor(monkeypatch):
    monkeypatch.setenv("PICOWSGI_POLLER", "poll")
    with server_for(hello) as server, asked(server) as client:
        with pytest.raises(OSError, match="a poller with a descriptor"):
            server.fileno()
        server.handle_request()
        assert client.read_response().content == b"hello"


@pytest.mark.usefixtures("with_descriptor")
def test_one_loop_can_serve_several_servers():
    with (
        server_for(hello) as one,
        server_for(hello) as two,
        asked(two) as second,
        asked(one) as first,
    ):
        left = {one, two}
        while left:
            for server in select.select(left, [], [], TIMEOUT)[0]:
                server.handle_request()
                left.discard(server)
        assert first.read_response().status == second.read_response().status == 200


@pytest.mark.usefixtures("with_descriptor")
def test_a_request_that_the_end_cuts_is_in_the_log(caplog):
    with server_for(hello) as server, asked(server) as whole, RawClient(server.server_port) as half:
        half.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        while not readable(server, 0.01):
            pass
        server.handle_request()
        assert whole.read_response().status == 200
        server.timeout = 0
        server.handle_request()  # reads the bytes of the other
        server.server_close()
    assert "POST /" in caplog.text
