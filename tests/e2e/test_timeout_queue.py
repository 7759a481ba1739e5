"""--timeout-queue: a request that gets no free thread is refused."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from support import connect, exchange, ping, site, wait_until
from support.held import HOLDING_APP, Held
from support.processes import ask, write_app

GET = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
SHORT = 0.2


class Holding:
    """An application that holds its requests until the test releases them."""

    def __init__(self):
        self.inside = threading.Semaphore(0)
        self.released = threading.Event()

    def __call__(self, environ, start_response):
        self.inside.release()
        assert self.released.wait(30)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]


@pytest.fixture
def holding():
    application = Holding()
    yield application
    application.released.set()


@pytest.fixture
def hold(serve, holding):
    """A server whose threads all have a request, and the clients of these requests."""
    with ExitStack() as stack:

        def start(threads=2, **options):
            server = serve(site(holding), threads=threads, timeout_queue=SHORT, loops=1, **options)
            clients = [stack.enter_context(connect(server)) for _ in range(threads)]
            for client in clients:
                client.send(GET)
                assert holding.inside.acquire(timeout=10)
            return server, clients

        yield start


POST = b"POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(100000)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (OTHER, b"no thread is free for the request\n"),
        (OTHER.replace(b"GET", b"HEAD"), b""),
        (POST, b"no thread is free for the request\n"),
    ],
    ids=["GET", "HEAD", "POST"],
)
def test_a_request_that_finds_no_free_thread_in_time_is_refused(
    hold, holding, threads, request_, content
):
    server, clients = hold(threads, body_memory=1024)
    with connect(server) as other:
        other.send(request_)
        response = other.read_response(method=request_.split()[0].decode())
        assert response.status == 503
        assert response.value("retry-after") == "1"
        assert response.content == content
        other.read_nothing_more()
    holding.released.set()
    for client in clients:
        assert client.read_response().content == b"/hold"
        client.send(OTHER)  # they stay open
        assert client.read_response().content == b"pong"


def test_a_request_that_waits_a_shorter_time_is_served(serve, holding):
    server = serve(site(holding), threads=1, timeout_queue=30)
    with connect(server) as client, connect(server) as other:
        client.send(GET)
        assert holding.inside.acquire(timeout=10)
        other.send(OTHER)
        holding.released.set()
        assert other.read_response().content == b"pong"
        assert client.read_response().content == b"/hold"


def test_the_line_about_a_refused_request_names_the_client_of_a_trusted_proxy(hold, caplog):
    server, _ = hold(1)
    with connect(server) as other:
        other.send(OTHER.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 192.0.2.9"))
        assert other.read_response().status == 503
        client = f": GET /ping, from 192.0.2.9 through 127.0.0.1 port {other.local_port}"
        wait_until(lambda: client in caplog.text, f"a line with {client!r}")


def test_many_waiting_requests_are_refused_in_their_order_and_logged_once(hold, holding, caplog):
    server, clients = hold()
    with ExitStack() as stack:
        others = [stack.enter_context(connect(server)) for _ in range(20)]
        for other in others:
            other.send(OTHER + OTHER)
        for other in others:
            assert other.read_response().status == 503
            other.read_nothing_more()
    holding.released.set()
    for client in clients:
        assert client.read_response().content == b"/hold"
    ping(server)

    def lines():
        return [line for line in caplog.messages if "--timeout-queue" in line]

    wait_until(lines, "a line in the log")
    assert len(lines()) == 1
    assert (
        "no thread was free for 0.2 s (--timeout-queue), so some requests get a 503" in lines()[0]
    )
    assert "GET /ping" in lines()[0]


def test_the_response_to_an_earlier_request_comes_first(hold, holding):
    server, clients = hold(threads=2)
    clients[0].send(OTHER)  # while its first request is in the application
    with connect(server) as other:
        other.send(OTHER)
        assert other.read_response().status == 503
    holding.released.set()
    assert clients[0].read_response().content == b"/hold"
    assert clients[0].read_response().content == b"pong"


def test_without_the_option_a_request_waits(serve, holding):
    server = serve(site(holding), threads=1)
    with connect(server) as client:
        client.send(GET)
        assert holding.inside.acquire(timeout=10)
        with connect(server) as other:
            other.send(OTHER)
            holding.released.wait(2 * SHORT)
            holding.released.set()
            assert other.read_response().content == b"pong"
    assert exchange(server, OTHER)[0].content == b"pong"


def test_the_access_log_has_the_refused_request(picowsgi, tmp_path):
    write_app(tmp_path, HOLDING_APP)
    options = (
        "--threads",
        "1",
        "--timeout-queue",
        "0.2",
        "--access-log",
        "--access-log-file",
        "log",
    )
    command = picowsgi("app:app", *options, directory=tmp_path)
    with Held(tmp_path, command.port, 1) as held:
        with connect(command) as other:
            other.send(b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n")
            assert other.read_response().status == 503
        held.check_that_all_are_answered()
    assert ask(command.port)
    assert command.stop() == 0
    log = (tmp_path / "log").read_text()
    assert '"GET /x?y=1 HTTP/1.1" 503' in log, log
