"""Logs without a reader, and full disks: the server continues, and no line is torn."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection

import pytest

from support import TIMEOUT, RawClient, outer_environ, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets the size of a pipe")

APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError(environ["QUERY_STRING"])
    if environ["PATH_INFO"] == "/complain":
        environ["wsgi.errors"].write("complaint\\n" * 100)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
#: More than all buffers between the core and the pipe hold.
MANY = 1000
LONG = "x" * 2000
DROPPED = re.compile(r"(\d+) lines were dropped because the access log was full")


@pytest.fixture
def pipe():
    """A small pipe whose reading end does not block."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):
            os.close(end)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def get(target):
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def ask_often(command, target, count, status=200):
    """Send requests on one connection, in parts that the client's buffers can hold."""
    with RawClient(command.port) as client:
        for _ in range(count // 20):
            client.send(get(target) * 20)
            for _ in range(20):
                assert client.read_response().status == status


def is_healthy(command):
    with RawClient(command.port) as client:
        client.send(get("/up"))
        return client.read_response().status == 200


class Reader:
    """Reads all bytes of a pipe."""

    def __init__(self, descriptor):
        self.data = b""
        os.set_blocking(descriptor, True)
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while part := os.read(self._descriptor, 65536):
            self.data += part

    def lines(self):
        """All lines, after all writers have closed the other end."""
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert self.data.endswith(b"\n")
        return self.data.decode("ascii").splitlines()


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_an_access_log_without_a_reader_loses_lines_and_blocks_nothing(
    picowsgi, directory, pipe, options, kind
):
    reader, writer = pipe
    where = ()
    if kind == "fifo":
        path = directory / "fifo"
        os.mkfifo(path)
        where = (f"--access-log-file={path}",)
    command = picowsgi(
        "--access-log",
        "--access-log-format=%(U)s?%(q)s",
        "--health=/up",
        *options,
        *where,
        "app:app",
        directory=directory,
        stdout=writer,
    )
    workers = 2 if options else 1
    for _ in range(workers * 2):  # each worker gets more than it can keep
        ask_often(command, f"/?{LONG}", MANY)
        assert is_healthy(command)
    os.close(writer)
    if kind == "fifo":
        with path.open("rb") as fifo:
            reader = os.dup(fifo.fileno())
    read = Reader(reader)
    command.wait_for_log("lines were dropped because the access log was full: no process read it")
    last = 0
    while b"/last" not in read.data:
        ask_often(command, "/last", 20)
        last += 20
    assert command.stop() == 0
    lines = read.lines()
    asked = [f"/?{LONG}"] * (MANY * 2 * workers) + ["/last?-"] * last
    dropped = sum(int(count) for count in DROPPED.findall(command.log))
    assert set(lines) <= set(asked)
    assert dropped > 0
    assert len(lines) + dropped == len(asked)


def test_a_server_whose_access_log_has_no_reader_can_be_stopped(picowsgi, directory, pipe):
    _, writer = pipe
    command = picowsgi("--access-log", "app:app", directory=directory, stdout=writer)
    ask_often(command, f"/?{LONG}", 100)
    assert command.stop() == 0
    (dropped,) = DROPPED.findall(command.log)
    assert 90 < int(dropped) <= 100


class Quiet:
    """A server on a unix socket whose standard error is a pipe."""

    def __init__(self, directory, stderr, *options):
        self.path = str(directory / "s")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", "--bind=unix:s", *options, "app:app"],
            cwd=directory,
            env=outer_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        wait_until(self._listens, "the server to listen")

    def _listens(self):
        assert self.process.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.path) == 0

    def get(self, target):
        with closing(HTTPConnection("localhost", timeout=TIMEOUT)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(TIMEOUT)
            connection.sock.connect(self.path)
            connection.request("GET", target)
            response = connection.getresponse()
            response.read()
            return response.status

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@pytest.fixture
def quiet():
    started = []

    def start(*arguments):
        started.append(Quiet(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize("options", [(), ("--workers=2",)], ids=["one process", "two workers"])
def test_a_server_whose_error_log_has_no_reader_serves_and_can_be_stopped(
    quiet, directory, pipe, options
):
    server = quiet(directory, pipe[1], "--health=/up", *options)
    for _ in range(200):
        assert server.get(f"/error?{LONG}") == 500
        assert server.get("/complain") == 200
    assert server.get("/up") == 200
    assert server.stop() == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_log_that_continues_says_how_many_lines_it_has_lost(quiet, directory, pipe, form):
    reader, writer = pipe
    server = quiet(directory, writer, f"--log-format={form}")
    os.close(writer)
    for _ in range(200):
        assert server.get(f"/error?{LONG}") == 500
    read = Reader(reader)
    wait_until(
        lambda: re.search(rb"\d+ lines of the error log were dropped", read.data),
        "the number of dropped lines",
    )
    assert server.get("/error?last") == 500
    assert server.stop() == 0
    if form == "json":
        entries = [json.loads(line) for line in read.lines() if line.startswith("{")]
        assert entries[-1]["message"].endswith("/error?last")
        assert "RuntimeError: last" in entries[-1]["traceback"]
    else:
        assert read.lines()[-1] == "    RuntimeError: last"


def test_lines_of_several_workers_on_one_pipe_are_whole(picowsgi, directory):
    reader, writer = os.pipe2(os.O_CLOEXEC)
    log = directory / "log"
    with log.open("wb") as file:  # a process, because the clients keep this one busy
        read = subprocess.Popen(["cat"], stdin=reader, stdout=file)
    os.close(reader)
    command = picowsgi(
        "--workers=2",
        "--access-log",
        "--access-log-format=json",
        "app:app",
        directory=directory,
        stdout=writer,
    )
    os.close(writer)
    # Some are longer than PIPE_BUF, because each backslash is escaped.
    agents = ["a", "b" * 300, "c" * 1500, "\\" * 2000]

    together = threading.Barrier(8)

    def ask(number):
        agent = f"User-Agent: {agents[number % 4]}\r\n"
        request = f"GET /{number} HTTP/1.1\r\nHost: a\r\n{agent}\r\n".encode()
        with RawClient(command.port) as client:
            for _ in range(50):
                client.send(request * 10)
                for _ in range(10):
                    assert client.read_response().status == 200
            together.wait(TIMEOUT)  # all are open at once, so the workers share them

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert command.stop() == 0
    assert read.wait(TIMEOUT) == 0
    entries = [json.loads(line) for line in log.read_text("ascii").splitlines()]
    assert "dropped" not in command.log
    assert len({entry["pid"] for entry in entries}) == 2
    assert sorted(entry["target"] for entry in entries) == sorted(
        f"/{number}" for number in range(8) for _ in range(500)
    )
    assert {entry["user_agent"] for entry in entries} == set(agents)


def test_a_log_continues_where_it_was_after_a_full_disk(picowsgi, directory):
    log = directory / "log"
    command = picowsgi(
        "--access-log",
        f"--access-log-file={log}",
        "--access-log-format=%(U)s.",
        "--health=/up",
        "app:app",
        directory=directory,
    )
    # A file with a size limit is written in part, and then not at all, as on a full disk.
    unlimited = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (1001, unlimited[1]))
    names = [f"/{number:04}" for number in range(400)]
    with RawClient(command.port) as client:
        for name in names:
            client.send(get(name))
            assert client.read_response().status == 200
    wait_until(lambda: log.stat().st_size == 1001, "a line that is written in part")
    assert is_healthy(command)
    resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert command.stop() == 0
    assert log.read_text().splitlines() == [f"{name}." for name in names]
