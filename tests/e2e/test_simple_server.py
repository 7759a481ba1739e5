"""picowsgi.simple_server works as programs for wsgiref.simple_server expect."""

from __future__ import annotations

import http.client
import io
import os
import re
import select
import signal
import socket
import socketserver
import sqlite3
import ssl
import threading
import time
from contextlib import contextmanager
from wsgiref.validate import validator

import pytest

from picowsgi.simple_server import WSGIRequestHandler, WSGIServer, demo_app, make_server
from support import TIMEOUT, RawClient, descriptors_at_rest, wait_until

LARGE = b"0123456789abcdef" * (1 << 19)  # 8 MiB: more than the system takes at once
LOG_LINE = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] "GET /a\?b HTTP/1\.1" 200 5\n'


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    pass


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def server_for(app, **options):
    return make_server("127.0.0.1", 0, app, **{"handler_class": Quiet, **options})


@contextmanager
def running(app, **options):
    """A server whose serve_forever runs in a thread until shutdown."""
    with server_for(app, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "expected shutdown to end serve_forever"


@contextmanager
def client_of(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=TIMEOUT)
    try:
        yield connection
    finally:
        connection.close()


def get(server, path="/", method="GET", **options):
    with client_of(server) as connection:
        connection.request(method, path, **options)
        response = connection.getresponse()
        return response.status, response.read()


def asked(server, path="/"):
    """A client that has sent its request and reads later."""
    client = RawClient(server.server_port)
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client


def readable(server, seconds):
    return bool(select.select([server], [], [], seconds)[0])


@pytest.fixture
def with_descriptor(monkeypatch):
    """The default poller of the build, regardless of the environment: poll(2) has no descriptor."""
    monkeypatch.delenv("PICOWSGI_POLLER", raising=False)


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


def test_a_closed_server_ends_serve_forever():
    server = server_for(hello)
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


@pytest.mark.usefixtures("with_descriptor")
def test_a_request_that_the_end_cuts_is_in_the_log(caplog):
    with server_for(hello) as server, asked(server) as whole, RawClient(server.server_port) as half:
        half.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        while not readable(server, 0.01):
            pass
        server.handle_request()
        assert whole.read_response().status == 200
        server.timeout = 0
        server.handle_request()  # reads the bytes of the other
        server.server_close()
    assert "POST /" in caplog.text


def test_servers_leave_no_descriptors_open():
    counts = set()
    for _ in range(5):
        with running(hello) as server:
            assert get(server) == (200, b"hello")
        counts.add(descriptors_at_rest())  # those of the last one stay until the next
    assert len(counts) == 1


# --- handle_request -----------------------------------------------------------------------------


def test_handle_request_serves_one_request():
    count = []

    def app(environ, start_response):
        count.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with server_for(app) as server, asked(server, "/1") as one, asked(server, "/2") as two:
        server.handle_request()
        assert len(count) == 1
        server.handle_request()
        assert len(count) == 2
        assert one.read_response().content == two.read_response().content == b"hello"


def test_handle_request_sends_all_before_it_returns():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [LARGE]

    with server_for(app) as server:
        got = []
        client = threading.Thread(target=lambda: got.append(get(server)))
        client.start()
        server.handle_request()
        client.join(TIMEOUT)
        assert got == [(200, LARGE)]


def test_handle_request_returns_after_the_timeout():
    called = []

    class Server(WSGIServer):
        timeout = 0.05

        def handle_timeout(self):
            called.append(1)

    with server_for(hello, server_class=Server) as server:
        server.handle_request()
        assert called == [1]
        server.timeout = 0
        server.handle_request()
        assert called == [1, 1]
        server.timeout = None
        server.socket.settimeout(0.05)
        server.handle_request()
        assert called == [1, 1, 1]
        with asked(server) as client:
            server.handle_request()
            assert client.read_response().status == 200
        assert called == [1, 1, 1]


@pytest.mark.usefixtures("with_descriptor")
@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
def test_the_descriptor_is_readable_when_a_request_waits(kept):
    with server_for(hello) as server:
        assert not readable(server, 0.02)
        with asked(server) as client:
            assert readable(server, TIMEOUT)
            server.handle_request()
            assert client.read_response().status == 200
            if kept:
                assert not readable(server, 0.02)
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert readable(server, TIMEOUT)
                server.handle_request()
                assert client.read_response().status == 200


@pytest.mark.usefixtures("with_descriptor")
def test_the_descriptor_stays_readable_while_received_requests_wait():
    with server_for(hello) as server, RawClient(server.server_port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        for _ in range(3):
            assert readable(server, TIMEOUT)
            server.handle_request()
        assert [client.read_response().content for _ in range(3)] == [b"hello"] * 3


def test_poll_serves_requests_and_says_that_it_has_no_descriptor(monkeypatch):
    monkeypatch.setenv("PICOWSGI_POLLER", "poll")
    with server_for(hello) as server, asked(server) as client:
        with pytest.raises(OSError, match="a poller with a descriptor"):
            server.fileno()
        server.handle_request()
        assert client.read_response().content == b"hello"


@pytest.mark.usefixtures("with_descriptor")
def test_one_loop_can_serve_several_servers():
    with (
        server_for(hello) as one,
        server_for(hello) as two,
        asked(two) as second,
        asked(one) as first,
    ):
        left = {one, two}
        while left:
            for server in select.select(left, [], [], TIMEOUT)[0]:
                server.handle_request()
                left.discard(server)
        assert first.read_response().status == second.read_response().status == 200


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


# --- request handlers ---------------------------------------------------------------------------


def test_each_request_is_one_line_on_standard_error(capsys):
    with running(hello, handler_class=WSGIRequestHandler) as server:
        get(server, "/a?b")
    assert re.fullmatch(LOG_LINE, capsys.readouterr().err)


def test_log_request_gets_the_status_and_the_size_and_the_attributes_of_a_request():
    seen = []

    class Handler(WSGIRequestHandler):
        def log_request(self, code="-", size="-"):
            seen.append((self.command, self.path, self.request_version, code, size))
            assert self.client_address[0] == "127.0.0.1"
            assert self.client_address[1] > 0
            assert self.server is server
            assert self.headers["user-agent"] == "test"
            assert self.headers["Content-Length"] == "3"

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/bad":
            raise ValueError("on purpose")
        start_response("201 Created", [])
        return iter([b"ab", b"cd"])

    with running(app, handler_class=Handler) as server:
        for path in ("/good", "/bad"):
            get(server, path, "POST", body=b"xyz", headers={"User-Agent": "test"})
    assert seen == [
        ("POST", "/good", "HTTP/1.1", "201", 4),
        ("POST", "/bad", "HTTP/1.1", "500", 22),
    ]


def test_a_handler_can_add_to_the_environ_and_receive_the_errors():
    errors = io.StringIO()

    class Handler(Quiet):
        def get_environ(self):
            return {**super().get_environ(), "site.name": "here"}

        def get_stderr(self):
            return errors

    def app(environ, start_response):
        environ["wsgi.errors"].write("complaint")
        start_response("200 OK", [])
        return [environ["site.name"].encode()]

    with running(app, handler_class=Handler) as server:
        assert get(server) == (200, b"here")
    assert errors.getvalue() == "complaint"


def test_a_failing_handler_fails_only_its_own_request(caplog):
    class Handler(WSGIRequestHandler):
        def get_environ(self):
            if self.path == "/environ":
                raise ValueError("no environ")
            return super().get_environ()

        def log_message(self, *_arguments):
            raise ValueError("no log")

    with running(hello, handler_class=Handler) as server:
        assert get(server, "/environ")[0] == 500
        assert get(server) == (200, b"hello")
    assert "no environ" in caplog.text
    assert "no log" in caplog.text


@pytest.mark.parametrize("name", ["handle", "setup", "finish", "send_error"])
def test_a_handler_that_handles_connections_itself_is_refused(name):
    handler = type("Handler", (WSGIRequestHandler,), {name: lambda self: None})
    with pytest.raises(TypeError, match=f"Handler overrides {name}"):
        server_for(hello, handler_class=handler)


def test_a_server_with_an_error_handler_for_disconnected_clients_serves():
    class Server(WSGIServer):
        def handle_error(self, *_connection):
            pytest.fail("expected no line about clients that have disconnected")

    with running(hello, server_class=Server) as server:
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost:")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert get(server) == (200, b"hello")


@pytest.mark.parametrize("name", ["get_request", "verify_request", "process_request"])
def test_a_server_that_handles_connections_itself_is_refused(name):
    server_class = type("Server", (WSGIServer,), {name: lambda self, *arguments: None})
    with pytest.raises(TypeError, match=f"Server overrides {name}"):
        server_for(hello, server_class=server_class)


def test_features_that_only_wsgiref_has_are_refused():
    from wsgiref import simple_server as original

    class Forking(socketserver.ForkingMixIn, WSGIServer):
        pass

    with pytest.raises(TypeError, match="forks for each"):
        server_for(hello, server_class=Forking)
    with pytest.raises(TypeError, match="must derive from"):
        server_for(hello, server_class=original.WSGIServer)
    with pytest.raises(TypeError, match="must derive from"):
        server_for(hello, handler_class=original.WSGIRequestHandler)
    with server_for(hello) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(TypeError, match="TLS"):
            server.handle_request()


def test_a_server_class_can_have_its_own_address_family(tmp_path):
    class V6(WSGIServer):
        address_family = socket.AF_INET6

    with make_server("::1", 0, hello, V6, Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        connection = http.client.HTTPConnection("::1", server.server_port, timeout=TIMEOUT)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        connection.close()
        thread.join(TIMEOUT)


# --- the gateway's side: the promises of wsgiref's handlers -------------------------------------


def test_a_valid_application_passes_the_validator():
    @validator
    def app(environ, start_response):
        environ["wsgi.input"].read(3)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"valid"]

    with running(app) as server:
        assert get(server, "/", "POST", body=b"abc") == (200, b"valid")
        assert get(server, "/", "HEAD") == (200, b"")


def test_an_application_that_breaks_the_rules_gets_a_500_and_a_traceback(caplog):
    @validator
    def app(environ, start_response):
        start_response("200 OK", [("Status", "200 OK")])
        return [b"never"]

    with running(app) as server:
        assert get(server)[0] == 500
    assert "AssertionError" in caplog.text
    assert "GET /" in caplog.text


@pytest.mark.parametrize(
    "break_rule",
    [
        lambda start: start("200 OK", [("X-A", "1")]) and ["text"],
        lambda start: start(b"200 OK", []) and [b""],
        lambda start: start("200 OK", [(b"X-A", b"1")]) and [b""],
        lambda start: start("200 OK", [("X-A", "a\nb")]) and [b""],
        lambda start: [b"no start"],
    ],
    ids=["text content", "bytes status", "bytes header", "line end", "no start_response"],
)
def test_an_invalid_response_is_a_500(break_rule, caplog):
    with running(lambda environ, start_response: break_rule(start_response)) as server:
        assert get(server)[0] == 500
    assert "ResponseError" in caplog.text


def test_the_environ_equals_that_of_wsgiref_except_for_the_process_environment(monkeypatch):
    monkeypatch.setenv("A_SECRET", "x")
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        return hello(environ, start_response)

    with running(app) as server:
        get(server, "/p%20q?a=b", headers={"X-Some": "1"})
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/p q",
        "QUERY_STRING": "a=b",
        "CONTENT_LENGTH": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": server.server_name,
        "SERVER_PORT": str(server.server_port),
        "HTTP_X_SOME": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    assert {key: seen.get(key) for key in wanted} == wanted
    assert "A_SECRET" not in seen


def test_keys_of_the_base_environ_reach_the_application():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["site.name"].encode()]

    server = server_for(app)
    server.base_environ["site.name"] = "here"
    with server, asked(server) as client:
        server.handle_request()
        assert client.read_response().content == b"here"


def test_the_server_closes_an_iterable_and_sends_a_file(tmp_path):
    closed = []
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    class Items:
        def __iter__(self):
            yield b"abc"
            raise ValueError("in the middle")

        def close(self):
            closed.append("items")

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](path.open("rb"))
        return Items()

    with running(app) as server:
        assert get(server, "/file") == (200, LARGE)
        with pytest.raises(http.client.IncompleteRead):
            get(server)
    assert closed == ["items"]


def test_http_1_0_gets_a_response_that_ends_with_the_connection():
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([b"a", b"b"])

    with running(app) as server, RawClient(server.server_port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        response = client.read_response()
        assert response.content == b"ab"
        assert response.value("Transfer-Encoding") is None
        client.read_nothing_more()


def test_a_forked_child_can_serve_the_socket():
    with server_for(hello) as server:
        pid = os.fork()
        if pid == 0:
            try:
                server.handle_request()
            finally:
                os._exit(0)
        assert get(server) == (200, b"hello")
        assert os.waitpid(pid, 0)[1] == 0
