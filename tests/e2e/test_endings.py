"""A client reads the last bytes of its connection."""

from __future__ import annotations

import hashlib

import pytest

from picowsgi.core import POLLERS
from support import RawClient, slow_client, wait_until

MEBIBYTE = 1 << 20
LARGE = hashlib.sha512(b"large").digest() * (MEBIBYTE // 64)
TEXT = ("Content-Type", "text/plain; charset=utf-8")

#: A child has the descriptors of all connections, and stays alive.
FORKING = """
import os, time

def fork():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)

def parts(environ):
    yield b"first"
    if environ["PATH_INFO"] == "/fork-and-stream":
        fork()
    if environ["PATH_INFO"] == "/fork-and-break":
        fork()
        raise RuntimeError("half of it")
    yield b"second"

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/fork":
        fork()
        return [b"forked"]
    return parts(environ)
"""


@pytest.fixture
def forking(picowsgi, tmp_path):
    """A server of that application that soon closes idle connections."""
    (tmp_path / "app.py").write_text(FORKING)
    return picowsgi("--timeout-keep-alive", "0.2", "app:app", directory=tmp_path)


def test_a_response_that_ends_with_its_connection_ends_although_a_child_has_the_socket(forking):
    with RawClient(forking.port) as client:
        client.send(b"GET /fork-and-stream HTTP/1.0\r\n\r\n")
        assert client.read_response().content == b"firstsecond"
        client.read_nothing_more()


@pytest.mark.skipif(
    "epoll" not in POLLERS, reason="the core is built without functions that only Linux has"
)
def test_a_response_that_breaks_off_is_reset_although_a_child_has_the_socket(forking):
    with RawClient(forking.port) as client:
        client.send(b"GET /fork-and-break HTTP/1.0\r\n\r\n")
        assert client.end() == "reset"
        assert client.received.endswith(b"\r\n\r\nfirst")


def test_an_idle_connection_is_closed_although_a_child_has_the_socket(forking):
    with RawClient(forking.port) as idle, RawClient(forking.port) as other:
        idle.send(b"GET /fork HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.read_response().content == b"forked"
        other.send(b"GET /fork HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert other.read_response().content == b"forked"
        other.read_nothing_more()
        idle.read_nothing_more()


@pytest.mark.parametrize("half_closes", [False, True])
def test_a_client_that_sends_more_than_is_read_gets_its_response(serve, half_closes):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        return [LARGE]

    server = serve(app)
    with slow_client(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        client.wait_for_bytes()
        client.send(b"GET /second HTTP/1.1\r\n")
        if half_closes:
            client.half_close()
        assert client.read_response().content == LARGE
        client.read_nothing_more()


def test_responses_before_one_that_breaks_off_arrive_in_full(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [TEXT])
        if environ["PATH_INFO"] == "/whole":
            return [LARGE]

        def parts():
            yield b"first"
            raise RuntimeError("half of it")

        return parts()

    server = serve(app)
    with slow_client(server) as client:
        client.send(
            b"GET /whole HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /parts HTTP/1.0\r\n\r\n"
        )

        def breaks_off():
            client.read_some(4096)  # only that the server continues
            return "half of it" in caplog.text

        wait_until(breaks_off, "the second response to break off")
        assert len(client.received) < MEBIBYTE
        assert client.read_response().content == LARGE
        assert client.end() == "reset"
        assert client.received.endswith(b"\r\n\r\nfirst")
