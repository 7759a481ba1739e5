"""As a systemd service: sockets are passed to the server, and the manager gets messages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from support.processes import PROCESS_TIMEOUT, ask, children, eventually, lives, write_app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux")

MODES = pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])

# Like systemd: the descriptors from 3 on, and the number of the process that they are for.
START = """
import os, sys
first = int(sys.argv[1])
os.dup2(first, 3, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "picowsgi", *sys.argv[2:]])
"""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(PROCESS_TIMEOUT)

    def read(self):
        """Return the next message as a dict."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def manager(tmp_path):
    one = Manager(str(tmp_path / "notify"))
    yield one
    one.socket.close()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def start(tmp_path, manager, listening):
    """Start a service: `start("--workers", "2", WATCHDOG_USEC="1000000")`."""
    write_app(tmp_path)
    started = []

    def start(*options, **environ):
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(listening.fileno()), "app:app", *options],
            cwd=tmp_path,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "web",
                **environ,
            },
        )
        process.lines = []
        reader = threading.Thread(target=lambda: process.lines.extend(process.stderr), daemon=True)
        reader.start()
        started.append((process, reader))
        return process

    yield start
    for process, reader in started:
        process.kill()
        process.wait()
        reader.join(PROCESS_TIMEOUT)
        process.stderr.close()


@MODES
def test_a_service_gets_its_socket_and_reports_each_step_of_its_life(
    start, manager, listening, options
):
    port = listening.getsockname()[1]
    process = start(*options)
    assert manager.read() == {"READY": "1"}
    assert ask(port) == "1"
    before = time.monotonic_ns() // 1000
    process.send_signal(signal.SIGHUP)
    message = manager.read()
    assert message.pop("RELOADING") == "1"
    assert before <= int(message.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert not message
    assert manager.read() == {"READY": "1"}
    assert ask(port) == "1", "expected the socket in the reloaded process, too"
    process.terminate()
    assert manager.read() == {"STOPPING": "1"}
    assert process.wait(PROCESS_TIMEOUT) == 0


def test_a_reload_that_fails_is_reported_as_over(start, manager, tmp_path):
    process = start()
    assert manager.read() == {"READY": "1"}
    write_app(tmp_path, "raise LookupError\n")
    process.send_signal(signal.SIGHUP)
    assert "RELOADING" in manager.read()
    assert manager.read() == {"READY": "1"}


def test_an_address_on_the_command_line_overrides_the_sockets(start, manager, listening):
    process = start("--port", "0")
    assert manager.read() == {"READY": "1"}
    process.terminate()
    process.wait(PROCESS_TIMEOUT)
    line, _ = process.lines
    assert b"serving app:app on http://127.0.0.1:" in line
    assert b":%d " % listening.getsockname()[1] not in line


def test_sockets_for_another_process_are_not_taken(picowsgi, tmp_path):
    write_app(tmp_path)
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert ask(picowsgi("app:app", directory=tmp_path, environ=environ).port) == "1"


def test_the_watchdog_gets_its_messages_while_workers_live_and_none_when_they_are_stuck(
    start, manager
):
    process = start("--workers", "1", "--preload", WATCHDOG_USEC="1000000")
    assert manager.read() == {"READY": "1"}
    assert manager.read() == {"WATCHDOG": "1"}
    assert manager.read() == {"WATCHDOG": "1"}
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        manager.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            list(map(Manager.read, [manager] * 8))
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_single_process_sends_the_watchdog_messages_itself(start, manager):
    start(WATCHDOG_USEC="400000")
    assert manager.read() == {"READY": "1"}
    for _ in range(3):
        assert manager.read() == {"WATCHDOG": "1"}


def test_systemd_gets_the_pid_of_a_successor_when_the_old_process_ends(
    start, manager, listening, tmp_path
):
    process = start("--pid", "server.pid")
    assert manager.read() == {"READY": "1"}
    process.send_signal(signal.SIGUSR2)
    assert manager.read() == {"READY": "1"}
    new = int((tmp_path / "server.pid").read_text())
    try:
        eventually(lambda: any(b"serves too" in line for line in process.lines), "the log")
        process.terminate()
        assert manager.read() == {"MAINPID": str(new), "READY": "1"}
        assert process.wait(PROCESS_TIMEOUT) == 0
        assert ask(listening.getsockname()[1]) == "1"
    finally:
        os.kill(new, signal.SIGTERM)
    eventually(lambda: not lives(new), "the successor to end")
