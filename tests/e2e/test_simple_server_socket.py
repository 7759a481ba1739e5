"""picowsgi.simple_server: its name, its socket, a restart on the same port, and what it leaves."""

from __future__ import annotations

import errno
import gc
import os
import selectors
import signal
import socket
import socketserver
import struct
import sys
import threading
import warnings
from contextlib import contextmanager

import pytest

from picowsgi.simple_server import WSGIServer, demo_app, make_server
from support import TIMEOUT, RawClient, descriptors_at_rest, open_descriptors
from support.stand_in import Quiet, Threaded, asked, get, hello, running, server_for

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def again(server, **options):
    """A second server on the port of a server that has been closed."""
    return make_server(
        "127.0.0.1", server.server_port, hello, **{"handler_class": Quiet, **options}
    )


@contextmanager
def interrupted_after(act):
    """Run `act` in a thread, and send SIGINT to this thread after it."""
    main = threading.main_thread().ident

    def run():
        act()
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1", "localhost"), ("", socket.gethostname()), ("0.0.0.0", socket.gethostname())],
)
def test_a_server_starts_without_a_name_lookup(host, name, monkeypatch):
    def look_up(*arguments):
        pytest.fail(f"expected no name lookup, got one for {arguments}")

    for function in ("getfqdn", "gethostbyaddr", "gethostbyname", "getnameinfo", "getaddrinfo"):
        monkeypatch.setattr(socket, function, look_up)
    with make_server(host, 0, demo_app) as server:
        assert server.server_name == server.base_environ["SERVER_NAME"] == name
        assert server.base_environ["SERVER_PORT"] == str(server.server_port)


def test_a_server_class_can_bind_in_its_own_way_and_extend_the_environ():
    class Server(WSGIServer):
        request_queue_size = 7

        def server_bind(self):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "a.example", self.server_address[1]
            self.setup_environ()

        def setup_environ(self):
            super().setup_environ()
            self.base_environ["site.name"] = "here"

    with running(demo_app, server_class=Server) as server:
        content = get(server)[1]
        if sys.platform == "linux":
            state = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("I", state, 28) == (7,), "expected this backlog"
    assert b"SERVER_NAME = 'a.example'" in content
    assert b"site.name = 'here'" in content


def test_a_server_can_listen_on_a_unix_socket(tmp_path, monkeypatch):
    class Server(WSGIServer):
        address_family = socket.AF_UNIX

    monkeypatch.chdir(tmp_path)
    with Server("socket", Quiet) as server:
        server.set_app(demo_app)
        assert server.server_name == "localhost"
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect("socket")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                assert b"SERVER_NAME = 'localhost'" in answer.read()
        thread.join(TIMEOUT)


def test_a_server_can_bind_and_listen_later():
    server = WSGIServer(("127.0.0.1", 0), Quiet, bind_and_activate=False)
    server.set_app(hello)
    server.allow_reuse_address = False
    with server:
        server.server_bind()
        server.server_activate()
        with asked(server) as client:
            server.handle_request()
            assert client.read_response().content == b"hello"


# --- the same port again ------------------------------------------------------------------------


@pytest.mark.parametrize("server_class", [WSGIServer, Threaded])
def test_a_closed_server_can_be_replaced_on_its_port_at_once(server_class):
    """The first server closes a connection first, so the system keeps its port for a minute."""

    class Strict(server_class):
        allow_reuse_address = False

    with running(hello, server_class=server_class) as server:
        client = RawClient(server.server_port)
        client.send(REQUEST)
        assert client.read_response().content == b"hello"
    client.close()
    with again(server, server_class=server_class) as second, asked(second) as client:
        second.handle_request()
        assert client.read_response().content == b"hello"
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        again(server, server_class=Strict)


@pytest.mark.parametrize("method", ["serve_forever", "handle_request"])
@pytest.mark.parametrize("server_class", [WSGIServer, Threaded])
def test_an_interrupt_leaves_a_server_that_can_be_closed_and_replaced(server_class, method):
    with server_for(hello, server_class=server_class) as server:
        kept = RawClient(server.server_port)

        def answered():
            if method == "serve_forever":
                kept.send(REQUEST)
                assert kept.read_response().content == b"hello"

        with pytest.raises(KeyboardInterrupt), interrupted_after(answered):
            getattr(server, method)()
        server.shutdown()  # as in a `finally` block: it must not wait
    kept.close()
    with again(server, server_class=server_class) as second, asked(second) as client:
        second.handle_request()
        assert client.read_response().content == b"hello"


def test_a_signal_handler_runs_while_a_large_response_is_sent():
    """The rest of the response follows, as after an interrupted system call (PEP 475)."""
    calls = []
    size = 4 << 20

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    def read():
        with asked(server) as client:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            got.append(len(client.read_response().content))

    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
    try:
        with server_for(app) as server:
            thread = threading.Thread(target=read)
            thread.start()
            server.handle_request()
            thread.join(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (got, calls) == ([size], [1])


# --- warnings and descriptors -------------------------------------------------------------------


def test_selectors_take_a_server(monkeypatch):
    monkeypatch.delenv("PICOWSGI_POLLER", raising=False)
    with server_for(hello) as server, selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ, server.handle_request)
        with asked(server) as client:
            for key, _ in selector.select(TIMEOUT):
                key.data()
            assert client.read_response().content == b"hello"


def test_a_server_releases_its_descriptors_when_it_is_closed_or_forgotten():
    descriptors = descriptors_at_rest()
    server = server_for(hello)
    with asked(server) as client:
        server.handle_request()
        assert client.read_response().status == 200
    server.server_close()
    assert open_descriptors() == descriptors, "expected no wait for a collection of the garbage"
    server = server_for(hello)
    with asked(server) as client:
        server.handle_request()
        assert client.read_response().status == 200
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del server
        gc.collect()
    assert [one.category for one in caught] == [ResourceWarning]
    assert "unclosed <socket" in str(caught[0].message)
    assert open_descriptors() == descriptors


def test_a_closed_server_and_one_that_cannot_start_give_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server = server_for(hello)
        with asked(server) as client:
            server.handle_request()
            assert client.read_response().status == 200
        with pytest.raises(OSError, match="in use"):
            again(server)
        with pytest.raises(TypeError, match="must derive"):
            make_server("127.0.0.1", 0, hello, handler_class=object)
        server.server_close()
        server.server_close()
        del server, client
        gc.collect()
    assert [str(one.message) for one in caught] == []
