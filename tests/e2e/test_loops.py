"""Several event loops in a process: each has threads and connections of its own."""

import gc
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from picowsgi import Server
from picowsgi.system.cpus import has_gil
from picowsgi.threads import loop
from support import INTERRUPTS, PYPY, connect, open_descriptors, wait_until
from support.processes import ask, eventually, write_app

PLAIN = [("Content-Type", "text/plain")]


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def loop_of(thread):
    """The loop of a serving thread, from its name: picowsgi-LOOP-NUMBER."""
    return thread.name.split("-")[1]


def tell_loop(environ, start_response):
    start_response("200 OK", PLAIN)
    return [loop_of(threading.current_thread()).encode()]


def ask_all(clients, path="/"):
    for client in clients:
        client.send(get(path))
    return [client.read_response().content.decode() for client in clients]


@pytest.fixture
def meeting():
    """An application in which so many requests have to meet, and the loops that they reached."""

    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(2)
            self.entered = threading.Semaphore(0)
            self.opened = threading.Event()
            self.loops = set()

        def __call__(self, environ, start_response):
            self.loops.add(loop_of(threading.current_thread()))
            self.entered.release()
            if environ["PATH_INFO"] == "/meet":
                self.barrier.wait(10)
            elif environ["PATH_INFO"] == "/wait":
                assert self.opened.wait(10), "expected the gate to be opened"
            return tell_loop(environ, start_response)

    meeting = Meeting()
    yield meeting
    meeting.opened.set()
    meeting.barrier.abort()


def test_two_loops_serve_at_the_same_time(serve, meeting):
    # Each has one thread, so the two requests can meet in two loops only.
    server = serve(meeting, loops=2, threads=2)
    with connect(server) as one, connect(server) as other:
        assert sorted(ask_all([one, other], "/meet")) == ["0", "1"]
    assert meeting.loops == {"0", "1"}


@pytest.mark.parametrize("loops", [2, 3])
def test_connections_are_shared_evenly_among_the_loops(serve, loops):
    server = serve(tell_loop, loops=loops)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(8 * loops)]
        places = ask_all(clients)
        counts = Counter(places)
        assert sorted(counts) == [str(number) for number in range(loops)]
        # Eight each; on a busy machine a loop that gets no CPU misses its turn.
        assert min(counts.values()) >= 3, f"expected about 8 connections for each: {counts}"
        assert ask_all(clients) == places, "expected a connection to stay in its loop"


def test_templates_of_one_loop_never_reach_another_loop(serve):
    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return [f"{environ['HTTP_X_NAME']} {environ['PATH_INFO']}".encode()]

    server = serve(application, loops=2)
    clients = [connect(server) for _ in range(12)]
    for number in range(6):
        for name, client in enumerate(clients):
            # The same head as before, or another request line, in turn.
            path = f"/{name if number % 2 else number}"
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Name: {name}\r\n\r\n".encode())
        for name, client in enumerate(clients):
            path = f"/{name if number % 2 else number}"
            assert client.read_response().content == f"{name} {path}".encode()
    for client in clients:
        client.close()


def test_all_loops_together_keep_to_the_maximum_of_connections(serve):
    server = serve(tell_loop, loops=2, max_connections=3)
    clients = [connect(server) for _ in range(3)]
    assert set(ask_all(clients)) == {"0", "1"}
    for client in clients:  # or an idle one would be closed for the fourth
        client.send(get("/")[:5])
    with connect(server) as fourth:
        fourth.send(get("/"))
        for client in clients:  # which takes a turn of both loops
            client.send(get("/")[5:] + get("/")[:5])
            assert client.read_response().status == 200
        assert fourth.read_some(1) == 0, "expected the connection to wait for a place"
        clients.pop().close()
        assert fourth.read_response().status == 200
    for client in clients:
        client.close()


def test_all_loops_drain_and_end(serve, meeting):
    server = serve(meeting, loops=2, threads=2, access_log="off")
    busy, idle = [], []
    while len(meeting.loops) < 2:
        busy.append(connect(server))
        busy[-1].send(get("/wait"))
        assert meeting.entered.acquire(timeout=5) or len(busy) < 8
    idle = [connect(server) for _ in range(4)]
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    for client in idle:
        assert client.read_to_end() == b"", "expected the drain to close the idle connection"
        client.close()
    assert stopping.is_alive(), "expected the drain to wait for the requests"
    meeting.opened.set()
    for client in busy:
        assert client.read_response().status == 200
        client.close()
    stopping.join(10)
    assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_request_that_never_ends_is_named_no_matter_which_loop_has_it(serve, meeting, caplog):
    server = serve(meeting, loops=2, threads=2, timeout_graceful=0.3)
    with connect(server) as one, connect(server) as other:
        for client in (one, other):
            client.send(get("/wait"))
        wait_until(lambda: len(meeting.loops) == 2, "both loops to have a request")
        server.stop()
    for number in range(2):
        assert f"picowsgi-{number}-0 has not ended and is left behind" in caplog.text


