"""Random bytes over a socket: the responses, and the requests in the application, in any split.

The invariant: for any bytes, the responses and the requests that reach the application are the same
whether the bytes come whole, in any pieces, or one by one; and the server continues to serve.

The socket is a unix one, because the system reports whether the server has read all bytes: so the
pieces arrive as pieces.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import select
import socket
import sys
import tempfile
import termios
import time
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from picowsgi import Server
from support import descriptors_at_rest, open_descriptors, wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="asks a unix socket for its unread bytes"
)

TIMEOUT = 10.0
SETTINGS = settings(
    max_examples=300,
    deadline=None,
    derandomize="CI" in os.environ,
    # Random bytes are cheap. The server and the system need the time.
    suppress_health_check=[HealthCheck.too_slow],
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
VALID = [
    GET,
    b"HEAD /a%20b?c=d HTTP/1.1\r\nHost: a:80\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET http://b/c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\naccept: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n" + b"x" * 300,
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"PUT /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;a=b;c="d\\"e"\r\nabc\r\n0c8\r\n' + b"y" * 200 + b"\r\n00\r\nTrailer: t\r\n\r\n",
]
FRAGMENTS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b"\x80", b"\xff", b"_"),
    *(b"GET ", b"HEAD ", b"POST ", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/", b"*"),
    *(b"http://a/", b"%00", b"?", b"#", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/1.9\r\n"),
    *(b" HTTP/2.0\r\n", b" HTTP/1.10\r\n", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n"),
    *(b"Host: a\r\n", b"Host:\r\n", b"Host : a\r\n", b"Host: a b\r\n", b"X: y\r\n", b"X_Y: z\r\n"),
    *(b"X: " + b"x" * 300 + b"\r\n", b" folded\r\n", b"Connection: close\r\n", b"Expect: x\r\n"),
    *(b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Content-Length: 0\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n"),
    *(b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"hello"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"5;a=b\r\n", b"ffffffffffffffff\r\n", b"-1\r\n"),
    *(b"7fffffffffffffff\r\n", b"1 \r\n", b"0x1\r\n", b"400\r\n", b"Trailer: t\r\n\r\n"),
]
OPTIONS = {"max_head_size": 500, "max_fields": 6, "max_body_size": 600, "body_memory": 250}


# --- the bytes ----------------------------------------------------------------------------------


pieces = st.sampled_from(FRAGMENTS) | st.sampled_from(VALID) | st.binary(max_size=6)
built = st.lists(pieces, min_size=1, max_size=14).map(b"".join)


@st.composite
def mutated(draw):
    """A few valid requests with a few changes."""
    data = b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 30])))
        new = draw(st.just(b"") | st.just(data[at:end] * 2) | pieces)
        data = data[:at] + new + data[end:]
    return data


def cut(data, positions):
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in positions)})
    return [data[begin:end] for begin, end in pairwise(places)]


# --- the server ---------------------------------------------------------------------------------


class Recorder:
    """Responds with a digest of the request, and records it."""

    def __init__(self):
        self.seen = []

    def __call__(self, environ, start_response):
        content = environ["wsgi.input"].read()
        texts = sorted(
            (key, value)
            for key, value in environ.items()
            if type(value) is str and not key.startswith("REMOTE_")
        )
        self.seen.append((texts, content))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%08x\n" % zlib.crc32(repr((texts, content)).encode())]


@pytest.fixture(scope="module")
def target():
    """A server with small limits: the path of its socket, and its application."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="pw") as directory:
        path = Path(directory) / "socket"
        with Server(recorder, bind=[f"unix:{path}"], **OPTIONS):
            yield str(path), recorder


def wait_until_read(client):
    """Wait until the server has read all bytes, or does not listen any more."""
    unread = array.array("i", [0])
    deadline = time.monotonic() + TIMEOUT
    while fcntl.ioctl(client, termios.TIOCOUTQ, unread) == 0 and unread[0] > 0:
        hung_up = select.poll()
        hung_up.register(client, 0)
        if hung_up.poll(0):
            return
        assert time.monotonic() < deadline, "expected the server to read, or to close"
        time.sleep(0)


def receive_to_the_end(client):
    received = bytearray()
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise AssertionError(f"expected the end after {bytes(received)!r}") from None
    return bytes(received)


def outcome(target, parts):
    """Send `parts` one after the other; return the responses and the requests."""
    path, recorder = target
    recorder.seen = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        try:
            for part in parts:
                client.sendall(part)
                if len(parts) > 1:
                    wait_until_read(client)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = receive_to_the_end(client)
    # Whether the server asks for the content depends on whether it is already there.
    received = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    received = re.sub(rb"Date: [^\r]*\r\n", b"", received)
    return received, recorder.seen


def assert_same_however_split(target, data, positions):
    whole, seen = outcome(target, [data])
    for status in re.findall(rb"(?:^|\r\n\r\n|\n)HTTP/1\.1 ([0-9]+)", whole):
        assert status in b"200 400 408 413 414 417 431 501 505".split(), f"got status {status!r}"
    assert whole.count(b"HTTP/1.1 200 OK\r\n") == len(seen), (
        "expected one response for each request"
    )
    for parts in (cut(data, positions), cut(data, range(len(data)))):
        assert outcome(target, parts) == (whole, seen), f"expected one outcome for {parts!r}"


# --- the tests ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _everything_is_as_before(target):
    outcome(target, [GET])
    before = descriptors_at_rest()
    yield
    received, seen = outcome(target, [GET * 3])
    assert received.count(b"HTTP/1.1 200 OK\r\n") == len(seen) == 3, (
        "expected the server to continue"
    )
    wait_until(lambda: open_descriptors() <= before, "all descriptors to be closed")


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_each_valid_request_is_served_however_it_is_split(target, data):
    received, seen = outcome(target, [data, GET])
    assert received.startswith(b"HTTP/1.1 200 OK\r\n"), f"got {received[:200]!r}"
    assert len(seen) == (1 if b"Connection: close" in data else 2)
    assert_same_however_split(target, data + GET, range(0, len(data), 7))


@SETTINGS
@given(built, st.lists(st.integers(0, 10_000), max_size=6))
@example(b"\r\n" + GET + b"\r\n" + GET, [1, 2])
@example(b"HEAD / HTTP/1.1\r\n" + b"X: y\r\n" * 10, [3])
@example(b"HEAD / HTTP/1.1\r\nX: " + b"x" * 600, [30])
def test_fragments_of_requests_in_any_order_get_the_same_answers_however_they_are_split(
    target, data, positions
):
    assert_same_however_split(target, data, positions)


@SETTINGS
@given(mutated(), st.lists(st.integers(0, 10_000), max_size=6))
def test_changed_requests_get_the_same_answers_however_they_are_split(target, data, positions):
    assert_same_however_split(target, data, positions)


@SETTINGS
@given(st.binary(max_size=700), st.lists(st.integers(0, 10_000), max_size=6))
def test_any_bytes_get_the_same_answers_however_they_are_split(target, data, positions):
    assert_same_however_split(target, data, positions)
