"""An application takes the client's connection for another protocol; raw clients check it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
import threading
import time

import pytest

from picowsgi import cgi
from picowsgi.errors import ClientGoneError, DetachError
from support import (
    INTERRUPTS,
    PING,
    connect,
    descriptors_at_rest,
    exchange,
    ping,
    site,
    wait_until,
)

TIMEOUT = 10.0
PLAIN = [("Content-Type", "text/plain")]
KEYS = ["werkzeug.socket", "gunicorn.socket", "picowsgi.detach"]
KEY = pytest.mark.parametrize("key", KEYS[:2])
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


def request(fields="Connection: Upgrade\r\nUpgrade: echo\r\n", path="/", version="1.1", more=b""):
    return f"GET {path} HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode() + more


UPGRADE = request()


class Echo:
    """Takes the connection, sends back what it receives, and then does `at_end`."""

    def __init__(self, key="werkzeug.socket", at_end=lambda start_response: []):
        self._key = key
        self._at_end = at_end
        self.received = b""
        self.ended = threading.Event()

    def __call__(self, environ, start_response):
        sock = environ[self._key]
        sock.sendall(SWITCH)
        try:
            while data := sock.recv(1000):
                self.received += data
                sock.sendall(data)
            return self._at_end(start_response)
        finally:
            self.ended.set()


def switch(server, data=UPGRADE):
    """Return a client whose connection the application has taken."""
    client = connect(server)
    client.send(data)
    assert client.read_response().status == 101, "expected the response of the application"
    return client


def read(client, count):
    """Return the next bytes that the client receives."""
    wait_until(lambda: client.read_some(1000) or len(client._unread) >= count, f"{count} bytes")
    wait_until(lambda: client.read_some(1000) >= 0 and len(client._unread) >= count, "the bytes")
    return client._take(count)


def say(client, data):
    """Check that the application sends these bytes back."""
    client.send(data)
    assert read(client, len(data)) == data


# --- which requests have the keys ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (UPGRADE, True),
        (request("connection: keep-alive, UPGRADE\r\nupgrade: websocket\r\n"), True),
        (request("Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n"), True),
        (request("Connection: upgrade\r\nUpgrade: a\r\nX-Other-Name: 1\r\n"), True),
        (request(""), False),
        (request("Connection: upgrade\r\n"), False),
        (request("Upgrade: websocket\r\n"), False),
        (request("Connection: keep-alive\r\nUpgrade: websocket\r\n"), False),
        (request(version="1.0"), False),
        (request("Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 2\r\n", more=b"hi"), False),
        (
            request(
                "Connection: upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\n",
                more=b"0\r\n\r\n",
            ),
            False,
        ),
    ],
)
def test_only_a_request_for_another_protocol_offers_the_connection(serve, data, expected):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        names = ("HTTP_CONNECTION", "HTTP_UPGRADE", *KEYS)
        return ["\n".join(name for name in names if name in environ).encode()]

    server = serve(app)
    with connect(server) as client:
        for _ in range(3):  # the core recognises a repeated head
            client.send(request("", path="/first"))
            assert not set(client.read_response().content.decode().split()) & set(KEYS)
            client.send(data)
            found = client.read_response().content.decode().split()
            assert set(KEYS) <= set(found) if expected else not set(found) & set(KEYS)
            assert not expected or {"HTTP_CONNECTION", "HTTP_UPGRADE"} <= set(found)
            if b"/1.0" in data:
                break


def test_an_application_that_does_not_take_the_connection_responds_as_usual(serve):
    kept = []

    def app(environ, start_response):
        kept.append(environ)
        assert "not used" in repr(environ.get("werkzeug.socket", "not used"))
        assert not hasattr(environ.get("werkzeug.socket"), "unknown")
        start_response("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode()]

    server = serve(app)
    with connect(server) as client:
        client.send(UPGRADE + request(path="/two") + request("", path="/three"))
        responses = [client.read_response() for _ in range(3)]
        assert [each.content for each in responses] == [b"/", b"/two", b"/three"]
        assert all(not each.values("connection") for each in responses)
        for environ in kept[:2]:
            with pytest.raises(DetachError, match="the request is over"):
                environ["werkzeug.socket"].recv(1)
            with pytest.raises(DetachError, match="the request is over"):
                environ["picowsgi.detach"]()
        ping_again = request("", path="/four")
        client.send(ping_again)
        assert client.read_response().content == b"/four"


# --- the bytes -----------------------------------------------------------------------------------


@KEY
def test_the_application_and_its_client_exchange_bytes(serve, caplog, key):
    app = Echo(key)
    server = serve(site(app))
    with switch(server) as client:
        for data in (b"hello", b"\0\r\n" * 1000, b"x" * 300_000):
            say(client, data)
        ping(server)
        client.half_close()
        assert client.end() == "closed"
    assert caplog.messages == []


def test_the_socket_is_a_blocking_socket_with_the_addresses_of_the_connection(serve):
    seen = {}

    def app(environ, _start_response):
        sock = environ["werkzeug.socket"]
        assert sock is environ["gunicorn.socket"]
        seen.update(
            type=isinstance(sock, socket.socket),
            timeout=sock.gettimeout(),
            blocks=os.get_blocking(sock.fileno()),
            inherits=os.get_inheritable(sock.fileno()),
            kind=(sock.family, sock.type),
            peer=sock.getpeername(),
            text="not used" in repr(sock),
        )
        sock.sendall(SWITCH)
        return []

    before, default = socket.getdefaulttimeout(), 7.0
    server = serve(app)
    with connect(server) as client:
        socket.setdefaulttimeout(default)
        try:
            client.send(UPGRADE)
            assert client.read_response().status == 101
        finally:
            socket.setdefaulttimeout(before)
        assert seen == {
            "type": True,
            "timeout": None,
            "blocks": True,
            "inherits": False,
            "kind": (socket.AF_INET, socket.SOCK_STREAM),
            "peer": ("127.0.0.1", client.local_port),
            "text": False,
        }
        client.read_nothing_more()


def receive_all(sock, receive):
    data = b""
    while len(data) < 11:
        data += receive(sock)
    return data


def receive_into(sock, receive="recv_into"):
    buffer = bytearray(4)
    count = getattr(sock, receive)(buffer)
    return bytes(buffer[: count if isinstance(count, int) else count[0]])


def receive_messages(sock):
    buffer = bytearray(3)
    count = sock.recvmsg_into([buffer])[0]
    return bytes(buffer[:count])


@pytest.mark.parametrize(
    "receive",
    [
        lambda sock: sock.recv(4),
        lambda sock: sock.recvfrom(4)[0],
        lambda sock: sock.recvmsg(4)[0],
        receive_into,
        lambda sock: receive_into(sock, "recvfrom_into"),
        receive_messages,
        lambda sock: sock.makefile("rb").read(11),
    ],
)
def test_bytes_after_the_request_come_first(serve, receive):
    found = []

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        assert sock.recv(5, socket.MSG_PEEK) == b"early"
        sock.sendall(SWITCH)
        found.append(receive_all(sock, receive))
        return []

    with switch(serve(app), UPGRADE + b"early") as client:
        client.send(b" later")
        client.read_nothing_more()
    assert found == [b"early later"]


def test_earlier_responses_of_the_connection_come_first(serve):
    def answer(environ, start_response):
        if environ["PATH_INFO"] == "/":
            return Echo()(environ, start_response)
        start_response("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode() * 50_000]

    server = serve(answer)
    paths = ["/a", "/b", "/c"]
    with connect(server) as client:
        client.send(b"".join(request("", path=path) for path in paths) + UPGRADE + b"more")
        for path in paths:
            assert client.read_response().content == path.encode() * 50_000
        assert client.read_response().status == 101
        assert read(client, 4) == b"more"


# --- the response, and errors --------------------------------------------------------------------


def respond(start_response):
    start_response("200 OK", [*PLAIN, ("Content-Length", "7")])
    return [b"ignored"]


def write(start_response):
    start_response("200 OK", PLAIN)(b"ignored")
    return [b"ignored"] * 2


def generate(start_response):
    start_response("200 OK", PLAIN)
    yield from [b"", b"ignored" * 10_000]


def large(start_response):
    start_response("200 OK", PLAIN)
    return [b"ignored" * 10_000]


def large_items(start_response):
    start_response("200 OK", PLAIN)
    return [b"ignored" * 10_000] * 2


def without_head(_start_response):
    return [b"ignored"]


def stop(_start_response):
    raise StopIteration


def lose(_start_response):
    raise ConnectionError


@pytest.mark.parametrize(
    "at_end",
    [respond, write, generate, large, large_items, without_head, lambda _: (), stop, lose],
)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_response_after_the_connection_was_taken_is_ignored(serve, caplog, at_end, threads):
    server = serve(site(Echo(at_end=at_end)), threads=threads)
    with switch(server) as client:
        say(client, b"hello")
        client.half_close()
        client.read_nothing_more()
    ping(server)
    assert caplog.messages == []
    wait_until(
        lambda: not any(one._shared.loans for one in server._pool._loops), "no bytes to be kept"
    )


def test_a_generator_takes_the_connection(serve, caplog):
    def app(environ, start_response):
        yield from Echo(at_end=generate)(environ, start_response)

    server = serve(site(app))
    with switch(server) as client:
        say(client, b"hello")
        client.half_close()
        client.read_nothing_more()
    ping(server)
    assert caplog.messages == []


def test_an_error_before_the_connection_is_taken_is_a_500(serve, caplog):
    def app(environ, _start_response):
        raise RuntimeError("before")

    server = serve(site(app))
    before = descriptors_at_rest()
    with connect(server) as client:
        client.send(UPGRADE)
        assert client.read_response().status == 500
        client.send(PING)
        assert client.read_response().content == b"pong"
    assert "RuntimeError: before" in caplog.text
    wait_until(lambda: descriptors_at_rest() <= before, "no more descriptors")


def test_an_error_after_the_connection_was_taken_is_logged_and_ends_it(serve, caplog):
    def fail(_start_response):
        raise RuntimeError("after")

    server = serve(site(Echo(at_end=fail)))
    before = descriptors_at_rest()
    for _ in range(10):
        with switch(server) as client:
            say(client, b"hello")
            client.half_close()
            client.read_nothing_more()
    assert caplog.text.count("RuntimeError: after") == 10
    ping(server)
    wait_until(lambda: descriptors_at_rest() <= before, "no more descriptors")


def test_the_connection_cannot_be_taken_when_the_response_has_begun(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)(b"begun")
        with pytest.raises(DetachError, match="before the response begins"):
            environ["werkzeug.socket"].send(b"x")
        with pytest.raises(DetachError, match="before the response begins"):
            environ["picowsgi.detach"]()
        return [b" and complete"]

    server = serve(site(app))
    assert exchange(server, UPGRADE)[0].content == b"begun and complete"
    assert caplog.messages == []


def test_the_connection_can_be_taken_once(serve):
    def app(environ, start_response):
        environ["werkzeug.socket"].sendall(SWITCH)
        with pytest.raises(DetachError, match="took it before"):
            environ["picowsgi.detach"]()
        environ["werkzeug.socket"].sendall(b"done")
        return []

    with switch(serve(app)) as client:
        assert client.read_to_end() == b"done"


def test_a_client_that_has_gone_before_is_no_error(serve, caplog):
    may_take, outcomes = threading.Event(), []

    def app(environ, start_response):
        assert may_take.wait(TIMEOUT)
        try:
            environ["werkzeug.socket"].send(b"x")
        except ClientGoneError:
            outcomes.append("gone")
            raise
        return []

    server = serve(site(app))
    client = connect(server)
    client.send(UPGRADE)
    wait_until(lambda: server._pool.requests, "the request")
    client.reset()
    time.sleep(0)
    may_take.set()
    wait_until(lambda: outcomes, "the error")
    ping(server)
    assert caplog.messages == []


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_that_disappears_ends_the_application_and_leaks_nothing(serve, caplog, ending):
    app = Echo()
    server = serve(site(app))
    before = descriptors_at_rest()
    for _ in range(10):
        app.ended.clear()
        client = switch(server)
        say(client, b"hello")
        getattr(client, ending)()
        assert app.ended.wait(TIMEOUT), "expected the application to read the end"
    ping(server)
    assert caplog.messages == []
    wait_until(lambda: descriptors_at_rest() <= before, "no more descriptors")


def test_the_client_gets_all_bytes_although_the_application_has_not_read_its(serve):
    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(SWITCH)
        assert started.wait(TIMEOUT)
        sock.sendall(b"x" * 100_000)
        return []

    started = threading.Event()
    with switch(serve(app)) as client:
        client.send(b"never read" * 1000)
        started.set()
        assert client.read_to_end() == b"x" * 100_000


def test_a_close_by_the_application_ends_the_connection_at_once(serve):
    may_return = threading.Event()

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        file = sock.makefile("rwb")
        sock.close()
        file.write(SWITCH)
        file.flush()
        file.close()
        assert may_return.wait(TIMEOUT)
        return []

    with switch(serve(app)) as client:
        client.read_nothing_more()
        may_return.set()


# --- taken for good ------------------------------------------------------------------------------


def test_a_connection_that_is_taken_for_good_outlives_its_request(serve, caplog):
    taken = []

    def app(environ, start_response):
        sock, rest = environ["picowsgi.detach"]()
        assert sock.gettimeout() is None
        taken.append((sock, rest))
        with pytest.raises(DetachError):
            environ["werkzeug.socket"].recv(1)
        return []

    server = serve(site(app), threads=1)
    clients = []
    for number in range(5):
        client = connect(server)
        client.send(UPGRADE + b"early")
        wait_until(lambda: len(taken) == number + 1, "the connection")  # noqa: B023
        ping(server)  # the only thread is free
        clients.append(client)
    server.stop()
    for client, (sock, rest) in zip(clients, taken, strict=True):
        with sock, client:
            assert type(sock) is socket.socket
            sock.sendall(SWITCH + rest)
            assert client.read_response().status == 101
            sock.close()
            assert client.read_to_end() == b"early"
    assert caplog.messages == []


# --- threads, limits, the log --------------------------------------------------------------------


def test_each_connection_counts_as_a_thread(serve):
    server = serve(site(Echo()), threads=2, timeout_queue=60)
    with switch(server) as one, switch(server) as two, connect(server) as waiting:
        waiting.send(PING)
        say(one, b"1")
        say(two, b"2")
        assert waiting.read_some(1) == 0, "expected no free thread"
        one.half_close()
        assert waiting.read_response().content == b"pong"


def test_taken_connections_do_not_count_as_connections(serve):
    server = serve(site(Echo()), threads=8, max_connections=2, loops=1)
    clients = [switch(server) for _ in range(5)]
    ping(server)
    for client in clients:
        say(client, b"still here")
        client.close()


def test_the_access_log_has_a_line_with_the_status_101(serve, tmp_path):
    file = tmp_path / "access.log"
    line = '%({x-none}o)s "%(r)s" %(s)s %(b)s'
    server = serve(site(Echo()), access_log="on", access_log_file=str(file), access_log_format=line)
    with switch(server) as client:
        ping(server)
        client.half_close()
        client.read_nothing_more()
    server.stop()
    lines = file.read_text().splitlines()
    assert lines == ['- "GET /ping HTTP/1.1" 200 4', '- "GET / HTTP/1.1" 101 -']


@INTERRUPTS
def test_the_limit_of_a_request_does_not_end_a_connection(serve, caplog):
    server = serve(site(Echo()), timeout_request=0.3, threads=2)
    with switch(server) as client:
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            say(client, b"hello")
            time.sleep(0.05)
        assert not server._pool.is_stuck
    assert caplog.messages == []


def test_the_application_learns_that_its_client_has_left(serve):
    found = []

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        found.append(environ["picowsgi.client_disconnected"]())
        sock.sendall(SWITCH)
        assert sock.recv(1) == b""
        found.append(environ["picowsgi.client_disconnected"]())
        return []

    with switch(serve(app)) as client:
        client.half_close()
        client.read_nothing_more()
    assert found == [False, True]


# --- the end of the server -----------------------------------------------------------------------


def test_a_server_that_stops_ends_the_connections_and_they_can_still_send(serve, caplog):
    def say_goodbye(_start_response):
        sock.sendall(b"goodbye")
        return []

    sock = None

    def app(environ, start_response):
        nonlocal sock
        sock = environ["werkzeug.socket"]
        return Echo(at_end=say_goodbye)(environ, start_response)

    server = serve(app, threads=1, timeout_graceful=20)
    with switch(server) as client:
        say(client, b"hello")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < TIMEOUT
        assert client.read_to_end() == b"goodbye"
    assert caplog.messages == []


def test_waiting_requests_are_served_when_a_server_with_connections_stops(serve):
    server = serve(site(Echo()), threads=1)
    with switch(server), connect(server) as waiting:
        waiting.send(PING)
        server.stop()
        assert waiting.read_response().content == b"pong"


def test_a_connection_that_is_taken_while_the_server_stops_reads_the_end(serve):
    may_take = threading.Event()

    def app(environ, start_response):
        assert may_take.wait(TIMEOUT)
        return Echo()(environ, start_response)

    server = serve(app, timeout_graceful=20)
    with connect(server) as client:
        client.send(UPGRADE)
        wait_until(lambda: server._pool.requests, "the request")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_until(lambda: not listens(server.port), "the server to drain")
        may_take.set()
        assert client.read_response().status == 101
        client.read_nothing_more()
        stopping.join(TIMEOUT)
        assert not stopping.is_alive()


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_after_the_time_to_stop_the_connections_are_cut(serve, caplog):
    caplog.set_level(logging.ERROR, logger="picowsgi")

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(SWITCH)
        while True:  # it never reads, so it does not notice the end
            sock.sendall(b"tick")
            time.sleep(0.01)

    server = serve(app, timeout_graceful=0.5)
    with switch(server) as client:
        began = time.monotonic()
        server.stop()
        assert 0.4 < time.monotonic() - began < TIMEOUT
        assert set(client.read_to_end()) <= set(b"tick")


# --- processes that the application forks --------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_does_not_keep_the_connections_of_others(serve):
    fork = multiprocessing.get_context("fork")
    may_end = fork.Event()
    server = serve(site(Echo()), threads=4)
    with switch(server) as client:
        say(client, b"hello")
        child = fork.Process(target=may_end.wait, args=(TIMEOUT,))
        child.start()
        try:
            say(client, b"and again")
            client.half_close()
            client.read_nothing_more()
            assert child.is_alive()
        finally:
            may_end.set()
            child.join(TIMEOUT)
    ping(server)


# --- where there is no connection ----------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_script_refuses_with_one_line(tmp_path, caplog, key):
    def app(environ, start_response):
        value = environ[key]
        (value if callable(value) and key == KEYS[2] else value.recv)(1)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/ws", "HTTP_UPGRADE": "websocket"}
    output = tmp_path / "output"
    with output.open("wb") as stdout:
        cgi.run(app, environ=environ, stdout=stdout)
    assert output.read_bytes().startswith(b"Status: 500 ")
    (record,) = caplog.records
    assert record.exc_info is None
    assert "a CGI script has no connection to the client" in record.message
    assert record.message.endswith(": GET /ws")
