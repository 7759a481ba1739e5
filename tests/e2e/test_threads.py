"""Serving threads: only an application that blocks needs several, and it delays no request."""

import logging
import threading
import time

import pytest

from support import PYPY, connect

PLAIN = [("Content-Type", "text/plain")]
# An application that sleeps and keeps the GIL, as a module in C may.
HOLDING = """
import ctypes

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        ctypes.PyDLL(None).usleep(500_000)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def serving_threads():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("picowsgi") and thread.name != "picowsgi-watch"
    ]


@pytest.fixture
def gate():
    """An application whose /wait does not return before the gate is opened."""

    class Gate:
        def __init__(self):
            self.opened = threading.Event()
            self.entered = threading.Semaphore(0)

        def __call__(self, environ, start_response):
            if environ["PATH_INFO"] == "/wait":
                self.entered.release()
                assert self.opened.wait(10), "expected the gate to be opened"
            start_response("200 OK", PLAIN)
            return [environ["PATH_INFO"].encode()]

    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_multithread_is_true_when_there_are_several_threads(serve, threads):
    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return [repr(environ["wsgi.multithread"]).encode()]

    with connect(serve(application, threads=threads)) as client:
        client.send(get("/"))
        assert client.read_response().content == repr(threads > 1).encode()


@pytest.mark.measured
@pytest.mark.unsanitized  # so slow that it looks as if it blocked
def test_an_application_that_does_not_block_stays_on_few_threads(serve, gate):
    before = len(serving_threads())
    server = serve(gate, threads=16)
    with connect(server) as client:
        for _ in range(500):
            client.send(get("/"))
            assert client.read_response().content == b"/"
    # One; but on a busy machine a thread that gets no processor looks like a blocked one.
    assert len(serving_threads()) <= before + 4, "expected no more than one of 16 threads"


def test_a_request_that_blocks_delays_no_other_request_while_a_thread_is_free(serve, gate):
    server = serve(gate, threads=4)
    with connect(server) as one, connect(server) as two, connect(server) as other:
        for blocked in (one, two):
            blocked.send(get("/wait"))
            assert gate.entered.acquire(timeout=5), "expected the request to reach the application"
        for _ in range(100):
            other.send(get("/quick"))
            assert other.read_response().content == b"/quick"
        gate.opened.set()
        assert one.read_response().content == b"/wait"
        assert two.read_response().content == b"/wait"


def test_there_are_never_more_threads_than_allowed_and_other_requests_wait_their_turn(serve, gate):
    before = len(serving_threads())
    server = serve(gate, threads=3)
    clients = [connect(server) for _ in range(8)]
    for client in clients:
        client.send(get("/wait"))
    for _ in range(3):
        assert gate.entered.acquire(timeout=5), "expected three requests to run"
    assert not gate.entered.acquire(timeout=0.1), "expected no fourth request in three threads"
    assert len(serving_threads()) == before + 3
    gate.opened.set()
    for client in clients:
        assert client.read_response().content == b"/wait"
        client.close()


def test_a_response_does_not_wait_for_a_slow_request_that_was_pipelined_behind_it(serve, gate):
    with connect(serve(gate, threads=2)) as client:
        client.send(get("/first") + get("/wait") + get("/last"))
        assert client.read_response().content == b"/first"
        assert not gate.opened.is_set()
        gate.opened.set()
        assert client.read_response().content == b"/wait"
        assert client.read_response().content == b"/last"


def test_a_thread_never_has_two_requests_at_a_time(serve):
    local = threading.local()
    interleaved = []

    def application(environ, start_response):
        if getattr(local, "busy", False):
            interleaved.append(environ["PATH_INFO"])
        local.busy = True
        start_response("200 OK", PLAIN)
        try:
            for _ in range(3):
                time.sleep(0.002)  # blocks, as an application does
                yield b"x"
        finally:
            local.busy = False

    server = serve(application, threads=4)
    clients = [connect(server) for _ in range(12)]
    for _ in range(5):
        for client in clients:
            client.send(get("/"))
        for client in clients:
            assert client.read_response().content == b"xxx"
    for client in clients:
        client.close()
    assert interleaved == []


@pytest.mark.measured
@pytest.mark.unsanitized
def test_a_blocking_application_runs_on_all_threads_at_once(serve):
    def application(environ, start_response):
        time.sleep(0.05)  # blocks, as an application does
        start_response("200 OK", PLAIN)
        return [b"slept"]

    server = serve(application, threads=8)
    clients = [connect(server) for _ in range(16)]
    begin = time.monotonic()
    for _ in range(5):
        for client in clients:
            client.send(get("/"))
        for client in clients:
            assert client.read_response().content == b"slept"
    took = time.monotonic() - begin
    for client in clients:
        client.close()
    ideal = 5 * 16 * 0.05 / 8
    assert took < 3 * ideal, (
        f"expected {ideal} s for 80 requests of 50 ms on 8 threads, it took {took:.2f} s"
    )


@pytest.mark.measured
def test_a_request_that_never_ends_is_named_and_left_behind_at_the_end_of_the_drain(
    serve, gate, caplog
):
    server = serve(gate, threads=2, timeout_graceful=0.3)
    with connect(server) as client:
        client.send(get("/wait"))
        assert gate.entered.acquire(timeout=5)
        with caplog.at_level(logging.ERROR, logger="picowsgi"):
            begin = time.monotonic()
            server.stop()
            took = time.monotonic() - begin
    assert took < 3, f"expected stop() to return after a drain of 0.3 s, it took {took:.1f} s"
    assert "is left behind" in caplog.text
    assert "opened.wait" in caplog.text, "expected the log to show where the thread is stuck"
    gate.opened.set()


def test_large_responses_of_many_threads_arrive_whole_and_their_memory_is_released(serve):
    size = 3_000_000
    alive = []

    def application(environ, start_response):
        time.sleep(0.001)  # so that the threads take turns
        start_response("200 OK", PLAIN)
        number = int(environ["PATH_INFO"][1:])
        alive.append(number)
        return [bytes([number]) * size]

    server = serve(application, threads=8)
    clients = [connect(server) for _ in range(10)]
    for round_ in range(3):
        for number, client in enumerate(clients):
            client.send(get(f"/{round_ * 10 + number}"))
        for number, client in enumerate(clients):
            content = client.read_response().content
            assert content == bytes([round_ * 10 + number]) * size
    for client in clients:
        client.close()
    assert len(alive) == 30


@pytest.mark.parametrize("threads", [1, 2])
def test_responses_are_sent_while_all_threads_are_in_the_application(serve, gate, threads):
    size = 20_000_000

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/large":
            return gate(environ, start_response)
        start_response("200 OK", PLAIN)
        return [b"x" * size]

    server = serve(application, threads=threads)
    waiting = [connect(server) for _ in range(threads)]
    with connect(server) as reader:
        reader.send(get("/large"))
        reader.wait_for_bytes()  # otherwise the others might come first
        for client in waiting:
            client.send(get("/wait"))
            assert gate.entered.acquire(timeout=5), "expected all threads to be busy"
        assert len(reader.read_response().content) == size
    gate.opened.set()
    for client in waiting:
        assert client.read_response().content == b"/wait"
        client.close()


def test_requests_that_became_complete_while_all_threads_were_busy_are_served_in_turn(serve, gate):
    server = serve(gate, threads=1)
    with connect(server) as busy:
        busy.send(get("/wait"))
        assert gate.entered.acquire(timeout=5)
        others = [connect(server) for _ in range(20)]
        for number, client in enumerate(others):
            client.send(get(f"/{number}"))
        gate.opened.set()
        for number, client in enumerate(others):
            assert client.read_response().content == f"/{number}".encode()
            client.close()
        assert busy.read_response().content == b"/wait"


def test_a_bad_request_is_refused_while_all_threads_are_busy(serve, gate):
    server = serve(gate, threads=1)
    with connect(server) as busy, connect(server) as bad:
        busy.send(get("/wait"))
        assert gate.entered.acquire(timeout=5)
        bad.send(b"nonsense\r\n\r\n")
        assert bad.read_response().status == 400
        gate.opened.set()
        assert busy.read_response().content == b"/wait"


@pytest.mark.skipif(PYPY, reason="ctypes releases the GIL of PyPy")
def test_a_pipelined_response_is_not_late_while_the_next_request_holds_the_gil(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(HOLDING)
    server = picowsgi("app:app", "--threads", "2", directory=tmp_path)
    with connect(server) as client:
        client.send(get("/") + get("/hold"))
        client.read_response()
        answered = time.monotonic()
        client.read_response()
        after = time.monotonic() - answered
    assert after > 0.3, f"expected the first response at once, it came {after:.3f} s before"
