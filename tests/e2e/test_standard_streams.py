"""Standard streams that are closed at the start: nothing written to them reaches a client."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from support import TIMEOUT, outer_environ, wait_until

APP = """
import os, sys

def app(environ, start_response):
    for number in range(3):
        try:
            os.write(number, b"smuggled")
        except OSError as error:
            if number:
                raise
    print("smuggled")
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.write("smuggled")
            stream.flush()
    environ["wsgi.errors"].write("smuggled")
    start_response("200 OK", [("Content-Type", "text/plain")])
    targets = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
    return [" ".join(targets).encode()]
"""
STARTS = {
    "command": "-m picowsgi --bind unix:s app:app",
    "command with a log": "-m picowsgi --bind unix:s --access-log app:app",
    "two workers": "-m picowsgi --bind unix:s --workers 2 app:app",
    "main": """-c '
import sys
from picowsgi.cli.main import main
sys.exit(main(["--bind", "unix:s", "app:app"]))'""",
    "serve": """-c '
import app, picowsgi
picowsgi.serve(app.app, bind="unix:s", access_log="on")'""",
    "Server": """-c '
import app, picowsgi, signal
server = picowsgi.Server(app.app, bind="unix:s")
signal.signal(signal.SIGTERM, lambda *_: server.request_stop())
with server:
    while not server.join(0.1): pass'""",
    "simple_server": """-c '
import app, os, signal, threading
from picowsgi.simple_server import *
class Server(WSGIServer):
    address_family = 1
    def server_bind(self):
        self.socket.bind("s")
        self.server_name, self.server_port = "s", 80
        self.setup_environ()
server = make_server("s", 0, app.app, Server)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()'""",
}


@pytest.fixture
def start(tmp_path):
    """`start(name, redirections)` starts a server, and returns a function that requests it."""
    (tmp_path / "app.py").write_text(APP)
    processes = []

    def start_(name, redirections):
        process = subprocess.Popen(
            ["sh", "-c", f"exec {shlex.quote(sys.executable)} {STARTS[name]} {redirections}"],
            cwd=tmp_path,
            env={**outer_environ(), "PICOWSGI_ACCESS_LOG_FORMAT": "common"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)

        def ask():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(TIMEOUT)
                client.connect(f"{tmp_path}/s")
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b""))

        def listens():
            assert process.poll() is None, "expected the server to continue"
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(f"{tmp_path}/s") == 0

        wait_until(listens, "the server to listen")
        return process, ask

    yield start_
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", STARTS)
def test_printed_text_reaches_no_client(start, name, closed):
    process, ask = start(name, closed)
    for _ in range(3):
        head, _, body = ask().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"smuggled" not in head + body
        assert body.decode() == " ".join([os.devnull] * 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 0
