"""A request does not end although --timeout-request is over: requests behind it get a response."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

import pytest

from support import connect
from support.processes import (
    PROCESS_TIMEOUT,
    ask,
    children,
    eventually,
    is_refused,
    lives,
    write_app,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
STUCK = b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n"
LIMIT = ("--timeout-request", "0.4")
MODES = pytest.mark.parametrize(
    "options",
    [(), ("--workers", "2"), ("--workers", "2", "--preload")],
    ids=["one process", "two workers", "preload"],
)
#: A path that is stuck in C, where no exception can reach it; each such request makes a file.
APP = """
import itertools, os, socket
from pathlib import Path

numbers = itertools.count()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stuck":
        first, second = socket.socketpair()
        Path(__file__).with_name(f"stuck-{os.getpid()}-{next(numbers)}").touch()
        first.recv(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    def start(*options):
        write_app(tmp_path, APP)
        return picowsgi("app:app", *LIMIT, *options, directory=tmp_path)

    return start


def stuck_in(directory):
    """Return the process of each stuck request."""
    return [int(file.name.split("-")[1]) for file in directory.glob("stuck-*")]


@pytest.mark.parametrize(
    "options",
    [(), ("--max-requests", "1000"), ("--preload",)],
    ids=["no supervisor", "supervisor", "preload"],
)
def test_requests_behind_stuck_threads_get_a_503_and_later_requests_are_served(
    serve_app, tmp_path, options
):
    command = serve_app("--threads", "2", *options)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(command)) for _ in range(8)]
        for client in clients[:2]:
            client.send(STUCK)
        eventually(lambda: len(stuck_in(tmp_path)) == 2, "the requests to run")
        (old,) = set(stuck_in(tmp_path))
        waiting = clients[2:]
        for client in waiting:
            client.send(GET)
        for client in waiting:
            response = client.read_response()
            assert (response.status, response.value("retry-after")) == (503, "1")
            client.read_nothing_more()
        assert int(ask(command.port)) != old
    if options:  # otherwise it continues as the supervisor
        eventually(lambda: not lives(old), "the stuck process to end")
    text = "every request in the application has run for twice the time of --timeout-request"
    eventually(lambda: text in command.log, "the line that gives the reason")
    assert "did not end in time" not in command.log
    assert command.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_with_stuck_requests_do_not_pile_up(serve_app, tmp_path, workers):
    command = serve_app("--workers", str(workers), "--max-requests", "1000")
    most = 0
    with ExitStack() as stack:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            stack.enter_context(connect(command)).send(STUCK)
            most = max(most, len(children(command.process.pid)))
            time.sleep(0.2)
    assert len(set(stuck_in(tmp_path))) > 3, "expected a replacement of processes"
    # Those that serve, those that start, and of each the one whose requests may still end.
    assert most <= 3 * workers, f"{most} processes for {workers} workers"
    assert command.stop() == 0


@MODES
def test_a_stop_does_not_wait_for_stuck_requests(serve_app, tmp_path, options):
    command = serve_app(*options)
    with connect(command) as client:
        client.send(STUCK)
        command.wait_for_log("has run for 0.4 s")
        began = time.monotonic()
        command.process.terminate()
        assert command.wait() == 0
        assert time.monotonic() - began < 5, "expected an end before the 30 s of --timeout-graceful"
        client.end()
        assert client.received == b""
    assert "is left behind at" in command.log


def test_a_process_with_stuck_requests_answers_a_request_that_may_still_end(serve, tmp_path):
    import threading

    entered, stuck, late = threading.Semaphore(0), threading.Event(), threading.Event()

    def application(environ, start_response):
        entered.release()
        (stuck if environ["PATH_INFO"] == "/stuck" else late).wait(PROCESS_TIMEOUT)
        start_response("200 OK", [])
        return [b"late"]

    server = serve(application, timeout_request=0.4, threads=4, loops=1)
    with connect(server) as one, connect(server) as other:
        one.send(STUCK)
        assert entered.acquire(timeout=PROCESS_TIMEOUT)
        time.sleep(1)  # its time is over twice
        other.send(GET)
        assert entered.acquire(timeout=PROCESS_TIMEOUT)
        server.request_stop()
        eventually(lambda: is_refused(server.port), "new connections to be refused")
        assert not server.join(0.1)
        late.set()
        response = other.read_response()
        assert (response.status, response.content) == (200, b"late")
        began = time.monotonic()
        assert server.join(PROCESS_TIMEOUT)
        assert time.monotonic() - began < 5
        stuck.set()
