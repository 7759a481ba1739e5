"""No accepted request is lost silently: each incomplete response is a line in the error log."""

from __future__ import annotations

import logging
import os
import re

import pytest

from support import PING, RawClient, connect, ping, site, wait_until

LARGE = bytes(range(256)) * (8 << 12)  # 8 MiB
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /form?a=b HTTP/1.1\r\nHost: a\r\n"
BODY = b"Content-Length: 400000\r\n\r\n"
SHORT = 0.3
LONG = 30.0
STOPS = "the server stops before a request is answered in full"
TAKES_NOTHING = "a client has read nothing for 0.3 s (--timeout-write), so its response is cut"


@site
def app(environ, start_response):
    """Responds in each of the ways in which content can be on its way to a client."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    way = environ["PATH_INFO"]
    if way.startswith("/large"):
        return [LARGE]
    if way == "/parts":
        return [LARGE, LARGE]
    if way == "/stream":
        return iter(lambda: LARGE[:100_000], None)
    return [b"hello"]


def to(target):
    return GET.replace(b"/", target, 1)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def wait_for_line(caplog):
    """Return the one expected line. The server has handled another request after it."""
    wait_until(lambda: lines(caplog), "a line in the error log")
    assert len(lines(caplog)) == 1, f"expected one line, got {lines(caplog)}"
    return lines(caplog)[0]


def check_line(line, client, text, target):
    """Check the parts of a line: the event and its reason, the request, and the client."""
    assert line.startswith(text), f"expected {text!r}, got {line!r}"
    unsent = re.search("at least ([0-9]+) bytes are not sent", line)
    assert unsent is None or 0 < int(unsent[1]) <= 2 * len(LARGE)
    wanted = f": {target}, from 127.0.0.1 port {client.local_port}"
    assert line.endswith(wanted), f"expected the line to end with {wanted!r}, got {line!r}"


def ask(server, data):
    """Send a request and read at most the first bytes of the response, if there are any."""
    client = RawClient(server.port, receive_buffer=4096)
    client.send(data)
    if data.endswith(b"\r\n\r\n") and data.startswith(b"GET"):
        wait_until(lambda: client.read_some(1), "the response to begin")
    else:
        ping(server)  # the server has been round its loop since
    return client


# --- while it serves ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/large?a=%20b", b"/parts", b"/stream"])
def test_a_response_that_its_client_does_not_read_is_reported(serve, caplog, target):
    server = serve(app, timeout_write=SHORT, response_buffer=65536, response_spool=0)
    with ask(server, to(target)) as client:
        line = wait_for_line(caplog)
        check_line(line, client, TAKES_NOTHING, f"GET {target.decode()}")
        assert "bytes are not sent" in line
        client.end()


@pytest.mark.parametrize("before", [PING, to(b"/large")], ids=["another line", "the same head"])
def test_a_request_with_a_cached_head_is_reported_like_any_other(serve, caplog, before):
    server = serve(app, timeout_write=SHORT)
    with RawClient(server.port, receive_buffer=65536) as client:
        for _ in range(4):
            client.send(before)
            assert client.read_response().status == 200
        client.send(to(b"/large"))
        check_line(wait_for_line(caplog), client, TAKES_NOTHING, "GET /large")


def test_content_that_cannot_be_stored_is_reported(serve, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    server = serve(app, body_memory=1000)
    with connect(server) as client:
        client.send(POST + BODY + bytes(400_000))
        assert client.read_response().status == 507
        text = "the body of a request cannot be stored, so the client gets a 507: No such file"
        check_line(wait_for_line(caplog), client, text, "POST /form?a=b")


def test_a_file_that_becomes_shorter_is_reported(serve, caplog, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    @site
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        if environ["PATH_INFO"] == "/before":
            wrapper.filelike.seek(-1, os.SEEK_END)
            close = wrapper.filelike.close
            wrapper.close = lambda: (close(), os.truncate(path, 1_000))  # no byte is sent yet
        return wrapper

    text = "a file became shorter while the server sent it, so the response is cut; at least "
    server = serve(application)
    with ask(server, to(b"/meanwhile")) as client:
        os.truncate(path, 1_000_000)
        response = client.read_response()
        assert not response.complete, "expected the client to notice that the content is cut"
        check_line(wait_for_line(caplog), client, text, "GET /meanwhile")
    caplog.clear()
    with connect(server) as client:
        client.send(to(b"/before"))
        assert client.end() == "reset"
        line = wait_for_line(caplog)
        check_line(line, client, f"{text}1 bytes", "GET /before")
    ping(server)


def test_a_request_line_of_any_length_is_reported_with_its_beginning(serve, caplog):
    server = serve(app, timeout_write=SHORT)
    with ask(server, to(b"/large?" + b"x" * 10_000)) as client:
        line = wait_for_line(caplog)
        assert re.search(r": GET /large\?x{1000,1023}, from ", line), line
        client.end()


@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize("target", [b"/large", b"/stream", b"/parts"])
def test_a_client_that_disconnects_is_not_reported(serve, caplog, target, way):
    with caplog.at_level(logging.INFO, "picowsgi"):
        server = serve(app, response_buffer=65536)
        with ask(server, to(target)) as client:
            getattr(client, way)()
        for data in (GET[:9], POST + BODY, b"GET / HTTP/9.9\r\n\r\n"):
            with ask(server, data) as client:
                getattr(client, way)()
        ping(server)
        server.stop()
    assert not caplog.records, [record.getMessage() for record in caplog.records]


# --- when it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "target"),
    [
        pytest.param(to(b"/large"), "GET /large", id="a finished response"),
        pytest.param(to(b"/parts"), "GET /parts", id="a response in parts"),
        pytest.param(to(b"/stream"), "GET /stream", id="a response being made"),
        pytest.param(POST + BODY + b"12", "POST /form?a=b", id="content"),
        pytest.param(b"GET /some", "GET /some", id="a request line"),
        pytest.param(b"GET /\x1b[2J\xe9", "GET /\\x1b[2J\\xe9", id="control characters"),
    ],
)
@pytest.mark.parametrize("at_once", [False, True], ids=["graceful", "at once"])
def test_responses_that_the_stop_cuts_are_reported(serve, caplog, data, target, at_once):
    graceful = LONG if at_once else SHORT
    server = serve(app, timeout_graceful=graceful, response_buffer=65536, response_spool=0)
    with ask(server, data) as client:
        server.request_stop()
        if at_once:
            assert not server.join(0.1), "expected the server to wait for the connection"
            server.request_stop(now=True)
        server.stop()
        check_line(wait_for_line(caplog), client, STOPS, target)


def test_each_of_many_cut_requests_has_its_line(serve, caplog):
    server = serve(app, timeout_graceful=SHORT)
    clients = [ask(server, to(b"/large?%d" % number)) for number in range(50)]
    clients.append(connect(server))  # an idle connection loses nothing
    server.stop()
    for client in clients:
        client.close()
    numbers = [re.search(r"GET /large\?([0-9]+),", line)[1] for line in lines(caplog)]
    assert sorted(map(int, numbers)) == list(range(50))


def test_requests_that_are_answered_during_a_drain_are_not_reported(serve, caplog):
    server = serve(app, timeout_graceful=LONG)
    with ask(server, to(b"/large")) as client:
        server.request_stop()
        assert client.read_response().content == LARGE
        server.stop()
    assert not lines(caplog)


def test_the_command_logs_incidents_too(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [bytes(8 << 20)]\n"
    )
    command = picowsgi("--timeout-graceful=0.2", "app:app", directory=tmp_path)
    with RawClient(command.port, receive_buffer=4096) as client:
        client.send(to(b"/large"))
        wait_until(lambda: client.read_some(1), "the response to begin")
        assert command.stop() == 0
        [line] = [line for line in command.log.splitlines() if STOPS in line]
        assert f": GET /large, from 127.0.0.1 port {client.local_port}" in line