def test_the_access_log_has_the_requests_of_all_loops_and_continues_after_a_rotation(
    serve, tmp_path
):
    file, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    server = serve(
        tell_loop,
        loops=2,
        access_log="on",
        access_log_file=str(file),
        access_log_format="%(U)s %(s)s",
    )
    clients = [connect(server) for _ in range(8)]
    assert set(ask_all(clients, "/before")) == {"0", "1"}
    file.rename(rotated)
    server.reopen_logs()
    assert set(ask_all(clients, "/after")) == {"0", "1"}
    for client in clients:
        client.close()
    server.stop()
    assert rotated.read_text("ascii") == "/before 200\n" * 8
    assert file.read_text("ascii") == "/after 200\n" * 8


def test_the_requests_of_all_loops_count_towards_a_replacement_of_the_worker(picowsgi, tmp_path):
    write_app(tmp_path)
    command = picowsgi(
        *("--loops", "2", "--workers", "1", "--max-requests", "20", "app:app"), directory=tmp_path
    )
    first = ask(command.port, "/pid")
    for _ in range(20):
        ask(command.port)
    eventually(lambda: ask(command.port, "/pid") != first, "another worker")
    assert command.stop() == 0, command.log


def test_servers_that_were_never_started_leave_nothing_open():
    def open_one():
        server = Server(tell_loop, port=0, loops=2)
        port = server.port
        server.stop()
        return port

    open_one()
    gc.collect()
    before = open_descriptors()
    for _ in range(10):
        open_one()
    if PYPY:
        gc.collect()  # there unreachable objects still exist
    assert open_descriptors() == before, "expected the sockets to be closed at once"


# --- interrupts without the GIL ------------------------------------------------------------------


def spin():
    until = time.monotonic() + 10
    while time.monotonic() < until:
        pass


class Slow:
    """An application that takes too long at every possible point."""

    def __init__(self):
        self.closed = threading.Semaphore(0)

    def __call__(self, environ, start_response):
        self._path = environ["PATH_INFO"]
        if self._path == "/call":
            spin()
        write = start_response("200 OK", PLAIN)
        if self._path == "/write":
            write(b"first")
            spin()
        if self._path == "/list":
            return [b"quick"]
        return self

    def __iter__(self):
        if self._path == "/items":
            spin()
        yield b"quick"

    def close(self):
        self.closed.release()
        if self._path == "/close":
            spin()


@pytest.fixture
def without_gil(monkeypatch):
    """A server that acts as on a Python without the GIL, although there may be one."""
    monkeypatch.setattr(loop, "has_gil", lambda: False)


@pytest.mark.measured
@INTERRUPTS
@pytest.mark.parametrize("path", ["/call", "/write", "/items", "/close"])
def test_a_request_that_takes_too_long_is_interrupted_without_the_gil_too(
    serve, without_gil, caplog, path
):
    application = Slow()
    server = serve(application, timeout_request=0.3, loops=2)
    with connect(server) as client:
        client.send(get(path))
        begin = time.monotonic()
        if path in ("/call", "/items"):
            assert client.read_response().status == 500
        elif path == "/close":
            assert client.read_response().content == b"quick"
        else:
            assert b"first" in client.read_to_end()
        wait_until(lambda: "RequestTimeoutError" in caplog.text, "the request to be interrupted")
        assert time.monotonic() - begin < 5
    if path in ("/items", "/close"):
        assert application.closed.acquire(timeout=5), "expected close() to be called"
    with connect(server) as client:
        for _ in range(20):
            for quick in ("/list", "/other"):
                client.send(get(quick))
                assert client.read_response().content == b"quick"


def test_an_interruption_never_reaches_the_server_itself(serve, without_gil, caplog):
    """Requests end just when their time is over: each gets its response, or a 500."""

    def application(environ, start_response):
        time.sleep(0.0095)  # the limit is 10 ms
        start_response("200 OK", PLAIN)
        return iter([b"in ", b"time"])

    server = serve(application, timeout_request=0.01, loops=2, threads=4)
    clients = [connect(server) for _ in range(4)]
    statuses = Counter()
    for _ in range(50):
        for client in clients:
            client.send(get("/"))
        for client in clients:
            response = client.read_response()
            statuses[response.status] += 1
            if response.status == 200:
                assert response.content == b"in time"
    for client in clients:
        client.close()
    assert sum(statuses.values()) == 200
    assert set(statuses) <= {200, 500}
    assert "a thread of the server has failed" not in caplog.text


# --- Python without the GIL ----------------------------------------------------------------------


@pytest.mark.skipif(has_gil(), reason="needs a Python without the GIL: make test-freethreaded")
def test_the_gil_stays_off_while_the_server_serves():
    program = Path(__file__).parent / "apps" / "gil.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False", "False"]
