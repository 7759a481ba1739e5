"""Each timeout of the option table, and open requests at a stop.

The timeouts are fractions of a second. Latest times have generous bounds, because the machine may
be busy with other tests.
"""

from __future__ import annotations

import threading
import time

import pytest

from support import (
    RawClient,
    connect,
    descriptors_at_rest,
    exchange,
    open_descriptors,
    wait_until,
)

SHORT = 0.3
ROOMY = 0.6  # for clients that have to be in time, on a machine that runs other programs
PAUSE = 0.1
LONG = 60.0
EARLY = 0.02  # the clock of the core may be some milliseconds late
LATE = 3.0
LARGE = bytes(range(256)) * (8 << 12)  # 8 MiB: more than the system keeps for a connection
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET_10 = b"GET / HTTP/1.0\r\n\r\n"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello " + environ["wsgi.input"].read()]


def large(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [LARGE]


class Streamed:
    """An endless response; it records whether close() was called, and counts its items."""

    def __init__(self, item=b"x" * 65536, pause=0.0):
        self.item = item
        self.pause = pause
        self.given = 0
        self.closed = threading.Event()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/":
            return hello(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return self

    def __iter__(self):
        return self

    def __next__(self):
        self.given += 1
        time.sleep(self.pause)
        return self.item

    def close(self):
        self.closed.set()


def assert_between(seconds, least, what):
    assert seconds >= least - EARLY, f"expected {what} after {least:g} s, it was {seconds:.3f}"
    assert seconds < least + LATE, f"expected {what} soon after {least:g} s, it was {seconds:.3f}"


def assert_refused(client, status):
    response = client.read_response()
    assert (response.status, response.complete) == (status, True)
    assert response.tokens("Connection") == ["close"]
    client.read_nothing_more()


# --- the head -----------------------------------------------------------------------------------


def drip_until_answered(client, data, pause):
    """Send byte after byte until a response begins; return the seconds since the first byte."""
    begin = time.monotonic()
    for byte in data:
        client.send(bytes([byte]))
        next_byte = time.monotonic() + pause
        while time.monotonic() < next_byte:
            if client.read_some(1):
                return time.monotonic() - begin
            time.sleep(0.005)
    raise AssertionError(f"expected an answer before {len(data)} bytes had been sent")


@pytest.mark.parametrize("before", [b"", GET], ids=["first request", "second request"])
def test_a_slow_head_gets_its_408_as_soon_as_an_incomplete_one(serve, before):
    with connect(serve(hello, timeout_head=SHORT)) as client:
        if before:
            client.send(before)
            assert client.read_response().status == 200
        seconds = drip_until_answered(client, GET + b"x" * 200, pause=0.02)
        assert_between(seconds, SHORT, "the answer to a dripping head")
        assert_refused(client, 408)


def test_an_incomplete_head_gets_a_408(serve):
    with connect(serve(hello, timeout_head=SHORT)) as client:
        begin = time.monotonic()
        client.send(GET[:-2])
        assert not client.is_over(), "expected 408 before the end"
        assert_between(time.monotonic() - begin, SHORT, "408")
        assert_refused(client, 408)


def test_the_time_for_a_head_counts_from_its_first_byte(serve):
    with connect(serve(hello, timeout_head=SHORT)) as client:
        time.sleep(SHORT * 1.5)
        begin = time.monotonic()
        client.send(GET[:1])
        assert not client.is_over(), "expected 408 before the end"
        assert_between(time.monotonic() - begin, SHORT, "408")


def test_a_head_in_pieces_within_the_time_is_served(serve):
    with connect(serve(hello, timeout_head=LONG, timeout_keep_alive=SHORT)) as client:
        client.send(GET[:-1])
        time.sleep(SHORT * 1.5)
        client.send(GET[-1:])
        assert client.read_response().status == 200


def test_a_request_line_after_its_408_is_not_served(serve):
    server = serve(hello, timeout_head=SHORT)
    with connect(server) as client:
        client.send(GET[:-2])
        assert client.read_response().status == 408
        client.send(b"\r\n" + GET)
        client.read_nothing_more()


def test_a_response_behind_which_a_head_is_incomplete_does_not_wait_for_the_timeout(serve):
    with connect(serve(hello, timeout_head=LONG)) as client:
        client.send(GET + GET[:-2])
        assert client.read_response().status == 200
        client.send(GET[-2:])
        assert client.read_response().status == 200


@pytest.mark.parametrize("threads", [1, 16])
def test_clients_in_time_get_no_408_when_the_application_has_blocked_the_server(serve, threads):
    running, over = threading.Event(), threading.Event()

    def slow(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            running.set()
            over.wait(LATE)
        return hello(environ, start_response)

    server = serve(slow, threads=threads, timeout_head=ROOMY, timeout_body=ROOMY)
    with connect(server) as blocker, connect(server) as head, connect(server) as content:
        head.send(GET[:-2])
        content.send(POST + b"Content-Length: 2\r\n\r\na")
        blocker.send(GET)
        assert blocker.read_response().status == 200  # the others have been read from by now
        blocker.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert running.wait(LATE)
        head.send(GET[-2:])
        content.send(b"b")
        time.sleep(ROOMY * 1.5)
        over.set()
        assert blocker.read_response().status == 200
        assert head.read_response().status == 200, (
            "expected a response: its head was complete in time"
        )
        assert content.read_response().status == 200, (
            "expected a response: its content was complete in time"
        )


# --- the content --------------------------------------------------------------------------------


CONTENT = [
    pytest.param(b"Content-Length: 10\r\n\r\n", [b"%d" % n for n in range(10)], id="length"),
    pytest.param(
        b"Transfer-Encoding: chunked\r\n\r\n",
        [*(b"1\r\n%d\r\n" % n for n in range(10)), b"0\r\n\r\n"],
        id="chunked",
    ),
]


@pytest.mark.parametrize(("framing", "pieces"), CONTENT)
@pytest.mark.parametrize("sent", [0, 1, 9])
def test_content_without_progress_gets_a_408(serve, framing, pieces, sent):
    with connect(serve(hello, timeout_body=SHORT)) as client:
        client.send(POST + framing)
        for piece in pieces[:sent]:
            client.send(piece)
        begin = time.monotonic()
        assert not client.is_over(), "expected 408 before the end"
        assert_between(time.monotonic() - begin, SHORT, "408")
        assert_refused(client, 408)


@pytest.mark.parametrize(("framing", "pieces"), CONTENT)
def test_progress_of_the_content_extends_its_time(serve, framing, pieces):
    with connect(serve(hello, timeout_body=ROOMY, timeout_head=SHORT)) as client:
        client.send(POST + framing)
        for piece in pieces:
            time.sleep(PAUSE)
            client.send(piece)
        assert client.read_response().content == b"hello 0123456789"


def test_a_client_that_waits_for_100_and_then_sends_nothing_gets_a_408(serve):
    with connect(serve(hello, timeout_body=SHORT)) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        assert client.read_interim() == 100
        assert_refused(client, 408)


# --- writing ------------------------------------------------------------------------------------


def ask_and_read_nothing(server, request=GET):
    """Send a request. If it is complete, wait for the first byte of its response."""
    client = RawClient(server.port, receive_buffer=4096)
    client.send(request)
    if request.endswith(b"\r\n\r\n"):  # complete
        wait_until(lambda: client.read_some(1), "the response to begin")
    return client


def wait_until_aborted(before):
    """Wait until this process has only the client's end of the only connection."""
    wait_until(lambda: open_descriptors() == before + 1, "the connection to be aborted")


def test_a_client_that_does_not_read_a_finished_response_is_aborted(serve):
    server = serve(large, timeout_write=SHORT)
    before, begin = descriptors_at_rest(), time.monotonic()
    with ask_and_read_nothing(server) as client:
        wait_until_aborted(before)
        assert_between(time.monotonic() - begin, SHORT, "the abort")
        assert client.end() == "reset", "expected a reset, not an end that looks orderly"
        assert len(client.received) < len(LARGE)


def test_a_response_that_ends_with_its_connection_is_never_cut_without_a_sign(serve):
    def parts(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [LARGE, LARGE]  # all in memory, and no Content-Length

    server = serve(parts, timeout_write=SHORT)
    before = descriptors_at_rest()
    with ask_and_read_nothing(server, GET_10) as client:
        wait_until_aborted(before)
        assert client.end() == "reset", "expected no orderly end of half a response"


def read_steadily(client, seconds, rate=100_000):
    """Read at a rate (bytes a second) for some time; return the number of bytes."""
    begin, total = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < seconds:
        if total < rate * passed:
            total += client.read_some(2048)
        time.sleep(0.002)
    return total


def test_a_client_that_reads_slowly_but_steadily_is_not_aborted(serve):
    server = serve(large, timeout_write=ROOMY)
    with ask_and_read_nothing(server) as client:
        read_steadily(client, ROOMY * 3)
        response = client.read_response()
        assert response.complete, f"expected the whole response, got {len(response.content)} bytes"
        assert response.content == LARGE


def test_a_client_that_does_not_read_a_streamed_response_is_aborted(serve):
    streamed = Streamed()
    server = serve(streamed, timeout_write=SHORT, response_buffer=65536)
    with ask_and_read_nothing(server) as client:
        begin = time.monotonic()
        assert streamed.closed.wait(LATE + SHORT), "expected close() to be called"
        assert_between(time.monotonic() - begin, SHORT, "close()")
        given = streamed.given
        response = exchange(server, b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n")[0]
        assert response.status == 200, "expected the server to continue"
        assert streamed.given == given
        client.end()


def test_a_client_that_reads_a_streamed_response_slowly_but_steadily_is_not_aborted(serve):
    streamed = Streamed()
    server = serve(streamed, timeout_write=ROOMY, response_buffer=65536)
    with ask_and_read_nothing(server) as client:
        read_steadily(client, ROOMY * 3)
        assert not streamed.closed.is_set(), "expected a response: the client read all the time"
    assert streamed.closed.wait(LATE), "expected close() after the disconnect"


# --- idle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GET], ids=["new", "after a request"])
def test_an_idle_connection_is_closed_without_a_response(serve, before):
    with connect(serve(hello, timeout_keep_alive=SHORT)) as client:
        begin = time.monotonic()
        if before:
            client.send(before)
            assert client.read_response().status == 200
        client.read_nothing_more()
        assert_between(time.monotonic() - begin, SHORT, "the close")


def test_each_request_restarts_the_idle_time(serve):
    with connect(serve(hello, timeout_keep_alive=ROOMY)) as client:
        for _ in range(8):
            time.sleep(PAUSE)
            client.send(GET)
            assert client.read_response().status == 200


def test_the_time_in_the_application_does_not_count_as_idle(serve):
    def slow(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(ROOMY * 1.2)
        return hello(environ, start_response)

    with connect(serve(slow, timeout_keep_alive=ROOMY)) as client:
        for _ in range(2):
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response().status == 200
            time.sleep(PAUSE)
            client.send(GET)
            assert client.read_response().status == 200, "expected the connection to stay open"


# --- the end ------------------------------------------------------------------------------------


def assert_ended(server, least=0.0):
    begin = time.monotonic()
    assert server.join(LATE + least), "expected the server to end"
    assert_between(time.monotonic() - begin, least, "the end")


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(GET[:5], GET[5:], id="in the head"),
        pytest.param(POST + b"Content-Length: 2\r\n\r\na", b"b", id="in the content"),
    ],
)
def test_a_half_received_request_is_served_before_the_server_ends(serve, first, rest):
    server = serve(hello, timeout_graceful=LONG)
    with connect(server) as client, connect(server) as other:
        client.send(first)
        other.send(GET)
        assert other.read_response().status == 200  # by now the server has read the first one too
        server.request_stop()
        other.read_nothing_more()
        client.send(rest)
        response = client.read_response()
        assert (response.status, response.tokens("Connection")) == (200, ["close"])
        client.read_nothing_more()
        assert_ended(server)


def test_the_server_waits_for_a_running_application(serve):
    running, over = threading.Event(), threading.Event()

    def slow(environ, start_response):
        running.set()
        assert over.wait(LATE)
        return hello(environ, start_response)

    server = serve(slow, timeout_graceful=LONG)
    with connect(server) as client:
        client.send(GET)
        assert running.wait(LATE)
        server.request_stop()
        assert not server.join(0.1), "expected the server to wait for the application"
        over.set()
        response = client.read_response()
        assert (response.status, response.tokens("Connection")) == (200, ["close"])
        assert_ended(server)


@pytest.mark.parametrize("request_", [GET, GET_10], ids=["HTTP/1.1", "HTTP/1.0"])
def test_a_large_response_is_sent_completely_before_the_server_ends(serve, request_):
    server = serve(large, timeout_graceful=LONG)
    with ask_and_read_nothing(server, request_) as client:
        server.request_stop()
        assert not server.join(0.1), "expected the server to wait for the client"
        response = client.read_response()
        assert (len(response.content), response.complete) == (len(LARGE), True)
        assert_ended(server)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GET[:5], id="in the head"),
        pytest.param(POST + b"Content-Length: 2\r\n\r\na", id="in the content"),
        pytest.param(GET, id="in the response"),
    ],
)
def test_a_request_that_is_open_at_the_end_of_the_graceful_time_is_cut(serve, data):
    server = serve(large, timeout_graceful=SHORT)
    with ask_and_read_nothing(server, data) as client, connect(server) as other:
        other.send(GET[:-2])  # never complete
        server.request_stop()
        assert_ended(server, SHORT)
        server.stop()
        client.end()
        other.end()
        assert len(client.received) < len(LARGE)


@pytest.mark.parametrize("pause", [0.0, 0.01], ids=["client too slow", "client fast enough"])
def test_an_endless_response_is_cut_at_the_end_of_the_graceful_time(serve, pause):
    streamed = Streamed(pause=pause)
    server = serve(streamed, timeout_graceful=SHORT, response_buffer=65536)
    with RawClient(server.port, receive_buffer=4096 if pause == 0 else None) as client:
        client.send(GET)
        assert not client.is_over(), "expected the response to begin"
        reader = threading.Thread(target=read_steadily, args=(client, SHORT * 3, 10_000_000))
        reader.start()
        server.request_stop()
        assert_ended(server, SHORT)
        assert streamed.closed.is_set(), "expected close() to be called"
        reader.join()


@pytest.mark.parametrize(
    ("app", "data"),
    [
        pytest.param(hello, GET[:-2], id="in the head"),
        pytest.param(large, GET, id="in a finished response"),
        pytest.param(Streamed(), GET, id="in a streamed response, the client too slow"),
        pytest.param(Streamed(b"x", 0.01), GET, id="in a streamed response"),
    ],
)
def test_only_an_immediate_stop_ends_at_once(serve, app, data):
    server = serve(app, timeout_graceful=LONG, response_buffer=65536)
    with ask_and_read_nothing(server, data):
        for _ in range(3):
            server.request_stop()
            assert not server.join(0.1), "expected the server to drain"
        server.request_stop(now=True)
        assert_ended(server)


def test_without_graceful_time_the_server_ends_at_once(serve):
    server = serve(hello, timeout_graceful=0)
    with connect(server) as client, connect(server) as other:
        client.send(GET[:-2])
        other.send(GET)
        assert other.read_response().status == 200
        server.request_stop()
        assert_ended(server)
