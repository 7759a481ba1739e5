"""--request-id: one id of a request for a proxy, the logs and the application."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from http.client import HTTPConnection

import pytest

from picowsgi import Server
from support import INTERRUPTS, TIMEOUT, RawClient, connect

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
APP = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError(environ["picowsgi.request_id"])
    if environ["PATH_INFO"] == "/slow":
        while True:
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("picowsgi.request_id", "none").encode()]
"""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("picowsgi.request_id", "none").encode()]


def get(client, target="/", fields=""):
    client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    return client.read_response().content.decode()


@pytest.fixture
def server(serve, tmp_path):
    """A server with an access log of ids, and a function that stops it and returns the lines."""
    file = tmp_path / "log"
    one = serve(
        application,
        access_log="on",
        access_log_file=str(file),
        access_log_format="%(U)s %(s)s %(I)s",
        loops=1,
    )

    def lines():
        one.stop()
        return file.read_text("ascii").splitlines()

    return one, lines


def test_each_request_has_an_id_of_its_own_in_the_environ_and_in_the_log(server):
    one, lines = server
    ids = []
    with connect(one) as client:
        for _ in range(20):  # the same head several times
            ids.append(get(client))
        for number in range(20):  # another request line, and another field
            ids.append(get(client, f"/{number}", f"X-Number: {number}\r\n"))
    with connect(one) as client:
        ids.append(get(client))
    assert len(set(ids)) == 41
    assert all(UUID.fullmatch(one) for one in ids)
    assert [line.split()[2] for line in lines()] == ids


def test_a_trusted_peer_names_its_requests(server):
    one, lines = server
    with connect(one) as client:
        for name in ("a", "a", "b-1", "x" * 128):
            assert get(client, fields=f"X-Request-ID: {name}\r\n") == name
            assert get(client, f"/{name[:3]}", fields=f"x-request-id: {name}\r\n") == name
    assert [line.split()[2] for line in lines()[:3]] == ["a", "a", "a"]


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", 'a"b', "a\\b", "\x80", "a\tb"])
def test_an_invalid_id_is_replaced(server, name):
    one, _ = server
    with connect(one) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: {name}\r\n\r\n".encode("latin-1"))
        assert UUID.fullmatch(client.read_response().content.decode())


def test_a_refused_request_has_an_id_too(server):
    one, lines = server
    with connect(one) as client:
        client.send(b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert client.read_response().status == 400
    (line,) = lines()
    assert UUID.fullmatch(line.split()[2])


def test_the_ids_of_a_peer_that_is_not_trusted_are_ignored(serve):
    server = serve(application, request_id=True)
    with socket.socket() as client:
        client.settimeout(TIMEOUT)
        client.bind(("127.0.0.2", 0))  # on this machine, but not the trusted address
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: forged\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert UUID.fullmatch(answer.rpartition(b"\r\n")[2].decode())


def test_the_peer_of_a_unix_socket_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        Server(application, request_id=True, bind="unix:s"),
        closing(HTTPConnection("localhost", timeout=TIMEOUT)) as connection,
    ):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect("s")
        connection.request("GET", "/", headers={"X-Request-ID": "mine"})
        assert connection.getresponse().read() == b"mine"


def test_without_the_option_there_is_no_id(serve):
    with connect(serve(application)) as client:
        assert get(client, fields="X-Request-ID: a\r\n") == "none"


@INTERRUPTS
@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_of_both_logs_about_a_request_have_its_id(picowsgi, tmp_path, form):
    (tmp_path / "app.py").write_text(APP)
    command = picowsgi(
        "--request-id",
        "--access-log",
        "--access-log-format=json",
        f"--log-format={form}",
        "--timeout-request=0.2",
        "app:app",
        directory=tmp_path,
        stdout=True,
    )
    with RawClient(command.port) as client:
        get(client, "/error", "X-Request-ID: the-first\r\n")
        get(client, "/slow", "X-Request-ID: the-second\r\n")
    assert command.stop() == 0
    lines = command.log.splitlines()
    if form == "json":
        entries = [json.loads(line) for line in lines]
        named = [entry for entry in entries if entry.get("request_id") == "the-second"]
        assert {entry.get("target", entry.get("message")) for entry in named} >= {
            "/slow",
            "error in the application: GET /slow",
        }
        assert any("is interrupted at:" in entry.get("message", "") for entry in named)
    else:
        for name, target in (("the-first", "/error"), ("the-second", "/slow")):
            end = f"error in the application: GET {target} (request {name})"
            assert any(line.endswith(end) for line in lines)
        assert any(line.endswith("is interrupted at: (request the-second)") for line in lines)
