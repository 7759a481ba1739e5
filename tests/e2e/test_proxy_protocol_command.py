"""--proxy-protocol of the commands: a reload, and all places that have the option."""

from __future__ import annotations

import signal

import pytest

from support import connect
from support.processes import eventually, lives
from support.proxy_header import LOCAL, v1, v2

CLIENT, SITE = ("192.0.2.1", 4711), ("198.51.100.2", 443)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")
    return [" ".join([str(os.getpid()), *(environ[key] for key in keys)]).encode()]
"""
NAMED = "192.0.2.1 4711 198.51.100.2 443"


def pid_and_client(client):
    client.send(GET)
    response = client.read_response()
    assert response.status == 200
    pid, _, named = response.content.decode().partition(" ")
    return int(pid), named


@pytest.mark.parametrize("options", [(), ("--poller", "poll")])
def test_a_reload_after_a_change_keeps_idle_connections_and_their_clients(
    picowsgi, tmp_path, options
):
    path = tmp_path / "app.py"
    path.write_text(APP)
    server = picowsgi("--proxy-protocol", "--reload", *options, "app:app", directory=tmp_path)
    with connect(server) as used, connect(server) as local, connect(server) as fresh:
        for number in range(1, 3):
            if number == 1:
                used.send(v1(CLIENT, SITE))
                local.send(LOCAL)
            pid, named = pid_and_client(used)
            assert named == NAMED
            assert pid_and_client(local)[1].startswith("127.0.0.1")
            draft = tmp_path / "draft"
            draft.write_text(f"{APP}# change {number}\n")
            draft.replace(path)
            eventually(lambda pid=pid: not lives(pid), "another process to serve")
        for _ in range(2):  # the new process keeps the head
            later, named = pid_and_client(used)
            assert (later != pid, named) == (True, NAMED)
        assert pid_and_client(local)[1].startswith("127.0.0.1")
        fresh.send(v2(CLIENT, SITE))
        assert pid_and_client(fresh)[1] == NAMED


@pytest.mark.parametrize("options", [("--workers", "2"), ("--workers", "1", "--preload")])
def test_a_reload_by_a_signal_ends_idle_connections_and_serves_begun_ones(
    picowsgi, tmp_path, options
):
    (tmp_path / "app.py").write_text(APP)
    server = picowsgi("--proxy-protocol", *options, "app:app", directory=tmp_path)
    header = v1(CLIENT, SITE)
    with connect(server) as used, connect(server) as begun:
        used.send(header)
        pid_and_client(used)
        begun.send(header[:20])
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("info: reloaded")
        used.read_nothing_more()
        begun.send(header[20:])
        assert pid_and_client(begun)[1] == NAMED
    with connect(server) as later:
        later.send(v2(CLIENT, SITE))
        assert pid_and_client(later)[1] == NAMED
    assert server.stop() == 0
    assert "warning" not in server.log


def test_all_places_have_the_option(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "options.toml").write_text("proxy_protocol = true\n")
    for options, environ in (
        (("--proxy-protocol",), {}),
        ((), {"PICOWSGI_PROXY_PROTOCOL": "on"}),
        (("--config", "options.toml"), {}),
    ):
        command = picowsgi(*options, "app:app", directory=tmp_path, environ=environ)
        with connect(command) as client:
            client.send(v2(CLIENT, SITE))
            assert pid_and_client(client)[1] == NAMED
        with connect(command) as client:
            client.send(GET)
            client.end()
        command.wait_for_log("it does not begin with a PROXY header")
        assert command.stop() == 0


def test_serve_has_the_option(command, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    program = (
        "import app, logging, picowsgi\n"
        "logging.basicConfig(level='INFO')\n"
        "picowsgi.serve(app.app, port=0, proxy_protocol=True)\n"
    )
    server = command("-c", program, directory=tmp_path)
    with connect(server) as client:
        client.send(v1(CLIENT, SITE))
        assert pid_and_client(client)[1] == NAMED
