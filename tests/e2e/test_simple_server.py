"""picowsgi.simple_server works as programs for wsgiref.simple_server expect."""

from __future__ import annotations

import signal
import socketserver
import sqlite3
import threading
import time

import pytest

from picowsgi.simple_server import WSGIRequestHandler, WSGIServer, demo_app, make_server
from support import TIMEOUT, RawClient, descriptors_at_rest, wait_until
from support.stand_in import Quiet, Threaded, asked, get, hello, running, server_for

# --- the attributes of a server -----------------------------------------------------------------


def test_a_server_knows_its_address():
    with server_for(hello) as server:
        port = server.socket.getsockname()[1]
        assert server.server_address == ("127.0.0.1", port)
        assert server.server_port == port > 0
        assert server.server_name
        assert isinstance(server, socketserver.BaseServer)
        assert server.RequestHandlerClass is Quiet


def test_the_demonstration_application_shows_the_environ():
    with running(demo_app) as server:
        status, content = get(server, "/path?query")
        assert status == 200
        assert content.startswith(b"Hello world!")
        assert b"QUERY_STRING = 'query'" in content


def test_the_application_can_be_changed_while_it_serves():
    def other(environ, start_response):
        start_response("200 OK", [])
        return [b"other"]

    with running(hello) as server:
        assert get(server) == (200, b"hello")
        server.set_app(other)
        assert server.get_app() is other
        assert get(server) == (200, b"other")


def test_an_address_in_use_is_an_oserror():
    with server_for(hello) as server, pytest.raises(OSError, match="in use"):
        make_server("127.0.0.1", server.server_port, hello)


# --- serve_forever and shutdown -----------------------------------------------------------------


def test_the_application_runs_in_the_thread_that_serves():
    database = {}
    seen = []

    def app(environ, start_response):
        seen.append(threading.get_ident())
        start_response("200 OK", [])
        return [str(database["it"].execute("select 6 * 7").fetchone()[0]).encode()]

    server = server_for(app)

    def serve():
        database["it"] = sqlite3.connect(":memory:")  # may be used in this thread only
        server.serve_forever()
        database["it"].close()

    thread = threading.Thread(target=serve)
    thread.start()
    ident = thread.ident
    try:
        assert [get(server)[1] for _ in range(3)] == [b"42"] * 3
    finally:
        server.shutdown()
        thread.join(TIMEOUT)
        server.server_close()
    assert seen == [ident] * 3


def test_no_thread_is_started_for_serving():
    before = threading.active_count()
    with server_for(hello) as server, asked(server) as client:
        server.handle_request()
        assert client.read_response().content == b"hello"
        assert threading.active_count() == before


def test_connections_stay_open_and_pipelined_requests_are_answered():
    with running(hello) as server, RawClient(server.server_port) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            assert [client.read_response().content for _ in range(3)] == [b"hello"] * 3


@pytest.mark.measured
def test_shutdown_returns_at_once_after_serve_forever_has_ended():
    with server_for(hello) as server:
        returned = []
        thread = threading.Thread(target=lambda: (server.serve_forever(60), returned.append(1)))
        thread.start()
        assert get(server)[0] == 200
        begin = time.monotonic()
        server.shutdown()
        assert time.monotonic() - begin < 5, "expected no wait for poll_interval"
        thread.join(TIMEOUT)
        assert returned


def test_serve_forever_can_be_called_again():
    with server_for(hello) as server:
        for _ in range(3):
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            assert get(server) == (200, b"hello")
            server.shutdown()
            thread.join(TIMEOUT)
            server.shutdown()  # takes effect at the next call, as in wsgiref
            server.serve_forever()


def test_shutdown_before_serve_forever_does_not_wait_and_ends_it():
    with server_for(hello) as server:
        server.shutdown()
        server.serve_forever()


def test_shutdown_within_a_request_ends_serving_after_the_response():
    def app(environ, start_response):
        server.shutdown()
        return hello(environ, start_response)

    with server_for(app) as server, asked(server) as client:
        server.serve_forever()
        assert client.read_response().content == b"hello"


