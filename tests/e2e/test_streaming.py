"""Content of responses: framing, order, back-pressure, interim responses, and later errors."""

from __future__ import annotations

import hashlib
import re
import threading

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.errors import ResponseError
from support import (
    PING,
    connect,
    exchange,
    ping,
    raw,
    references,
    site,
    slow_client,
    wait_until,
)

TEXT = ("Content-Type", "text/plain; charset=utf-8")
MEBIBYTE = 1 << 20
# The most that the sockets of both sides take, besides the response buffer.
SOCKETS = 8 * MEBIBYTE

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD_GET = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"


def pattern(size, seed=b""):
    """Bytes whose blocks all differ."""
    blocks = (hashlib.sha512(b"%b%d" % (seed, number)).digest() for number in range(size // 64 + 1))
    return b"".join(blocks)[:size]


# The ways in which an application can return its content, a list of bytes.


def as_list(items, start_response, fields):
    start_response("200 OK", fields)
    return items


def as_tuple(items, start_response, fields):
    start_response("200 OK", fields)
    return tuple(items)


class OwnList(list):
    """A framework may return this instead of a list."""


def as_list_of_its_own(items, start_response, fields):
    start_response("200 OK", fields)
    return OwnList(items)


def as_generator(items, start_response, fields):
    start_response("200 OK", fields)
    yield from items


def as_writes(items, start_response, fields):
    write = start_response("200 OK", fields)
    for item in items:
        write(item)
    return []


def as_writes_and_items(items, start_response, fields):
    half = len(items) // 2
    as_writes(items[:half], start_response, fields)
    return iter(items[half:])


WAYS = [as_list, as_tuple, as_generator, as_writes, as_writes_and_items]


def giving(way, items, fields=()):
    """Make an application that returns these items in this way."""
    return site(lambda environ, start_response: way(items, start_response, [TEXT, *fields]))


# --- framing ------------------------------------------------------------------------------------


EDGES = [1, 2, 9, 15, 16, 17, 255, 256, 4_095, 4_096, 16_383, 16_384, 16_385, 65_536, 1_048_576]


def chunks_of(data):
    """The chunks after the head. Any inexact framing fails the test."""
    at = data.index(b"\r\n\r\n") + 4
    chunks = []
    while True:
        line = re.compile(rb"([1-9a-f][0-9a-f]*|0)\r\n").match(data, at)
        assert line, f"expected a chunk size at {at}, got {data[at : at + 20]!r}"
        size, at = int(line[1], 16), line.end()
        chunk, end = data[at : at + size], data[at + size : at + size + 2]
        assert (len(chunk), end) == (size, b"\r\n"), f"expected {size} bytes and CRLF at {at}"
        at += size + 2
        if size == 0:
            assert at == len(data), f"expected the end, got {data[at : at + 20]!r}"
            return chunks
        chunks.append(chunk)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client_kind", [connect, slow_client], ids=["quick", "slow"])
def test_each_item_is_a_chunk_of_its_size(serve, way, client_kind):
    items = [pattern(size) for size in EDGES]
    with client_kind(serve(giving(way, items))) as client:
        client.send(GET_AND_CLOSE)
        client.read_to_end()
        assert [len(chunk) for chunk in chunks_of(client.received)] == EDGES
        assert chunks_of(client.received) == items


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", EDGES)
def test_content_of_a_known_length_is_not_chunked(serve, way, size):
    items = [pattern(size), b"", pattern(size, b"2")]
    content = b"".join(items)
    server = serve(giving(way, items, [("Content-Length", str(len(content)))]))
    for answer in exchange(server, GET + GET, 2):
        assert answer.value("Transfer-Encoding") is None
        assert answer.value("Content-Length") == str(len(content))
        assert answer.content == content


@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_http_1_0_reads_up_to_the_close(serve, way):
    items = [pattern(size) for size in EDGES]
    with slow_client(serve(giving(way, items))) as client:
        client.send(OLD_GET)
        answer = client.read_response()
        assert answer.complete, "expected an orderly close"
        assert answer.value("Transfer-Encoding") is None
        assert answer.content == b"".join(items)


@pytest.mark.parametrize("way", WAYS)
def test_many_small_items_arrive_in_order(serve, way):
    items = [b"%d," % number for number in range(20_000)]
    with slow_client(serve(giving(way, items))) as client:
        client.send(GET + PING)
        assert client.read_response().content == b"".join(items)
        assert client.read_response().content == b"pong"


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_an_application_may_change_an_item_after_the_server_asks_for_the_next_one(serve, kind):
    block = bytearray(300_000)

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        for number in range(30):
            block[:] = bytes([number]) * len(block)
            yield kind(block)

    with slow_client(serve(site(answer))) as client:
        client.send(GET)
        expected = b"".join(bytes([number]) * len(block) for number in range(30))
        assert client.read_response().content == expected


# --- large responses ----------------------------------------------------------------------------


LARGE = pattern(20_000_000)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


@pytest.mark.parametrize("ending", ["read all", "close", "reset"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2])
def test_large_bytes_arrive_unchanged_and_are_released_after_they_were_sent(
    serve, way, count, ending
):
    server = serve(giving(way, [LARGE] * count))
    before = references(LARGE)
    with slow_client(server) as client:
        client.send(GET)
        assert not client.is_over()
        assert references(LARGE) > before, "expected the server to hold unsent bytes"
        if ending == "read all":
            content = client.read_response().content
            assert len(content) == len(LARGE) * count
            assert hashlib.sha256(content[-len(LARGE) :]).hexdigest() == LARGE_DIGEST
            assert hashlib.sha256(content[: len(LARGE)]).hexdigest() == LARGE_DIGEST
        else:
            getattr(client, ending)()
    wait_until(lambda: references(LARGE) == before, "the server to release the bytes")
    ping(server)


@pytest.mark.parametrize("way", [as_list, as_tuple, as_list_of_its_own])
@pytest.mark.parametrize("items", [[LARGE], [LARGE, LARGE], [LARGE[:1_000]] * 20_000], ids=len)
def test_a_response_that_is_in_memory_occupies_no_thread(serve, way, items):
    server = serve(giving(way, items), threads=1)
    with slow_client(server) as client:
        client.send(GET)
        assert not client.is_over()
        ping(server)
        assert len(client.received) < MEBIBYTE, "expected most of it to be still unsent"
        assert client.read_response().content == b"".join(items)


def test_pipelined_large_responses_arrive_in_order(serve):
    contents = {f"/{number}": pattern(number * 300_000, b"%d" % number) for number in range(8)}

    def answer(environ, start_response):
        way = WAYS[int(environ["PATH_INFO"][1:]) % len(WAYS)]
        return way([contents[environ["PATH_INFO"]]], start_response, [TEXT])

    with slow_client(serve(site(answer))) as client:
        for path in contents:
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() + PING)
        for path, content in contents.items():
            assert client.read_response().content == content, (
                f"expected the same response for {path}"
            )
            assert client.read_response().content == b"pong"


def test_large_heads_arrive_whole_at_any_time(serve):
    def answer(environ, start_response):
        name = environ["PATH_INFO"]
        content = [name.encode()] if name < "/5" else []
        start_response("200 OK", [TEXT, ("X-Large", name * 30_000)])
        return content

    paths = [f"/{number}" for number in range(10)]
    with slow_client(serve(site(answer))) as client:
        for path in paths * 5:
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() + PING)
        for path in paths * 5:
            response = client.read_response()
            assert dict(response.fields)["X-Large"] == path * 30_000, (
                f"expected the same head for {path}"
            )
            assert response.content == (path.encode() if path < "/5" else b"")
            assert client.read_response().content == b"pong"


