"""Streams that are made faster than their clients read wait in a file, not in a thread."""

from __future__ import annotations

import hashlib
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from support import connect, exchange, ping, resident_bytes, site, slow_client, wait_until

MIB = 1 << 20
# The most that the sockets of both sides take.
SOCKETS = 8 * MIB
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def block(number, size=60_000):
    """Bytes whose blocks all differ."""
    return hashlib.sha512(b"%d" % number).digest() * (size // 64)


class Streams:
    """An application whose / is a stream of `count` blocks; it counts the blocks that were made."""

    def __init__(self, count, length=True):
        self.count = count
        self.length = length
        self.made = 0
        self.ended = threading.Semaphore(0)

    @property
    def content(self):
        return b"".join(block(number) for number in range(self.count))

    def items(self):
        for number in range(self.count):
            self.made += 1
            yield block(number)
        self.ended.release()

    def __call__(self, _environ, start_response):
        fields = [("Content-Length", str(self.count * len(block(0))))] if self.length else []
        start_response("200 OK", fields)
        return self.items()


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "chunked"])
def test_slow_readers_of_streams_hold_no_thread(serve, length):
    streams = Streams(300, length)  # 18 MB each
    server = serve(site(streams), threads=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(slow_client(server)) for _ in range(8)]
        for client in clients:
            client.send(GET)
        for _ in clients:
            assert streams.ended.acquire(timeout=10), "expected the stream to be made at once"
        ping(server)
        content = streams.content
        for client in clients:
            assert client.read_response().content == content
        clients[0].send(GET)  # the connection does not change
        assert clients[0].read_response().content == content
    ping(server)


@pytest.mark.unsanitized  # a sanitizer keeps freed memory
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_spool_file_is_closed_and_memory_stays_flat(serve, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def spools():
        """The number of open files without a name in the folder."""
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed in the meantime
                found += str(entry.readlink()).startswith(str(tmp_path))
        return found

    streams = Streams(500)
    server = serve(site(streams))
    before = resident_bytes()
    with slow_client(server) as client:
        client.send(GET)
        assert streams.ended.acquire(timeout=10)
        assert spools() == 1
        assert resident_bytes() - before < 10 * MIB
        assert client.read_response().content == streams.content
        wait_until(lambda: spools() == 0, "the file to be closed")
    with slow_client(server) as client:
        client.send(GET)
        assert streams.ended.acquire(timeout=10)
        client.reset()
    wait_until(lambda: spools() == 0, "the file to be closed")
    ping(server)


@pytest.mark.parametrize(
    "options",
    [{"response_spool": 4 * MIB}, {"response_spool": 0}],
    ids=["a small file", "none"],
)
def test_beyond_the_limit_the_application_is_paused(serve, options):
    streams = Streams(1000)
    server = serve(site(streams), response_buffer=MIB, **options)
    with slow_client(server) as client:
        client.send(GET)
        client.wait_for_bytes()
        most = MIB + max(options.values()) + SOCKETS
        for _ in range(10):
            ping(server)
            assert streams.made * len(block(0)) - len(client.received) <= most
        assert client.read_response().content == streams.content
        client.send(GET)  # there is room again
        assert client.read_response().content == streams.content


def test_a_limit_holds_for_all_streams_together(serve):
    streams = Streams(100)  # 6 MB each
    server = serve(site(streams), threads=30, response_buffer=MIB, response_spool=4 * MIB)
    with ExitStack() as stack:
        clients = [stack.enter_context(slow_client(server)) for _ in range(24)]
        for client in clients:
            client.send(GET)
            client.wait_for_bytes()
        ping(server)
        content = streams.content
        for client in clients:
            assert client.read_response().content == content


def test_without_a_disk_the_application_is_paused(serve, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    streams = Streams(1000)
    server = serve(site(streams))
    with slow_client(server) as client:
        client.send(GET)
        client.wait_for_bytes()
        ping(server)
        assert not streams.ended.acquire(blocking=False)
        assert client.read_response().content == streams.content
    ping(server)


def test_parts_of_a_slow_stream_arrive_as_soon_as_the_application_makes_them(serve):
    turn = threading.Semaphore(0)

    def answer(environ, start_response):
        start_response("200 OK", [])
        for number in range(20):
            assert turn.acquire(timeout=10)
            yield b"event %d\n\n" % number

    with connect(serve(site(answer))) as client:
        client.send(GET)
        for number in range(20):
            turn.release()
            wanted = b"event %d\n\n" % number
            wait_until(
                lambda w=wanted: client.read_some(4096) >= 0 and w in client.received,
                "the application to be paused",
            )


def test_writes_of_many_sizes_arrive_in_order(serve):
    sizes = [1, 100, 16_384, 16_385, 70_000, 1_000_000, 5, 3_000_000, 200, 64]

    def answer(environ, start_response):
        write = start_response("200 OK", [])
        for number in range(60):
            write(block(number, 64) * (sizes[number % len(sizes)] // 64 + 1))
        return []

    expected = b"".join(
        block(number, 64) * (sizes[number % len(sizes)] // 64 + 1) for number in range(60)
    )
    server = serve(site(answer), response_buffer=100_000)
    with slow_client(server) as client:
        client.send(GET)
        assert client.read_response().content == expected
    assert exchange(server, GET)[0].content == expected


def serving_threads():
    names = [thread.name for thread in threading.enumerate()]
    return sum(name.startswith("picowsgi-") and name != "picowsgi-watch" for name in names)


def test_threads_that_slow_clients_hold_are_replaced_during_that_time(serve):
    streams = Streams(100)
    server = serve(site(streams), threads=4, response_spool=0, response_buffer=MIB, loops=1)
    content = streams.content
    for _ in range(3):
        with ExitStack() as stack:
            clients = [stack.enter_context(slow_client(server)) for _ in range(4)]
            for client in clients:
                client.send(GET)
                client.wait_for_bytes()
            for _ in range(20):
                ping(server)
            assert 4 < serving_threads() <= 8
            for client in clients:
                assert client.read_response().content == content

        def is_as_before():
            ping(server)
            return serving_threads() <= 4

        wait_until(is_as_before, "the surplus threads to end")


def test_slow_clients_hold_at_most_as_many_more_threads(serve):
    streams = Streams(100)
    server = serve(site(streams), threads=2, response_spool=0, response_buffer=MIB, loops=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(slow_client(server)) for _ in range(7)]
        for client in clients:
            client.send(GET)
        for client in clients[:4]:
            client.wait_for_bytes()
        assert serving_threads() == 4
        content = streams.content
        for client in clients:
            assert client.read_response().content == content
        ping(server)


def test_with_one_thread_there_is_never_a_second_one(serve):
    streams = Streams(100)
    server = serve(site(streams), threads=1, response_spool=0, response_buffer=MIB, loops=1)
    with slow_client(server) as client, connect(server) as other:
        client.send(GET)
        client.wait_for_bytes()
        other.send(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().content == streams.content
        assert other.read_response().content == b"pong"
        assert serving_threads() == 1
