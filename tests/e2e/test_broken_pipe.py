"""SIGPIPE ends no server, although the application has restored the default of the signal."""

from __future__ import annotations

import os
import socket
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from support import TIMEOUT, RawClient, wait_until
from support.processes import APP as PROCESS_APP
from support.processes import children, lives, write_app

APP = """
    import signal
    from pathlib import Path

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    HERE = Path(__file__).parent
    (HERE / "file").write_bytes(bytes(4 << 20))

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        if path == "/file":
            return environ["wsgi.file_wrapper"]((HERE / "file").open("rb"))
        if path == "/stream":
            return iter(lambda: bytes(100_000), None)
        if path == "/status":
            return [Path("/proc/thread-self/status").read_bytes()]
        return [bytes(8 << 20) if path == "/large" else b"hello"]
"""


def get(path):
    return b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path


@pytest.fixture
def start(command, tmp_path):
    """Start the application, also on a unix socket, where a close is a broken pipe at once."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    with tempfile.TemporaryDirectory() as directory:  # tmp_path may be too long for the address
        path = Path(directory) / "socket"

        def run(*options):
            binds = ["--bind=127.0.0.1:0", f"--bind=unix:{path}"]
            program = command("-m", "picowsgi", *binds, *options, "app:app", directory=tmp_path)
            return program, path

        yield run


def leave(path, data, reads=1):
    """Send a request, and disconnect while the server sends the response."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        client.sendall(data)
        for number in range(reads):
            assert client.recv(100 + number * 10_000)


def assert_serves(command):
    with RawClient(command.port) as client:
        client.send(get(b"/"))
        assert client.read_response().content == b"hello"
    assert command.process.poll() is None


@pytest.mark.parametrize("target", [b"/large", b"/stream", b"/file"])
def test_a_client_that_disconnects_does_not_end_the_server(start, target):
    command, path = start("--threads=2")
    for number in range(50):
        leave(path, get(target), number % 12 + 1)
        leave(path, get(target) * 3)
        assert_serves(command)
    assert command.stop() == 0


def test_an_access_log_without_a_reader_does_not_end_the_server(start, tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command, _ = start("--access-log", f"--access-log-file={fifo}")
    assert_serves(command)

    def something_is_logged():
        try:
            return os.read(reader, 1000)
        except BlockingIOError:
            return b""

    wait_until(something_is_logged, "a line of the access log")
    os.close(reader)
    for _ in range(3):
        assert_serves(command)
        leave_no_line_waiting(command)
    assert command.stop() == 0


def leave_no_line_waiting(command):
    """Make so many lines that the core writes them."""
    with RawClient(command.port) as client:
        for _ in range(5):
            client.send(get(b"/?" + b"x" * 1000) * 20)
            for _ in range(20):
                assert client.read_response().status == 200


def test_programs_that_the_application_starts_do_not_have_the_signal_blocked(start):
    command, path = start()
    leave(path, get(b"/file"))
    with RawClient(command.port) as client:
        for _ in range(3):
            client.send(get(b"/file"))
            assert client.read_response().status == 200
            client.send(get(b"/status"))
            status = client.read_response().content.decode()
            [blocked] = [line for line in status.splitlines() if line.startswith("SigBlk:")]
            assert int(blocked.split()[1], 16) & 1 << 12 == 0, "expected SIGPIPE not to be blocked"


def test_a_worker_whose_supervisor_is_killed_finishes_its_request(picowsgi, tmp_path):
    default = "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    write_app(tmp_path, default + PROCESS_APP)
    command = picowsgi("--workers=1", "--preload", "app:app", directory=tmp_path)
    [worker] = children(command.process.pid)
    with RawClient(command.port) as client:
        client.send(get(b"/hold"))
        wait_until((tmp_path / "held").exists, "the request to run")
        command.process.kill()
        command.process.wait()
        time.sleep(1.3)  # it sends a heartbeat each second, which no process reads now
        assert lives(worker)
        (tmp_path / "release").touch()
        assert client.read_response().content == b"released"
    wait_until(lambda: not lives(worker), "the worker to end")
