"""Processes that the application forks are no servers, and their parent continues to serve."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from picowsgi import line_output
from support import connect, outer_environ
from support.processes import PROCESS_TIMEOUT, ask, eventually, lives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

APP = """
import json, multiprocessing, os, signal, stat, sys, time
from pathlib import Path

fork = multiprocessing.get_context("fork")
HERE = Path(__file__).parent

def square(number):
    return number * number

class Deaf:
    def write(self, text):
        raise KeyboardInterrupt

    flush = write

class Forking:
    def __iter__(self):
        return iter([b"of the parent"])

    def close(self):
        pid = os.fork()
        if pid == 0:
            sys.exit(9)
        self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

forking = Forking()

def report(path):
    sockets = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith(("socket:", "anon_inode:[eventpoll]")):
            sockets.append(target)
    handlers = {
        name: str(signal.getsignal(getattr(signal, name)))
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGCHLD")
    }
    blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    draft = path + ".draft"
    with open(draft, "w") as file:
        json.dump({"sockets": sockets, "handlers": handlers, "blocked": blocked}, file)
    os.rename(draft, path)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    answer = b"ok"
    if path == "/pool":
        with fork.Pool(2) as pool:
            answer = str(sum(pool.map(square, range(10)))).encode()
    elif path == "/terminate":
        child = fork.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(5)
        answer = str(child.exitcode).encode()
    elif path == "/report":
        child = fork.Process(target=report, args=(str(HERE / "report"),))
        child.start()
        child.join(10)
        answer = (HERE / "report").read_bytes()
    elif path == "/stay":
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        answer = str(pid).encode()
    elif path == "/fork-in-close":
        start_response("200 OK", [])
        return forking
    elif path == "/closed":
        answer = str(forking.status).encode()
    elif path in ("/return", "/raise", "/exit", "/exit-unheard", "/stream"):
        pid = os.fork()
        if pid == 0:
            if path == "/exit-unheard":
                sys.stderr = Deaf()
                sys.exit("no reader gets this")
            if path == "/raise":
                raise ValueError("in the child")
            if path == "/exit":
                sys.exit(7)
            if path == "/stream":
                start_response("200 OK", [])
                return iter([b"of the child"])
            start_response("200 OK", [])
            return [b"of the child"]
        answer = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer]
"""

ONE = ("--workers", "1")
TWO = ("--workers", "2")


@pytest.fixture(params=[ONE, TWO], ids=["one process", "two workers"])
def server(request, picowsgi, tmp_path):
    (tmp_path / "forks.py").write_text(APP)
    return picowsgi("forks:app", *request.param, directory=tmp_path)


def test_the_application_can_use_a_process_pool_while_the_server_serves(server):
    for _ in range(3):
        assert ask(server.port, "/pool") == "285"
        assert ask(server.port, "/terminate") == str(-signal.SIGTERM)
    assert ask(server.port) == "ok"
    assert server.process.poll() is None
    assert server.stop() == 0


def test_a_child_has_the_default_signal_handlers_and_no_socket_of_the_server(server):
    import json

    with connect(server) as client:  # a connection that is open at the fork
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_response()
        found = json.loads(ask(server.port, "/report"))
    assert found["sockets"] == []
    assert found["blocked"] == []
    assert "default_int_handler" in found["handlers"].pop("SIGINT")
    assert set(found["handlers"].values()) <= {"0", "Handlers.SIG_DFL"}, found["handlers"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/return", 1),
        ("/stream", 1),
        ("/raise", 1),
        ("/exit", 7),
        ("/exit-unheard", 1),
    ],
)
def test_a_child_that_returns_to_the_server_ends(server, path, status):
    for _ in range(3):
        with connect(server) as client:
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() * 2)
            for _ in range(2):
                assert client.read_response().content == str(status).encode()
    report = "forked by the application, has returned to the server"
    expected = 0 if path.startswith("/exit") else 6
    eventually(lambda: server.log.count(report) >= expected, f"{expected} reports in the log")
    assert ask(server.port) == "ok"
    assert server.log.count(report) == expected


def test_the_report_of_such_a_child_is_not_lost_while_another_process_writes(server):
    log = os.open(f"/proc/self/fd/{server.process.stderr.fileno()}", os.O_WRONLY)
    try:
        with connect(server) as client:
            fcntl.lockf(log, fcntl.LOCK_EX)  # as a process does that writes to the log
            client.send(b"GET /return HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(2 * line_output.WAIT)
            fcntl.lockf(log, fcntl.LOCK_UN)
            assert client.read_response().content == b"1"
    finally:
        os.close(log)
    server.wait_for_log("forked by the application, has returned to the server")


def test_a_child_of_the_function_close_forks_may_exit(server):
    with connect(server) as client:
        client.send(b"GET /fork-in-close HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().content == b"of the parent"
        client.send(b"GET /closed HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().content == b"9"


def test_clients_see_the_end_of_connections_that_a_child_has_inherited(server):
    with connect(server) as client, connect(server) as idle:
        idle.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        idle.read_response()
        client.send(b"GET /stay HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        child = int(client.read_response().content)
        try:
            client.read_nothing_more()
            server.process.terminate()
            idle.read_nothing_more()
            assert server.wait() == 0
            assert lives(child)
            with socket.socket() as again:  # the address is free
                again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                again.bind(("127.0.0.1", server.port))
                again.listen()
        finally:
            os.kill(child, signal.SIGKILL)
        eventually(lambda: not lives(child), "the child to end")


PROGRAM = """
import os, sys, threading, urllib.request
from picowsgi import Server

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

