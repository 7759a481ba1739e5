"""Behind a real HAProxy, instances restart one after the other, and no request fails."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from support import outer_environ
from support.processes import PROCESS_TIMEOUT, eventually, listens, write_app

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs HAProxy: apt-get install haproxy"
)

INSTANCES = 3
CONFIG = """
global
    stats socket {directory}/stats.sock level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    retries 0
    http-reuse always
frontend site
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr Host a
    default-server check inter 100ms rise 1 fall 1
{servers}
"""
APP = """
import time

def app(environ, start_response):
    if environ["QUERY_STRING"] == "slow":
        time.sleep(0.05)
    body = b"x" * 3000
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Instance:
    """One of the servers. It always comes back at its port."""

    def __init__(self, directory, options):
        self.port = free_port()
        self._directory = directory
        self._options = options
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "picowsgi", "--port", str(self.port)),
                *("--health", "/ready", *self._options, "app:app"),
            ],
            cwd=self._directory,
            env=outer_environ(),
            stderr=subprocess.DEVNULL,
        )

    def restart(self):
        self._process.terminate()
        assert self._process.wait(PROCESS_TIMEOUT) == 0
        self.start()

    def end(self):
        self._process.kill()
        self._process.wait()


class Clients:
    """They send requests without a pause, on persistent connections or one for each request."""

    def __init__(self, port):
        self._port = port
        self._over = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number % 2 == 0, number % 3 == 0))
            for number in range(6)
        ]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._over.set()
        for thread in self._threads:
            thread.join(PROCESS_TIMEOUT)

    def _run(self, stays, is_slow):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROCESS_TIMEOUT)
        while not self._over.is_set():
            try:
                connection.request("GET", "/?slow" if is_slow else "/")
                response = connection.getresponse()
                size = len(response.read())
                problem = "" if (response.status, size) == (200, 3000) else str(response.status)
            except OSError as error:
                problem = repr(error)
                connection.close()
            if not stays:
                connection.close()
            with self._lock:
                self.answered += not problem
                if problem:
                    self.failed.append(problem)
        connection.close()


@pytest.fixture
def behind_haproxy(tmp_path):
    """Start instances with these options, and an HAProxy that has found all of them."""
    with ExitStack() as stack:

        def start(*options):
            write_app(tmp_path, APP)
            instances = [Instance(tmp_path, options) for _ in range(INSTANCES)]
            for one in instances:
                stack.callback(one.end)
            for one in instances:  # HAProxy takes a server for UP until a check has failed
                eventually(lambda port=one.port: listens(port), "an instance to listen")
            port = free_port()
            servers = "\n".join(
                f"    server s{number} 127.0.0.1:{one.port}" for number, one in enumerate(instances)
            )
            config = tmp_path / "haproxy.cfg"
            config.write_text(CONFIG.format(directory=tmp_path, port=port, servers=servers))
            haproxy = subprocess.Popen(
                ["haproxy", "-db", "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            stack.callback(haproxy.stderr.close)
            stack.callback(haproxy.wait)
            stack.callback(haproxy.terminate)
            eventually(lambda: all_are_up(tmp_path), "HAProxy to find all instances")
            return instances, port

        yield start


def states(directory):
    """Return the state of each instance for HAProxy: UP, DOWN, ..."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(directory / "stats.sock"))
        except OSError:
            return []
        asking.sendall(b"show stat\n")
        with asking.makefile() as lines:
            rows = [line.split(",") for line in lines]
    return [row[17] for row in rows if row[0] == "instances" and row[1] != "BACKEND"]


def all_are_up(directory):
    return len(found := states(directory)) == INSTANCES and set(found) == {"UP"}


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_a_rolling_restart_without_retries_fails_no_request(behind_haproxy, tmp_path, workers):
    instances, port = behind_haproxy("--drain-delay", "1", *workers)
    clients = Clients(port)
    try:
        eventually(lambda: clients.answered > 200, "the clients to be served")
        for one in instances:
            one.restart()
            eventually(lambda: all_are_up(tmp_path), "HAProxy to find the instance again")
        before = clients.answered
        eventually(lambda: clients.answered > before + 200, "the clients to be served")
    finally:
        clients.end()
    assert clients.failed == [], (
        f"expected no failure, got {len(clients.failed)} beside {clients.answered} responses"
    )
