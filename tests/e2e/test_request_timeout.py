"""--timeout-request: a slow application is interrupted, and the log shows its stack."""

import logging
import threading
import time

import pytest

from support import INTERRUPTS, PYPY, connect

PLAIN = [("Content-Type", "text/plain")]


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def spin_for_long():
    until = time.monotonic() + 10
    while time.monotonic() < until:
        pass


class Application:
    def __init__(self):
        self.closed = threading.Event()
        self.hangs = threading.Event()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/call":
            spin_for_long()
        if path == "/deaf":
            self.hangs.wait(10)  # one call that no exception interrupts
        start_response("200 OK", PLAIN)
        return self.items() if path == "/items" else [b"quick"]

    def items(self):
        try:
            yield b"first"
            spin_for_long()
        finally:
            self.closed.set()


@pytest.mark.measured
@INTERRUPTS
@pytest.mark.parametrize("threads", [1, 4])
def test_a_request_that_takes_too_long_ends_with_a_500_and_its_stack_in_the_log(
    serve, caplog, threads
):
    caplog.set_level(logging.ERROR, logger="picowsgi")
    with connect(serve(Application(), timeout_request=0.3, threads=threads)) as client:
        begin = time.monotonic()
        client.send(get("/call"))
        assert client.read_response().status == 500
        took = time.monotonic() - begin
        client.send(get("/"))
        assert client.read_response().content == b"quick"
    assert 0.3 <= took < 3, f"expected the end after about 0.3 s, it took {took:.2f} s"
    assert "spin_for_long" in caplog.text


@INTERRUPTS
def test_a_streamed_response_is_cut_and_its_iterable_closed(serve):
    application = Application()
    with connect(serve(application, timeout_request=0.3)) as client:
        client.send(get("/items"))
        response = client.read_response()
        assert response.content == b"first"
        assert not response.complete, "expected the client to notice that the response is cut"
    assert application.closed.wait(5)


@INTERRUPTS
def test_other_requests_are_served_while_one_waits_for_its_interruption(serve):
    application = Application()
    server = serve(application, timeout_request=0.3, threads=2)
    with connect(server) as slow, connect(server) as quick:
        slow.send(get("/call"))
        for _ in range(50):
            quick.send(get("/"))
            assert quick.read_response().content == b"quick"
        assert slow.read_response().status == 500


def test_a_request_that_cannot_be_interrupted_is_reported_twice(serve, caplog):
    application = Application()
    with caplog.at_level(logging.ERROR, logger="picowsgi"):
        server = serve(application, timeout_request=0.2, threads=2)
        with connect(server) as client:
            client.send(get("/deaf"))
            until = time.monotonic() + 5
            while "has not ended" not in caplog.text:
                assert time.monotonic() < until, "expected a second line about the request"
            application.hangs.set()
            assert client.read_response().status == (200 if PYPY else 500)
            client.send(get("/"))
            assert client.read_response().content == b"quick"
    assert "hangs.wait" in caplog.text
    assert ("PyPy cannot interrupt it" in caplog.text) is PYPY


def test_quick_requests_are_never_interrupted(serve):
    with connect(serve(Application(), timeout_request=0.05, threads=4)) as client:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            client.send(get("/"))
            assert client.read_response().content == b"quick"


@INTERRUPTS
def test_each_request_of_a_thread_has_its_own_time(serve):
    """The second and the third request that take too long are interrupted like the first one."""
    server = serve(Application(), timeout_request=0.2, threads=1)
    with connect(server) as client:
        for _ in range(3):
            client.send(get("/call"))
            assert client.read_response().status == 500
            client.send(get("/"))
            assert client.read_response().content == b"quick"
