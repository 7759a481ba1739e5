"""Iterables without an end: the server closes each one as soon as no client wants more of it."""

from __future__ import annotations

import threading
import time

import pytest

from support import connect, exchange, ping, resident_bytes, site, slow_client, wait_until

TEXT = ("Content-Type", "text/plain; charset=utf-8")


class Endless:
    """An iterable without an end; close() sets `closed`."""

    def __init__(self, item, pause=0.0):
        self.item = item
        self.pause = pause
        self.closed = threading.Event()

    def __iter__(self):
        while not self.closed.is_set():
            if self.pause:
                time.sleep(self.pause)
            yield self.item

    def close(self):
        self.closed.set()


def endless(item, status="200 OK", **more):
    """A site whose / gives endless items. Returns it with a list of the items so far."""
    given = []

    def answer(environ, start_response):
        start_response(status, [TEXT])
        given.append(Endless(item, **more))
        return given[-1]

    return site(answer), given


@pytest.mark.parametrize("item", [b"", b"item"], ids=["empty items", "items"])
@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")],
)
def test_a_response_without_content_ends_at_the_first_item(serve, method, status, item):
    application, given = endless(item, status)
    server = serve(application, threads=2)
    with connect(server) as client:
        for number in range(4):  # more than there are threads
            client.send(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
            assert client.read_response(method).status == int(status[:3])
            assert given[number].closed.is_set()
    ping(server)


@pytest.mark.parametrize("ending", ["reset", "close"])
@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "after some content"])
def test_a_stream_of_empty_items_ends_when_the_client_has_disconnected(serve, ending, begun):
    entered, closed = threading.Event(), threading.Event()

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        entered.set()
        try:
            if begun:
                yield b"begun"
            while True:
                time.sleep(0.01)
                yield b""
        finally:
            closed.set()

    server = serve(site(answer), threads=1)
    with connect(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert entered.wait(10)  # otherwise a reset could discard the request
        if begun:
            client.wait_for_bytes()
        getattr(client, ending)()
    wait_until(closed.is_set, "the generator to be closed")
    ping(server)


def test_a_client_that_half_closes_gets_the_content_after_empty_items(serve):
    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        for _ in range(30):
            time.sleep(0.01)
            yield b""
        yield b"content"

    with connect(serve(site(answer))) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.half_close()
        assert client.read_response().content == b"content"


class LazyList(list):
    """Makes its items when it is iterated, like a lazy query of an ORM."""

    count = 400
    made = 0

    def __iter__(self):
        for _ in range(self.count):
            self.made += 1
            yield b"x" * 100_000

    def __len__(self):
        return self.count


def test_a_list_that_makes_its_items_waits_for_its_client(serve):
    given = []

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        given.append(LazyList())
        return given[-1]

    server = serve(site(answer))
    before = resident_bytes()
    with slow_client(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.wait_for_bytes()
        ping(server)
        assert given[0].made < LazyList.count, "expected the list to wait for its client"
        assert resident_bytes() - before < 20_000_000
        assert len(client.read_response().content) == 100_000 * LazyList.count


def test_a_list_with_its_own_iterator_is_iterated(serve):
    class Reversed(list):
        def __iter__(self):
            return reversed(list(super().__iter__()))

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        return Reversed([b"b", b"a"])

    assert exchange(serve(site(answer)), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0].content == b"ab"
