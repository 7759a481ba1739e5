"""Lines of the error log about a request name its client, and the proxy that it came through."""

from __future__ import annotations

import logging
import socket

import pytest

from picowsgi import Server
from support import RawClient, connect, wait_until
from support.proxy_header import LOCAL, v1, v2

CLIENT, SITE = ("192.0.2.1", 4711), ("198.51.100.2", 443)
LARGE = bytes(8 << 20)


def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [LARGE if environ["PATH_INFO"] == "/large" else b"hello"]


def request(fields="", target="/", method="GET"):
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def wait_for_line(caplog):
    """Return the one expected line of the error log."""

    def lines():
        return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]

    wait_until(lines, "a line in the error log")
    assert len(lines()) == 1, f"expected one line, got {lines()}"
    return lines()[0]


PROXIES = "127.0.0.1,10.0.0.0/8"


@pytest.mark.parametrize(
    ("options", "header", "fields", "client"),
    [
        ({}, b"", "", "127.0.0.1 port {port}"),
        ({}, b"", "X-Forwarded-For: 192.0.2.9\r\n", "192.0.2.9 through 127.0.0.1 port {port}"),
        (
            {},
            b"",
            'Forwarded: for="[2001:db8::9]:81"\r\n',
            "2001:db8::9 port 81 through 127.0.0.1 port {port}",
        ),
        (
            {},
            b"",
            "X-Forwarded-For: unknown\r\n",
            "an unknown client through 127.0.0.1 port {port}",
        ),
        ({}, b"", "X-Forwarded-Proto: https\r\n", "127.0.0.1 port {port}"),
        (
            {"proxy_protocol": True},
            v1(CLIENT, SITE),
            "X-Forwarded-For: 192.0.2.9\r\n",
            "192.0.2.1 port 4711 through 127.0.0.1 port {port}",
        ),
        (
            {"proxy_protocol": True},
            v2(("10.0.0.1", 80), SITE),
            "X-Forwarded-For: 192.0.2.9\r\n",
            "192.0.2.9 through 127.0.0.1 port {port}",
        ),
        ({"proxy_protocol": True}, LOCAL, "", "127.0.0.1 port {port}"),
    ],
)
@pytest.mark.parametrize("repeats", [0, 3], ids=["the first request", "a repeated one"])
def test_the_error_log_names_the_client_and_its_proxy(
    serve, caplog, options, header, fields, client, repeats
):
    server = serve(application, timeout_write=0.3, forwarded_allow_ips=PROXIES, **options)
    data = request(fields, "/large")
    with RawClient(server.port, receive_buffer=4096) as slow:
        slow.send(header)
        for _ in range(repeats):
            slow.send(data)
            assert slow.read_response().content == LARGE
        slow.send(data)
        line = wait_for_line(caplog)
        expected = f": GET /large, from {client.format(port=slow.local_port)}"
        assert line.endswith(expected), f"expected {expected!r} at the end of {line!r}"
        slow.end()


def test_the_error_log_names_the_client_behind_a_unix_socket(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with (
        Server(application, bind="unix:s", timeout_write=0.3) as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        assert server.url.startswith("unix:")
        client.connect("s")
        client.sendall(request("X-Forwarded-For: 192.0.2.9\r\n", "/large"))
        assert wait_for_line(caplog).endswith(": GET /large, from 192.0.2.9 through a unix socket")


def test_a_request_whose_content_cannot_be_stored_is_reported_with_its_client(
    serve, caplog, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    server = serve(application, body_memory=1000)
    with connect(server) as client:
        fields = "X-Forwarded-For: 192.0.2.9\r\nContent-Length: 400000\r\n"
        client.send(request(fields, method="POST") + bytes(400_000))
        assert client.read_response().status == 507
        expected = f": POST /, from 192.0.2.9 through 127.0.0.1 port {client.local_port}"
        assert wait_for_line(caplog).endswith(expected)


def test_the_warning_about_an_underscore_names_the_client(serve, caplog, monkeypatch):
    monkeypatch.setattr("picowsgi.threads.incidents._warned_in", set())
    server = serve(application)
    with connect(server) as client:
        client.send(request("X-Forwarded-For: 192.0.2.9\r\nX_Y: z\r\n"))
        client.read_response()
        wanted = f"X_Y from 192.0.2.9 through 127.0.0.1 port {client.local_port} is dropped"
        wait_until(lambda: wanted in caplog.text, f"a line with {wanted!r}")
