"""picowsgi.simple_server hands a request to its handler and its application as wsgiref does."""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import socketserver
import ssl
import threading
from wsgiref.validate import validator

import pytest

from picowsgi.simple_server import WSGIRequestHandler, WSGIServer, make_server
from support import TIMEOUT, RawClient
from support.stand_in import LARGE, Quiet, Threaded, asked, get, hello, running, server_for

LOG_LINE = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] "GET /a\?b HTTP/1\.1" 200 5\n'


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


def test_the_address_string_of_a_handler_is_in_the_environ_and_in_the_log(capsys):
    class Named(WSGIRequestHandler):
        def address_string(self):
            return "client.example"

    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['REMOTE_HOST']} {environ['REMOTE_ADDR']}".encode()]

    with running(app, handler_class=Named) as server:
        assert get(server) == (200, b"client.example 127.0.0.1")
    assert capsys.readouterr().err.startswith("client.example - - [")


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


def test_a_program_can_change_the_base_environ_while_it_serves():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['wsgi.url_scheme']} {environ.get('site.name')}".encode()]

    for server_class in (WSGIServer, Threaded):
        with running(app, server_class=server_class) as server:
            assert get(server) == (200, b"http None")
            server.base_environ.update({"site.name": "here", "HTTPS": "on"})
            assert get(server) == (200, b"https here")


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