def test_shutdown_within_a_request_in_a_thread_ends_serving_after_the_response():
    def app(environ, start_response):
        server.shutdown()
        return hello(environ, start_response)

    with server_for(app, server_class=Threaded) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with asked(server) as client:
            assert client.read_response().content == b"hello"
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize("within", ["handle_request", "serve_forever"])
def test_a_request_can_wait_for_the_next_request(within):
    """As in wsgiref: the server handles it while the first one is in the application."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/outer":
            inner = asked(server, "/inner")
            server.handle_request()
            contents.append(inner.read_response().content)
            inner.close()
            server.shutdown()
        return hello(environ, start_response)

    contents = []
    with server_for(app) as server, asked(server, "/outer") as client:
        getattr(server, within)()
        assert client.read_response().content == b"hello"
        assert contents == [b"hello"]


def test_a_request_knows_its_own_client_after_the_server_has_handled_another():
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/outer":
            with asked(server, "/inner") as inner:
                server.handle_request()
                assert inner.read_response().content == b"hello"
                assert not environ["picowsgi.client_disconnected"]()
                client.close()
                wait_until(environ["picowsgi.client_disconnected"], "the end of the outer client")
                seen.append("gone")
        return hello(environ, start_response)

    seen = []
    with server_for(app) as server:
        client = asked(server, "/outer")
        server.handle_request()
    assert seen == ["gone"]


def test_a_request_can_close_the_server_that_handles_it():
    def app(environ, start_response):
        server.server_close()
        return hello(environ, start_response)

    server = server_for(app)
    with asked(server) as client:
        server.handle_request()
        assert client.read_response().content == b"hello"


@pytest.mark.parametrize("opened", [True, False])
def test_handle_request_in_several_threads_serves_one_request_in_each(opened):
    together = threading.Barrier(3)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/together":
            together.wait(TIMEOUT)
        return hello(environ, start_response)

    with server_for(app) as server:
        if opened:
            with asked(server) as client:
                server.handle_request()
                assert client.read_response().content == b"hello"
        threads = [threading.Thread(target=server.handle_request) for _ in range(3)]
        for thread in threads:
            thread.start()
        clients = [asked(server, "/together") for _ in threads]
        for client in clients:
            with client:
                assert client.read_response().content == b"hello"
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def test_a_request_that_has_arrived_at_shutdown_is_answered():
    entered, may_end = threading.Event(), threading.Event()

    def app(environ, start_response):
        entered.set()
        may_end.wait(TIMEOUT)
        return hello(environ, start_response)

    with server_for(app) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with asked(server) as first:
            assert entered.wait(TIMEOUT)
            with asked(server) as second:
                stopper = threading.Thread(target=server.shutdown)
                stopper.start()
                wait_until(lambda: server._shutdown_wanted, "shutdown to be called")
                may_end.set()
                stopper.join(TIMEOUT)
                assert first.read_response().status == 200
                assert second.read_response().status == 200
        thread.join(TIMEOUT)


def test_service_actions_are_called_while_no_request_arrives():
    called = threading.Event()

    class Server(WSGIServer):
        def service_actions(self):
            called.set()

    with server_for(hello, server_class=Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        assert called.wait(TIMEOUT)
        server.shutdown()
        thread.join(TIMEOUT)


@pytest.mark.parametrize("server_class", [WSGIServer, Threaded])
def test_a_closed_server_ends_serve_forever(server_class):
    server = server_for(hello, server_class=server_class)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert get(server) == (200, b"hello")
    server.server_close()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert server.fileno() == -1


def test_an_interrupt_ends_serving_even_during_a_request(command, tmp_path):
    (tmp_path / "app.py").write_text("""
import os, signal, sys
from picowsgi.simple_server import make_server

def app(environ, start_response):
    if environ["PATH_INFO"] == "/interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    start_response("200 OK", [])
    return [b"hello"]

server = make_server("127.0.0.1", 0, app)
print(f"http://127.0.0.1:{server.server_port}", file=sys.stderr)
try:
    server.serve_forever(3600)
except KeyboardInterrupt:
    sys.exit(7)
""")
    idle = command("app.py", directory=tmp_path)
    with RawClient(idle.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200
    assert idle.stop(signal.SIGINT) == 7
    busy = command("app.py", directory=tmp_path)
    with RawClient(busy.port) as client:
        client.send(b"GET /interrupt HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 500
    assert busy.wait() == 7


def test_an_uncaught_interrupt_leaves_the_with_statement(command, tmp_path):
    (tmp_path / "app.py").write_text("""
import sys
from picowsgi.simple_server import demo_app, make_server

with make_server("127.0.0.1", 0, demo_app) as server:
    print(f"http://127.0.0.1:{server.server_port}", file=sys.stderr)
    server.serve_forever()
""")
    idle = command("app.py", directory=tmp_path)
    with RawClient(idle.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200
        assert idle.stop(signal.SIGINT) == -signal.SIGINT


def test_a_server_whose_service_actions_fail_can_serve_again():
    class Failing(WSGIServer):
        def service_actions(self):
            raise ZeroDivisionError

    with server_for(hello, server_class=Failing) as server:
        with pytest.raises(ZeroDivisionError) as caught:
            server.serve_forever(0)
        with asked(server) as client:
            server.timeout = TIMEOUT
            server.handle_request()
            assert client.read_response().status == 200
    assert caught.traceback  # which has kept the first server


def test_servers_leave_no_descriptors_open():
    counts = set()
    for _ in range(5):
        with running(hello) as server:
            assert get(server) == (200, b"hello")
        counts.add(descriptors_at_rest())  # those of the last one stay until the next
    assert len(counts) == 1


# --- threads ------------------------------------------------------------------------------------


def test_threading_mixin_serves_requests_side_by_side():
    together = threading.Barrier(4)

    def app(environ, start_response):
        together.wait(TIMEOUT)
        assert environ["wsgi.multithread"]
        return hello(environ, start_response)

    with running(app, server_class=Threaded) as server:
        clients = [asked(server) for _ in range(4)]
        for client in clients:
            with client:
                assert client.read_response().content == b"hello"


def test_threading_mixin_calls_the_handler_and_the_application_of_the_server():
    lines = []

    class Handler(WSGIRequestHandler):
        def log_message(self, text, *arguments):
            lines.append(text % arguments)

    with running(hello, server_class=Threaded, handler_class=Handler) as server:
        assert get(server, "/x") == (200, b"hello")
    assert lines == ['"GET /x HTTP/1.1" 200 5']