with Server(app, port=0) as server:
    pid = os.fork()
    if pid == 0:
        server.stop()
        try:
            server.start()
        except RuntimeError:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    pid = os.fork()
    if pid == 0:
        sys.exit(5)  # through __exit__
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert urllib.request.urlopen(server.url).read() == b"ok"
print("done")
"""

STAND_IN = """
import os, signal, sys, threading, time, urllib.request
from picowsgi.simple_server import make_server, WSGIRequestHandler

class Handler(WSGIRequestHandler):
    def log_message(self, *_): pass

class Deaf:
    def write(self, text):
        raise KeyboardInterrupt

    flush = write

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fork":
        pid = os.fork()
        start_response("200 OK", [])
        if pid == 0:
            return [b"child"]
        return [str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()]
    if environ["PATH_INFO"] == "/fork-unheard":
        pid = os.fork()
        start_response("200 OK", [])
        if pid == 0:
            sys.stderr = Deaf()
            sys.exit("no reader gets this")
        return [str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()]
    if environ["PATH_INFO"] == "/shutdown":
        pid = os.fork()
        start_response("200 OK", [])
        if pid == 0:
            server.shutdown()
            server.server_close()
            os._exit(6)
        return [str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()]
    start_response("200 OK", [])
    return [b"ok"]

server = make_server("127.0.0.1", 0, app, handler_class=Handler)
def serve():
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        os._exit(8)  # of the child

threading.Thread(target=serve, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
for _ in range(2):
    assert urllib.request.urlopen(url + "/fork").read() == b"1"
    assert urllib.request.urlopen(url + "/fork-unheard").read() == b"1"
    assert urllib.request.urlopen(url + "/shutdown").read() == b"6"
assert urllib.request.urlopen(url).read() == b"ok"
server.shutdown()
print("done")
"""

AT_IMPORT = """
import os
os.fork()

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize("program", [PROGRAM, STAND_IN], ids=["Server", "simple_server"])
def test_a_server_in_a_forked_child_is_over_and_does_not_hang(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT * 2,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("options", [ONE, TWO, (*TWO, "--preload")])
def test_a_child_forked_while_the_application_is_imported_does_not_serve(
    picowsgi, tmp_path, options
):
    (tmp_path / "forks.py").write_text(AT_IMPORT)
    server = picowsgi("forks:app", *options, directory=tmp_path)
    server.wait_for_log("has returned to the server")
    assert ask(server.port)
    assert server.stop() == 0


INTERRUPTED = """
import os, signal, sys, urllib.request
from picowsgi import Server
from picowsgi.system.signals import DefaultInChildren

OWN = ("fork_guard.py", "core/server.py", "signals.py")
left = 0

class Interrupt(BaseException):
    pass

def trace(frame, event, argument):
    # A signal handler may do this between any two lines.
    global left
    if not frame.f_code.co_filename.endswith(OWN):
        return None
    if event == "line" and left > 0:
        left -= 1
        if left == 0:
            raise Interrupt
    return trace

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

def sockets():
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return found

sys.unraisablehook = lambda _what: None
own = DefaultInChildren([signal.SIGUSR2], lambda: None)
signal.signal(signal.SIGUSR2, lambda *_: None)
with Server(app, port=0) as server:
    number, done = 0, False
    while not done:
        number += 1
        left = number
        sys.settrace(trace)
        pid = os.fork()
        sys.settrace(None)
        if pid == 0:
            right = signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL and sockets() == 0
            right &= signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os._exit(3 if right else 4)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 3, f"the child of fork {number} has something of the server"
        assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        done = left > 0
        assert urllib.request.urlopen(server.url, timeout=10).read() == b"ok"
    assert number > 20, number
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_exception_from_a_signal_handler_leaves_a_fork_complete_at_any_point(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    result = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT * 3,
        env=outer_environ(),
        check=False,
    )
    assert result.stdout == "done\n", result.stderr
