"""A client disconnects or half-closes: what the application sees, and when bytes are freed."""

from __future__ import annotations

import hashlib
import logging
import threading

import pytest

from support import (
    connect,
    exchange,
    open_descriptors,
    ping,
    references,
    site,
    slow_client,
    wait_until,
)

TEXT = ("Content-Type", "text/plain; charset=utf-8")
MEBIBYTE = 1 << 20
LARGE = hashlib.sha512(b"large").digest() * (20 * MEBIBYTE // 64)
TIMEOUT = 10.0

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
PUT_CHUNKED = (
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
NAMES = ["picowsgi.client_disconnected", "waitress.client_disconnected"]
ENDINGS = pytest.mark.parametrize("ending", ["close", "reset"])


class Endless:
    """Items without an end; it records how the iteration ended."""

    def __init__(self, item=b"x" * 10_000):
        self._item = item
        self.asked = 0
        self.closes = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.asked += 1
        return self._item

    def close(self):
        self.closes += 1


# --- disconnects in the application -------------------------------------------------------------


@ENDINGS
@pytest.mark.parametrize("item", [b"x", b"x" * 10_000, LARGE], ids=lambda item: str(len(item)))
def test_the_server_closes_an_iterable_once_when_its_client_disconnects(
    serve, caplog, item, ending
):
    results = []

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        results.append(Endless(item))
        return results[-1]

    server = serve(site(answer))
    with slow_client(server) as client:
        client.send(GET)
        assert not client.is_over()
        getattr(client, ending)()
    wait_until(lambda: results[0].closes, "close() to be called")
    asked = results[0].asked
    ping(server)
    assert (results[0].closes, results[0].asked) == (1, asked)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not errors, "expected no error of the application after a disconnect"


@ENDINGS
def test_a_generator_runs_its_finally_when_its_client_disconnects(serve, ending):
    ended = threading.Event()

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        try:
            while True:
                yield b"item"
        finally:
            ended.set()

    server = serve(site(answer))
    with connect(server) as client:
        client.send(GET)
        assert not client.is_over()
        getattr(client, ending)()
    assert ended.wait(TIMEOUT), "expected the finally of the generator to run"
    ping(server)


@ENDINGS
def test_write_raises_when_the_client_has_disconnected_and_the_application_may_continue(
    serve, ending
):
    raised, done = [], threading.Event()

    def answer(environ, start_response):
        write = start_response("200 OK", [TEXT])
        while len(raised) < 3:
            try:
                write(b"x" * 10_000)
            except Exception as error:
                raised.append(type(error))
        done.set()
        return [b"the end"]

    server = serve(site(answer))
    with connect(server) as client:
        client.send(GET)
        assert not client.is_over()
        getattr(client, ending)()
    assert done.wait(TIMEOUT), "expected write() to raise"
    assert len(set(raised)) == 1, f"expected the same error each time, got {raised}"
    ping(server)


@ENDINGS
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when", ["in the call", "in the generator", "in close"])
def test_the_application_can_ask_whether_the_client_is_connected(serve, when, name, ending):
    before, after, asked = [], threading.Event(), threading.Event()

    def ask(disconnected):
        before.append(disconnected())
        asked.set()
        wait_until(disconnected, "the application to see that its client has disconnected")
        after.set()

    class Result(list):
        def __init__(self, disconnected):
            super().__init__([b"one", b"two"])
            self._disconnected = disconnected

        def close(self):
            ask(self._disconnected)

    def generate(disconnected):
        yield b"item"
        ask(disconnected)
        yield b"item"

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        if when == "in the generator":
            return generate(environ[name])
        if when == "in close":
            return Result(environ[name])
        ask(environ[name])
        return [b"content"]

    server = serve(site(answer))
    with connect(server) as client:
        client.send(GET)
        assert asked.wait(TIMEOUT)
        getattr(client, ending)()
        assert after.wait(TIMEOUT), "expected the application to learn about it"
    assert before == [False]
    ping(server)


def test_a_connected_client_is_reported_as_connected_however_often_the_application_asks(serve):
    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        yield repr({environ[name]() for name in NAMES for _ in range(100)}).encode()
        yield repr({environ[name]() for name in NAMES for _ in range(100)}).encode()

    for response in exchange(serve(site(answer)), GET * 5, 5):
        assert response.content == b"{False}{False}"


@ENDINGS
@pytest.mark.parametrize("name", NAMES)
def test_a_thread_of_the_application_has_no_client_that_could_have_disconnected(
    serve, name, ending
):
    answers, left = [], threading.Event()
    threads = []

    def answer(environ, start_response):
        def ask():
            answers.append(environ[name]())
            assert left.wait(TIMEOUT)
            answers.append(environ[name]())  # the request is over, the client has disconnected

        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        wait_until(lambda: answers, "a response while the request runs")
        start_response("200 OK", [TEXT])
        return [b"content"]

    server = serve(site(answer))
    with connect(server) as client:
        client.send(GET)
        assert client.read_response().content == b"content"
        getattr(client, ending)()
    ping(server)
    left.set()
    threads[0].join(TIMEOUT)
    assert answers == [False, False]


# --- half-closed clients ------------------------------------------------------------------------


def small(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"content"]


def large(environ, start_response):
    start_response("200 OK", [TEXT])
    return [LARGE]


def generated(environ, start_response):
    start_response("200 OK", [TEXT])
    for at in range(0, len(LARGE), 100_000):
        yield LARGE[at : at + 100_000]


def echoing(environ, start_response):
    start_response("200 OK", [TEXT])
    return [environ["wsgi.input"].read()]


@pytest.mark.parametrize("client_kind", [connect, slow_client], ids=["quick", "slow"])
@pytest.mark.parametrize(
    ("answer", "request_bytes", "content"),
    [
        (small, GET, b"content"),
        (large, GET, LARGE),
        (generated, GET, LARGE),
        (echoing, PUT, b"hello"),
        (echoing, PUT_CHUNKED, b"hello"),
    ],
    ids=["small", "large", "generated", "length", "chunked"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_half_closes_gets_all_of_its_responses(
    serve, answer, request_bytes, content, client_kind, count
):
    with client_kind(serve(site(answer))) as client:
        client.send(request_bytes * count)
        client.half_close()
        for _ in range(count):
            response = client.read_response()
            assert (response.status, response.complete) == (200, True)
            assert response.content == content
        client.read_nothing_more()


def test_a_client_that_half_closes_while_the_application_runs_gets_its_response(serve):
    running, half_closed = threading.Event(), threading.Event()

    def answer(environ, start_response):
        running.set()
        wait_until(environ[NAMES[0]], "the half-close to be noticed")
        half_closed.set()
        start_response("200 OK", [TEXT])
        return [b"content"]

    with connect(serve(site(answer))) as client:
        client.send(GET)
        assert running.wait(TIMEOUT)
        client.half_close()
        assert half_closed.wait(TIMEOUT)
        assert client.read_response().content == b"content"
        client.read_nothing_more()


# --- the bytes that are freed --------------------------------------------------------------------


@ENDINGS
def test_a_client_that_disconnects_after_a_finished_response_costs_nothing_more(serve, ending):
    server = serve(site(large))
    ping(server)
    before, descriptors = references(LARGE), open_descriptors()
    clients = [slow_client(server) for _ in range(50)]
    for client in clients:
        client.send(GET)
        assert not client.is_over()
    assert references(LARGE) >= before + len(clients)
    for client in clients:
        getattr(client, ending)()
    # No client sends the server anything during this time.
    wait_until(lambda: open_descriptors() <= descriptors, "all connections to be closed")
    wait_until(lambda: references(LARGE) <= before + 1, "the bytes to be released")
    ping(server)
    wait_until(lambda: references(LARGE) == before, "the last bytes to be released")


@ENDINGS
def test_the_server_soon_stops_serving_requests_of_a_client_that_has_disconnected(serve, ending):
    calls, left, first = [], threading.Event(), threading.Event()

    def answer(environ, start_response):
        calls.append(environ["PATH_INFO"])
        first.set()
        assert left.wait(TIMEOUT)
        wait_until(environ[NAMES[0]], "the disconnect to be noticed")
        start_response("200 OK", [TEXT])
        return [LARGE]

    server = serve(site(answer), threads=1)
    with connect(server) as client:
        client.send(GET * 100)
        assert first.wait(TIMEOUT)
        getattr(client, ending)()
    left.set()
    ping(server)
    assert len(calls) <= 3, f"expected no more responses without a client, got {len(calls)}"


@ENDINGS
def test_a_client_that_disconnects_before_its_response_leaves_no_descriptor_open(serve, ending):
    running, left = threading.Semaphore(0), threading.Event()

    def answer(environ, start_response):
        running.release()
        assert left.wait(TIMEOUT)
        start_response("200 OK", [TEXT])
        return [b"content"]

    server = serve(site(answer), threads=4)
    ping(server)
    descriptors = open_descriptors()
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.send(GET)
    assert running.acquire(timeout=TIMEOUT)
    for client in clients:
        getattr(client, ending)()
    left.set()
    wait_until(lambda: open_descriptors() <= descriptors, "all connections to be closed")
    ping(server)
