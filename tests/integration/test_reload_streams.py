"""A reload or Ctrl-C while requests are open: streams are closed at once, other requests end."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import pytest

from support import code_of_site
from support.code_of_site import save_code, write_site
from support.processes import PROCESS_TIMEOUT, ask, eventually, lives
from support.terminal import CTRL_C, Terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

APP = """
import os, time
from pathlib import Path

VERSION = "1"
HERE = Path(__file__).parent

class Items:
    def __init__(self, pause):
        self.pause = pause
        self.count = 0
    def __iter__(self):
        return self
    def __next__(self):
        self.count += 1
        if self.count > 1:
            time.sleep(self.pause)
        return b"data: x\\n\\n"
    def close(self):
        (HERE / "closed").touch()

def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = VERSION
    if path in ("/stream", "/blocked"):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return Items(0.05 if path == "/stream" else 1000)
    if path == "/pid":
        answer = str(os.getpid())
    elif path == "/hold":
        (HERE / "held").touch()
        while not (HERE / "release").exists():
            time.sleep(0.005)
        answer = "released"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""
TWO_WORKERS = ["-m", "picowsgi", "--reload", "--workers", "2", "--port", "0", "code_of_site"]
COMMANDS = {**code_of_site.COMMANDS, "two workers": TWO_WORKERS}
every_command = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def site(tmp_path):
    write_site(tmp_path, APP)
    return tmp_path


@pytest.fixture
def start(command, site):
    def start(arguments, **options):
        options.setdefault("environ", {"PYTHONDONTWRITEBYTECODE": "1"})
        one = command(*arguments, directory=site, stdout=True, **options)
        assert ask(one.port) == "1"
        return one

    return start


class Stream:
    """A client that reads a stream until the server ends it."""

    def __init__(self, port, path="/stream"):
        self._socket = socket.create_connection(("127.0.0.1", port), PROCESS_TIMEOUT)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        self.got = b""
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._begun.wait(PROCESS_TIMEOUT), "expected the first item"

    def _read(self):
        with self._socket, suppress(ConnectionError):
            self._socket.settimeout(None)
            while data := self._socket.recv(65536):
                self.got += data
                if b"data: x" in self.got:
                    self._begun.set()

    def wait_for_end(self):
        self._thread.join(PROCESS_TIMEOUT)
        assert not self._thread.is_alive(), "expected the end of the stream"
        assert not self.got.endswith(b"0\r\n\r\n"), "expected a stream that is cut off"


def change(site, port, version=2):
    save_code(site, APP, version)
    eventually(lambda: ask(port) == str(version), f"the new code {version}")


def check_quiet(command):
    log = command.log
    for line in ("Traceback", "rror", "xception", "did not end", "left behind"):
        assert line not in log, log


@every_command
@pytest.mark.parametrize("path", ["/stream", "/blocked"])
def test_a_save_closes_streams_and_the_old_process_ends(start, site, arguments, path):
    command = start(arguments)
    stream = Stream(command.port, path)
    old = int(ask(command.port, "/pid"))
    change(site, command.port)
    stream.wait_for_end()
    eventually(lambda: not lives(old), "the end of the old process")
    if path == "/stream":  # perhaps in another worker than the one that has ended
        eventually((site / "closed").exists, "a call of close()")
    check_quiet(command)


@every_command
def test_a_request_that_computes_is_finished_while_the_new_code_serves(start, site, arguments):
    command = start(arguments)
    held = []
    thread = threading.Thread(target=lambda: held.append(ask(command.port, "/hold")), daemon=True)
    thread.start()
    eventually((site / "held").exists, "the request to run")
    for version in (2, 3):
        change(site, command.port, version)
    assert held == []
    (site / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert held == ["released"]
    check_quiet(command)


@every_command
def test_four_saves_leave_no_process_behind(start, site, arguments):
    command = start(arguments)
    old = set()
    for version in range(2, 6):
        Stream(command.port, "/blocked")
        old.add(int(ask(command.port, "/pid")))
        change(site, command.port, version)
    old -= {int(ask(command.port, "/pid"))}
    eventually(lambda: not any(map(lives, old)), "the end of the old processes")
    check_quiet(command)


@every_command
@pytest.mark.parametrize("path", ["/stream", "/blocked"])
@pytest.mark.measured
def test_ctrl_c_ends_at_once_with_streams_open(site, arguments, path):
    terminal = Terminal(arguments, site, {"PYTHONDONTWRITEBYTECODE": "1"})
    try:
        port = terminal.port
        eventually(lambda: is_up(port), "the server")
        streams = [Stream(port, path) for _ in range(3)]
        begin = time.monotonic()
        terminal.press(CTRL_C)
        assert terminal.wait() == 0, terminal.text
        assert time.monotonic() - begin < 2, terminal.text  # half a second on an idle machine
        for stream in streams:
            stream.wait_for_end()
        assert "waiting for" not in terminal.text
        assert "rror" not in terminal.text
    finally:
        terminal.end()


def is_up(port):
    try:
        return ask(port) == "1"
    except OSError:
        return False


@every_command
def test_ctrl_c_says_for_what_it_waits_and_another_one_ends_the_wait(site, arguments):
    terminal = Terminal(arguments, site, {"PICOWSGI_TIMEOUT_GRACEFUL": "600"})
    try:
        port = terminal.port
        eventually(lambda: is_up(port), "the server")
        client = socket.create_connection(("127.0.0.1", port), PROCESS_TIMEOUT)
        client.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually((site / "held").exists, "the request to run")
        terminal.press(CTRL_C)
        terminal.wait_for(r"shutting down, waiting for 1 request \(Ctrl-C again to stop now\)\n")
        terminal.press(CTRL_C)
        assert terminal.wait() in (0, 130), terminal.text
        assert "Traceback" not in terminal.text
        client.close()
    finally:
        terminal.end()


def test_debug_alone_closes_streams_at_ctrl_c(start):
    command = start(["-m", "picowsgi", "--debug", "--port", "0", "code_of_site"])
    stream = Stream(command.port, "/blocked")
    assert command.interrupt() == 0
    stream.wait_for_end()
    check_quiet(command)


def test_without_the_options_of_development_a_stream_has_the_time_of_the_option(start):
    command = start(["-m", "picowsgi", "--port", "0", "--timeout-graceful", "1", "code_of_site"])
    stream = Stream(command.port)
    before = len(stream.got)
    command.process.send_signal(signal.SIGINT)
    eventually(lambda: len(stream.got) > before + 200, "more of the stream")
    assert command.wait() == 0
    stream.wait_for_end()


def test_a_stop_of_the_reloader_by_sigterm_closes_streams_too(start):
    command = start(COMMANDS["picowsgi"])
    stream = Stream(command.port, "/blocked")
    pid = int(ask(command.port, "/pid"))
    assert command.stop() == 0
    stream.wait_for_end()
    assert not lives(pid)
