"""Slow clients hold no thread and little memory: one serving thread, 1,500 of them at once.

The server is a process of its own, so that work of the test does not count as the server's.
"""

from __future__ import annotations

import resource
import selectors
import socket
import statistics
import textwrap
import time
from contextlib import ExitStack, suppress

import pytest

from support import RawClient, resident_bytes

# One thread drives 1,500 clients and measures another: a sanitized core would be measured instead.
pytestmark = [pytest.mark.measured, pytest.mark.unsanitized]

EACH_KIND = 500
IDLE = 2000
SECONDS = 3.0
REQUESTS = 100
MEDIAN_MOST = 0.010
SLOWEST_MOST = 0.050
# Other programs run on the machine, such as other tests. So many requests may be slower than that,
# but none may be as slow as after a tick of a slow client.
NOISE_MOST = 2
NOISE_SECONDS = 1.0  # a machine that runs other programs too

MEBIBYTE = 1 << 20
LARGE_SIZE = 5_000_000
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DRIP_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200
DRIP_CONTENT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
READ_SLOWLY = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"

APPLICATION = f"""
    LARGE = b"x" * {LARGE_SIZE}

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/large":
            return [LARGE]
        return [b"%d" % len(environ["wsgi.input"].read())]
"""


@pytest.fixture
def server(picowsgi, tmp_path):
    """A process that serves with one thread and long timeouts; returns it and its port."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APPLICATION))
    timeouts = [f"--timeout-{kind}=60" for kind in ("head", "body", "write", "keep-alive")]
    command = picowsgi("--threads=1", *timeouts, "app:app", directory=tmp_path)
    return command.process.pid, int(command.url.rpartition(":")[2])


@pytest.fixture(autouse=True)
def _enough_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(IDLE, 3 * EACH_KIND) + 200
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"needs {wanted} descriptors, and {hard} is the hard limit")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class SlowClient:
    """Sends or reads one byte a second. It sends `start` at once."""

    def __init__(self, port, start, drip=None):
        self.start = start
        self.drip = drip
        self.due = 0.0
        self.reads = 0
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(start)
        self.socket.setblocking(False)

    def take_turn(self):
        if self.drip is not None:
            self.socket.send(self.drip)
            return
        with suppress(BlockingIOError):
            self.reads += len(self.socket.recv(1))

    def receive(self):
        """Some of the bytes that have arrived; empty when the connection is over."""
        try:
            return self.socket.recv(4096)
        except BlockingIOError:
            return b"nothing"
        except ConnectionError:
            return b""


class Crowd:
    """Slow clients, driven in small steps."""

    def __init__(self, stack):
        self.stack = stack
        self.clients = []
        self.next = 0
        self.selector = stack.enter_context(selectors.DefaultSelector())

    def add(self, client):
        self.stack.callback(client.socket.close)
        self.clients.append(client)
        # A byte for a client that only sends would belong to a response that is not due yet.
        if client.drip is not None:
            self.selector.register(client.socket, selectors.EVENT_READ, client)

    def take_turn(self, count):
        """Let the next `count` clients send or read their byte."""
        for _ in range(count):
            self.clients[self.next].take_turn()
            self.next = (self.next + 1) % len(self.clients)

    def answered(self):
        return [key.data for key, _ in self.selector.select(0)]


def seconds_of_a_request(client):
    begin = time.perf_counter()
    client.send(GET)
    response = client.read_response()
    seconds = time.perf_counter() - begin
    assert (response.status, response.content) == (200, b"0")
    return seconds


def assert_quick(times, when):
    median, slowest = statistics.median(times), max(times)
    late = sum(1 for one in times if one > SLOWEST_MOST)
    said = (
        f"{when}: median {median * 1000:.1f} ms, slowest {slowest * 1000:.1f} ms, "
        f"{late} of {len(times)} above {SLOWEST_MOST * 1000:g} ms"
    )
    assert median < MEDIAN_MOST, f"expected less than {MEDIAN_MOST * 1000:g} ms, {said}"
    assert late <= NOISE_MOST, f"expected at most {NOISE_MOST} that slow, {said}"
    assert slowest < NOISE_SECONDS, f"expected none above {NOISE_SECONDS * 1000:g} ms, {said}"


def test_a_normal_client_is_answered_within_50_ms_beside_1500_slow_ones(server):
    _, port = server
    with ExitStack() as stack:
        normal = stack.enter_context(RawClient(port))
        crowd = Crowd(stack)
        times = []
        kinds = [(DRIP_HEAD, b"x"), (DRIP_CONTENT, b"x"), (READ_SLOWLY, None)]
        for number in range(3 * EACH_KIND):
            crowd.add(SlowClient(port, *kinds[number % 3]))
            if number % 30 == 29:
                times.append(seconds_of_a_request(normal))
        assert_quick(times, "while they come")

        times = []
        begin = time.perf_counter()
        for number in range(REQUESTS):
            crowd.take_turn(len(crowd.clients) // int(REQUESTS / SECONDS))
            times.append(seconds_of_a_request(normal))
            time.sleep(max(0.0, begin + (number + 1) * SECONDS / REQUESTS - time.perf_counter()))
        assert_quick(times, "while they are there")
        with RawClient(port) as new:
            assert_quick([seconds_of_a_request(new)], "on a new connection")

        answered = crowd.answered()
        assert not answered, f"expected no response yet, got {answered[0].receive()!r}"
        assert_all_can_be_finished(crowd, port)


def assert_all_can_be_finished(crowd, port):
    """The server has closed none of them: each gets its response once it has sent all bytes."""
    heads, contents, readers = (crowd.clients[kind::3] for kind in range(3))
    for client in heads:
        client.socket.setblocking(True)
        client.socket.sendall(b"\r\n\r\n")
        assert client.socket.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    for client in contents:
        client.socket.setblocking(True)
        client.socket.sendall(b"x" * 1000)
        answer = client.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n1000"), answer
    for client in readers:
        assert client.reads >= SECONDS - 1, "expected the slow reader to have read a byte a second"
        assert client.receive(), "expected the server to still send to the slow reader"
    with RawClient(port) as quick:
        quick.send(READ_SLOWLY)
        assert len(quick.read_response().content) == LARGE_SIZE


def test_an_idle_connection_costs_less_than_1_kib(server):
    process, port = server
    with ExitStack() as stack:

        def connect_and_ask(count):
            for _ in range(count):
                client = stack.enter_context(RawClient(port))
                seconds_of_a_request(client)

        connect_and_ask(20)  # the memory of the first requests is not that of the connections
        before = resident_bytes(process)
        connect_and_ask(IDLE)
        grown = resident_bytes(process) - before
    assert grown < 2 * MEBIBYTE, (
        f"expected less than 2 MiB for {IDLE} idle connections, it was {grown / 1024:.0f} KiB"
    )