def test_fifty_clients_get_large_responses_at_once_and_all_memory_is_released(serve):
    server = serve(giving(as_list, [LARGE]))
    before = references(LARGE)
    clients = [slow_client(server) for _ in range(50)]
    for client in clients:
        client.send(GET)
    for client in clients[::2]:
        assert not client.is_over()
        client.reset()
    for client in clients[1::20]:
        client.send(PING)
        assert client.read_response().content == LARGE
        assert client.read_response().content == b"pong"
    for client in clients:
        client.close()
    wait_until(lambda: references(LARGE) == before, "the server to release the bytes")


# --- back-pressure ------------------------------------------------------------------------------


@pytest.mark.parametrize("item_size", [1_000, 16_384, 100_000])
@pytest.mark.parametrize("way", ["yield", "write"])
def test_an_application_that_is_ahead_of_its_client_is_paused(serve, way, item_size):
    made = []
    count = 24 * MEBIBYTE // item_size

    def items():
        for number in range(count):
            made.append(None)
            yield b"%08d" % number * (item_size // 8)

    def answer(environ, start_response):
        write = start_response("200 OK", [("Content-Length", str(count * item_size))])
        if way == "yield":
            return items()
        for item in items():
            write(item)
        return []

    buffer = 100_000
    with slow_client(serve(site(answer), response_buffer=buffer, response_spool=0)) as client:
        client.send(GET)
        for _ in range(20):
            client.read_some(4_096)
            ahead = len(made) * item_size - len(client.received)
            most = buffer + item_size + SOCKETS
            assert ahead <= most, f"expected at most {most} bytes ahead of the client, got {ahead}"
        assert client.read_response().content == b"".join(
            b"%08d" % number * (item_size // 8) for number in range(count)
        )


# --- early hints --------------------------------------------------------------------------------


HINTS = [("Link", "</style.css>; rel=preload; as=style"), ("Link", "</app.js>; rel=preload")]
HINTS_BYTES = (
    b"HTTP/1.1 103 Early Hints\r\n"
    b"Link: </style.css>; rel=preload; as=style\r\n"
    b"Link: </app.js>; rel=preload\r\n\r\n"
)


def has_come(client, ending):
    client.read_some(MEBIBYTE)
    return client.received.endswith(ending)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("way", [as_generator, as_writes], ids=lambda way: way.__name__)
def test_items_that_are_made_together_do_not_wait_for_the_next_one(serve, way, threads):
    """They may leave together, but not only when the application has more (PEP 3333)."""
    release = threading.Event()

    class Items(list):
        def __iter__(self):
            yield from list.__iter__(self)
            release.wait(20)
            yield b"the last"

    items = Items(b"item %d\n" % number for number in range(200))
    with serve(site(lambda _, start: way(items, start, [TEXT])), threads=threads) as server:
        try:
            with connect(server) as client:
                client.send(b"GET / HTTP/1.0\r\n\r\n")
                wait_until(lambda: has_come(client, b"item 199\n"), "all items")
                release.set()
                assert client.read_response().content.endswith(b"item 199\nthe last")
        finally:
            release.set()


def test_the_server_sends_the_rest_of_a_part_while_the_application_works(serve):
    release = threading.Event()
    large = pattern(12 * MEBIBYTE)

    def application(_environ, start_response):
        start_response("200 OK", [TEXT])
        yield large
        release.wait(20)
        yield b"the last"

    with serve(application, threads=2, response_buffer=2 * len(large)) as server:
        try:
            with connect(server) as client:
                client.send(b"GET / HTTP/1.0\r\n\r\n")
                wait_until(lambda: has_come(client, large[-100:]), "all items")
                release.set()
                assert client.read_response().content == large + b"the last"
        finally:
            release.set()


def hinting(count=1, headers=HINTS, way=as_list):
    def answer(environ, start_response):
        for _ in range(count):
            environ["wsgi.early_hints"](headers)
        return way([b"content"], start_response, [TEXT])

    return site(answer)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_early_hints_come_before_the_response(serve, count, way):
    data = raw(serve(hinting(count, way=way)), GET_AND_CLOSE)
    interim, final = data[: count * len(HINTS_BYTES)], data[count * len(HINTS_BYTES) :]
    assert interim == HINTS_BYTES * count
    assert final.startswith(b"HTTP/1.1 200 OK\r\n")


def test_early_hints_arrive_while_the_application_still_works(serve):
    arrived = []

    def answer(environ, start_response):
        environ["wsgi.early_hints"](HINTS)
        wait_until(lambda: arrived, "the client to have the hints")
        start_response("200 OK", [TEXT])
        return [b"content"]

    with connect(serve(site(answer))) as client:
        client.send(GET)
        arrived.append(client.read_interim())
        assert arrived == [103]
        assert client.read_response().content == b"content"


def test_a_client_of_http_1_0_gets_no_early_hints(serve):
    data = raw(serve(hinting(3)), OLD_GET)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b" 103 " not in data


def test_early_hints_after_the_head_was_sent_are_ignored(serve):
    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        environ["wsgi.early_hints"](HINTS)  # not sent yet: it leaves with the first item
        yield b"one"
        environ["wsgi.early_hints"](HINTS)
        yield b"two"

    [first, second] = exchange(serve(site(answer)), GET + GET, 2)
    assert (first.interim, first.content) == ((103,), b"onetwo")
    assert (second.interim, second.content) == ((103,), b"onetwo")


def test_early_hints_of_pipelined_requests_stay_with_their_responses(serve):
    for answer in exchange(serve(hinting(2)), GET * 50, 50):
        assert answer.interim == (103, 103)
        assert answer.content == b"content"


def test_early_hints_of_any_size_arrive_whole_at_a_slow_client(serve):
    headers = [("Link", f"<{number}{'x' * 40_000}>; rel=preload") for number in range(4)]
    with slow_client(serve(hinting(100, headers))) as client:
        client.send(GET_AND_CLOSE)
        client.read_to_end()
        one = "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
        expected = (b"HTTP/1.1 103 Early Hints\r\n" + one + b"\r\n") * 100
        assert client.received[: len(expected)] == expected
        assert client.received[len(expected) :].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "headers", [[("Link", "a\r\nb")], [("Li nk", "a")], [("Link", 5)], [("Link", "\u20ac")], 5]
)
def test_invalid_early_hints_are_an_error_and_not_sent(serve, headers):
    raised = []

    def answer(environ, start_response):
        try:
            environ["wsgi.early_hints"](headers)
        except ResponseError as error:
            raised.append(str(error))
        start_response("200 OK", [TEXT])
        return [b"content"]

    [response] = exchange(serve(site(answer)), GET)
    assert (response.status, response.interim) == (200, ())
    assert len(raised) == 1


def test_early_hints_of_a_thread_of_the_application_are_not_sent(serve):
    over, raised = threading.Event(), []

    def answer(environ, start_response):
        def hint():
            environ["wsgi.early_hints"](HINTS)
            try:
                environ["wsgi.early_hints"](5)
            except ResponseError as error:
                raised.append(str(error))

        def hint_later():
            assert over.wait(10)
            hint()

        first, later = threading.Thread(target=hint), threading.Thread(target=hint_later)
        first.start()
        later.start()
        first.join()
        threads.append(later)
        start_response("200 OK", [TEXT])
        return [b"content"]

    threads = []
    with connect(serve(site(answer))) as client:
        client.send(GET)
        response = client.read_response()
        assert (response.interim, response.content) == ((), b"content")
        over.set()
        threads[0].join(10)
        assert len(raised) == 2, "expected an error for invalid fields there, too"
        client.send(PING)
        response = client.read_response()
        assert (response.interim, response.content) == ((), b"pong")


def test_early_hints_without_a_request_are_ignored():
    server = core.CoreServer([], Settings())
    thread = core.CoreThread(server, 0)
    assert core.send_interim(thread.pointer, HINTS_BYTES, len(HINTS_BYTES)) == core.GONE
    assert core.client_gone(thread.pointer) == 1


# --- errors -------------------------------------------------------------------------------------


class Raising:
    """An iterable of items that can raise errors, and counts its close() calls."""

    def __init__(self, items, where):
        self._items = iter(items)
        self._where = where
        self.closes = 0

    def _raise_at(self, where):
        if self._where == where:
            raise RuntimeError(f"in {where}, as the test wants it")

    def __iter__(self):
        self._raise_at("iter")
        return self

    def __next__(self):
        try:
            return next(self._items)
        except StopIteration:
            self._raise_at("next")
            raise

    def close(self):
        self.closes += 1
        self._raise_at("close")


@pytest.mark.parametrize("half_closed", [False, True], ids=["", "half-closed"])
@pytest.mark.parametrize("request_bytes", [GET, OLD_GET], ids=["1.1", "1.0"])
@pytest.mark.parametrize("fields", [[], [("Content-Length", "99000000")]], ids=["", "length"])
@pytest.mark.parametrize("size", [5, 3_000_000])
@pytest.mark.parametrize("where", ["next", "write"])
def test_a_response_that_breaks_off_never_looks_complete(
    serve, caplog, where, size, fields, request_bytes, half_closed
):
    content = pattern(size)
    results = []

    def answer(environ, start_response):
        write = start_response("200 OK", [TEXT, *fields])
        if where == "write":
            write(content)
            raise RuntimeError("after write, as the test wants it")
        results.append(Raising([content], "next"))
        return results[-1]

    server = serve(site(answer))
    with slow_client(server) as client:
        client.send(request_bytes)
        if half_closed:
            client.half_close()
        if request_bytes is OLD_GET and not fields:
            ended = client.end()
            assert ended == "reset", "expected a reset, because content up to the close is cut"
        else:
            response = client.read_response()
            assert not response.complete, "expected the client to notice that the content is cut"
            assert response.content == content
    ping(server)
    assert [result.closes for result in results] == [1] * (where == "next")
    assert len(caplog.records) == 1, "expected one message with the traceback"
    assert "as the test wants it" in caplog.text


def test_an_error_in_close_is_logged_and_the_response_is_whole(serve, caplog):
    results = []

    def answer(environ, start_response):
        start_response("200 OK", [TEXT])
        results.append(Raising([LARGE[:1_000_000]] * 3, "close"))
        return results[-1]

    with slow_client(serve(site(answer))) as client:
        client.send(GET + PING)
        assert client.read_response().content == LARGE[:1_000_000] * 3
        assert client.read_response().content == b"pong"
    assert results[0].closes == 1
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.parametrize("call", ["write", "start_response"])
def test_a_write_after_the_end_of_the_request_is_an_error(serve, call):
    kept = {}

    def answer(environ, start_response):
        kept["write"] = start_response("200 OK", [TEXT])
        kept["start_response"] = start_response
        return [b"content"]

    server = serve(site(answer))
    assert exchange(server, GET)[0].content == b"content"
    with pytest.raises(ResponseError, match=r"after the end|again"):
        kept[call](*{"write": [b"late"], "start_response": ["200 OK", []]}[call])
    ping(server)


def test_parts_in_quick_succession_also_leave_after_a_long_silence(serve):
    """Small parts leave together. The watcher that sends them may have gone to sleep."""
    turn = threading.Semaphore(0)

    def answer(_environ, start_response):
        start_response("200 OK", [TEXT])
        for number in range(4):
            assert turn.acquire(timeout=10)
            yield b"first %d\n" % number
            yield b"second %d\n" % number
            yield b"third %d\n" % number

    with connect(serve(site(answer))) as client:
        client.send(GET)
        for number in range(4):
            turn.acquire(timeout=0.25)  # there is no event for that time
            turn.release()
            wanted = b"third %d\n" % number
            wait_until(
                lambda w=wanted: client.read_some(4096) >= 0 and w in client.received,
                "all three parts",
                timeout=1.0,
            )


@pytest.mark.parametrize("size", [100, 15_000, 17_000, 40_000])
@pytest.mark.parametrize("way", [as_list, as_tuple], ids=["list", "tuple"])
def test_a_head_of_any_size_follows_content_that_the_client_has_not_read(serve, size, way):
    value = pattern(size).hex()[:size]

    def answer(environ, start_response):
        if environ["PATH_INFO"] == "/large":
            start_response("200 OK", [TEXT])
            return [LARGE]
        return way([b"content"], start_response, [TEXT, ("X-Large", value)])

    with slow_client(serve(site(answer))) as client:
        client.send(GET.replace(b"/ ", b"/large ") + GET + GET)
        client.wait_for_bytes()
        assert client.read_response().content == LARGE
        for _ in range(2):
            response = client.read_response()
            assert (response.value("x-large"), response.content) == (value, b"content")


def test_a_large_head_that_is_not_sent_at_once_outlives_the_next_head(serve):
    def value(environ):
        return environ["PATH_INFO"][1] * 4_000_000  # more than the sockets take in

    def answer(environ, start_response):
        start_response("200 OK", [TEXT, ("X-Large", value(environ))])
        return [LARGE]

    server = serve(site(answer), threads=1)
    with slow_client(server) as slow, connect(server) as other:
        slow.send(GET.replace(b"/ ", b"/a "))
        slow.wait_for_bytes()
        for path in (b"/b ", b"/c "):
            other.send(GET.replace(b"/ ", path))
            other.read_response()
        response = slow.read_response()
        assert response.value("x-large") == "a" * 4_000_000
        assert response.content == LARGE
