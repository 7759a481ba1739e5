"""A drain: connections that wait for accept are served, and the last connection ends the drain."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from http.client import HTTPConnection

import pytest

from picowsgi import simple_server
from support import RawClient, exchange, open_descriptors
from support.held import GET, HOLDING_APP, Held, hold_on
from support.processes import PROCESS_TIMEOUT, eventually, is_refused, listens, lives, write_app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TWO = ("--workers", "2")
MODES = pytest.mark.parametrize(
    "options",
    [(), TWO, (*TWO, "--preload")],
    ids=["one process", "two workers", "preload"],
)
TERM = signal.SIGTERM


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    """Start the command in a folder with app.py: `serve_app("--workers", "2")`."""

    def start(*options, app=HOLDING_APP, **more):
        write_app(tmp_path, app)
        return picowsgi("app:app", *options, directory=tmp_path, **more)

    return start


def to_process(command, number):
    command.process.send_signal(number)


def to_group(command, number):
    os.killpg(command.process.pid, number)


def reload(command):
    command.process.send_signal(signal.SIGHUP)
    command.wait_for_log("info: reloaded")


def test_a_server_that_is_to_stop_refuses_new_connections(serve):
    running, over = threading.Event(), threading.Event()

    def app(_environ, start_response):
        running.set()
        assert over.wait(PROCESS_TIMEOUT)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app, timeout_graceful=60)
    with RawClient(server.port) as client:
        client.send(GET)
        assert running.wait(PROCESS_TIMEOUT)
        server.request_stop()
        eventually(lambda: is_refused(server.port), "new connections to be refused")
        over.set()
        assert client.read_response().content == b"ok"
    assert server.join(PROCESS_TIMEOUT)


# --- connections that wait to be accepted ---------------------------------------------------------


@MODES
@pytest.mark.parametrize("send", [to_process, to_group])
def test_at_the_maximum_waiting_connections_are_answered_before_the_end(
    serve_app, tmp_path, options, send
):
    command = serve_app(*options, "--max-connections", "3", "--threads", "3")
    places = 3 if not options else 6
    with Held(tmp_path, command.port, places + 10, running=places) as held:
        send(command, TERM)
        hold_on(command)
        assert len(held.running()) == places
        held.check_that_all_are_answered()
        assert len(held.running()) == places + 10
    assert command.wait() == 0
    assert is_refused(command.port)


@MODES
def test_at_the_maximum_a_reload_leaves_waiting_connections_to_the_new_workers(
    serve_app, tmp_path, options
):
    command = serve_app(*options, "--max-connections", "3", "--threads", "3")
    places = 3 if not options else 6
    with Held(tmp_path, command.port, places + 3, running=places) as held:
        old = set(held.running())
        reload(command)
        eventually(lambda: len(held.running()) == places + 3, "the waiting requests to run")
        assert len(set(held.running()) - old) > 0, "expected the requests in a new process"
        held.check_that_all_are_answered()
    assert command.stop() == 0


def test_at_the_maximum_a_successor_takes_the_waiting_connections(serve_app, tmp_path):
    pid_file = tmp_path / "server.pid"
    command = serve_app("--max-connections", "3", "--threads", "3", "--pid", pid_file)
    with Held(tmp_path, command.port, 5, running=3) as held:
        command.process.send_signal(signal.SIGUSR2)
        command.wait_for_log("serves too")
        successor = int(pid_file.read_text())
        eventually(lambda: len(held.running()) == 5, "the waiting requests to run")
        assert held.running().count(successor) == 2
        to_process(command, TERM)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    os.kill(successor, TERM)
    eventually(lambda: not lives(successor), "the successor to end")


def test_without_descriptors_waiting_connections_are_answered_before_the_end(serve_app, tmp_path):
    command = serve_app("--threads", "4")
    pid = command.process.pid
    with Held(tmp_path, command.port, 2) as held:
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        none = (open_descriptors(pid), before[1])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, none)
        clients = [RawClient(command.port) for _ in range(3)]
        for client in clients:
            client.send(GET)
        to_process(command, TERM)
        hold_on(command, 0.5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        held.clients += clients
        held.check_that_all_are_answered()
        for client in clients:
            client.close()
    assert command.wait() == 0


def test_connections_that_still_wait_at_the_deadline_are_reported(serve_app, tmp_path):
    command = serve_app("--max-connections", "1", "--timeout-graceful", "0.3")
    with Held(tmp_path, command.port, 2, running=1):
        assert command.stop() == 0
    assert "the server stops while connections wait to be accepted" in command.log


def test_with_no_waiting_connection_a_server_at_its_maximum_refuses_at_once(serve_app, tmp_path):
    command = serve_app("--max-connections", "2", "--threads", "2")
    with Held(tmp_path, command.port, 2) as held:
        to_process(command, TERM)
        eventually(lambda: not listens(command.port), "the socket to be closed")
        held.check_that_all_are_answered()
    assert command.wait() == 0


class Busy:
    """More clients than a server can serve at once. Each connects until the server refuses it."""

    def __init__(self, port, count):
        self._port = port
        self.failures = []
        self.answered = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join(PROCESS_TIMEOUT)
            assert not thread.is_alive()

    def _run(self):
        while True:
            client = HTTPConnection("127.0.0.1", self._port, timeout=PROCESS_TIMEOUT)
            try:
                client.connect()
            except (ConnectionRefusedError, TimeoutError):
                return
            try:
                client.request("GET", "/", headers={"Connection": "close"})
                assert client.getresponse().read() == b"ok"
            except Exception as error:
                self.failures.append(repr(error))
                return
            finally:
                client.close()
            self.answered += 1


@MODES
def test_clients_that_keep_connecting_do_not_delay_the_end_and_none_is_cut(
    picowsgi, tmp_path, options
):
    write_app(
        tmp_path,
        "import time\n"
        "def app(environ, start_response):\n"
        "    time.sleep(0.05)\n"
        "    start_response('200 OK', [('Content-Length', '2')])\n"
        "    return [b'ok']\n",
    )
    command = picowsgi("app:app", *options, "--max-connections", "4", directory=tmp_path)
    busy = Busy(command.port, 24)
    eventually(lambda: busy.answered > 100, "the clients to be served")
    assert command.stop() == 0
    busy.join()
    assert busy.failures == []


# --- the last connection --------------------------------------------------------------------------


class Streams:
    """An application whose responses continue until their clients have disconnected."""

    def __init__(self):
        self._pause = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def __call__(self, _environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self._events()

    def _events(self):
        yield b"data: begun\n\n"
        self.begun.release()
        while True:
            self._pause.acquire(timeout=0.02)
            yield b"data: more\n\n"


def begin_streams(port, streams, count):
    clients = [RawClient(port) for _ in range(count)]
    for client in clients:
        client.send(GET)
        client.wait_for_bytes()
        assert streams.begun.acquire(timeout=PROCESS_TIMEOUT)
    return clients


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (4, 1), (8, 8)])
@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("first", ["the clients", "the stop", "neither"])
def test_a_server_ends_when_the_clients_of_its_streams_have_disconnected(
    serve, threads, count, leave, first
):
    streams = Streams()
    server = serve(streams, threads=threads, timeout_graceful=600)
    clients = begin_streams(server.port, streams, count)
    if first == "the stop":
        server.request_stop()
        assert not server.join(0.1)
    for number, client in enumerate(clients):
        getattr(client, leave)()
        if first == "neither" and number == count // 2:
            server.request_stop()
    server.request_stop()
    assert server.join(PROCESS_TIMEOUT), "expected no open connection"


def test_a_server_with_idle_connections_and_streams_ends_with_the_last_of_them(serve):
    streams = Streams()
    server = serve(streams, threads=4, timeout_graceful=600, timeout_drain=0.3)
    idle = RawClient(server.port)
    clients = begin_streams(server.port, streams, 2)
    server.request_stop()
    for client in clients:
        client.close()
    assert server.join(PROCESS_TIMEOUT)
    idle.read_nothing_more()
    idle.close()


@pytest.mark.parametrize("threads", [False, True], ids=["one thread", "threads"])
def test_a_simple_server_ends_when_the_clients_of_its_streams_have_disconnected(
    monkeypatch, threads
):
    import socketserver

    monkeypatch.setenv("PICOWSGI_TIMEOUT_GRACEFUL", "600")
    bases = (socketserver.ThreadingMixIn, simple_server.WSGIServer)[not threads :]
    kind = type("Server", bases, {})

    class Quiet(simple_server.WSGIRequestHandler):
        def log_request(self, *_arguments):
            """Log nothing."""

    streams = Streams()
    with simple_server.make_server("127.0.0.1", 0, streams, kind, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        clients = begin_streams(server.server_port, streams, 1)
        stopper = threading.Thread(target=server.shutdown)
        stopper.start()
        for client in clients:
            client.close()
        thread.join(PROCESS_TIMEOUT)
        assert not thread.is_alive()
        stopper.join(PROCESS_TIMEOUT)


@MODES
@pytest.mark.parametrize("gap", [-0.2, 0.0, 0.2])
def test_the_command_ends_when_the_clients_of_its_streams_have_disconnected(
    picowsgi, tmp_path, options, gap
):
    write_app(
        tmp_path,
        "import time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/event-stream')])\n"
        "    while True:\n"
        "        yield b'data: x\\n\\n'\n"
        "        time.sleep(0.05)\n",
    )
    command = picowsgi("app:app", *options, "--timeout-graceful", "60", directory=tmp_path)
    clients = [RawClient(command.port) for _ in range(6)]
    for client in clients:
        client.send(GET)
        client.wait_for_bytes()
    if gap < 0:
        command.process.terminate()
        time.sleep(-gap)
    for client in clients:
        client.close()
    time.sleep(max(gap, 0.0))
    assert command.stop() == 0


def test_gunicorn_ends_when_the_clients_of_its_streams_have_disconnected(command, tmp_path):
    pytest.importorskip("gunicorn")
    write_app(
        tmp_path,
        "import time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/event-stream')])\n"
        "    while True:\n"
        "        yield b'data: x\\n\\n'\n"
        "        time.sleep(0.05)\n",
    )
    command = command(
        *("-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "6"),
        *("--worker-class", "picowsgi.contrib.gunicorn.Worker", "--graceful-timeout", "60"),
        "app:app",
        directory=tmp_path,
    )
    clients = [RawClient(command.port) for _ in range(4)]
    for client in clients:
        client.send(GET)
        client.wait_for_bytes()
    to_group(command, TERM)
    time.sleep(0.2)
    for client in clients:
        client.close()
    assert command.wait() == 0


def test_gunicorn_at_its_maximum_answers_waiting_connections(command, tmp_path):
    pytest.importorskip("gunicorn")
    write_app(tmp_path, HOLDING_APP)
    command = command(
        *("-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "2", "--worker-connections=2"),
        *("--worker-class", "picowsgi.contrib.gunicorn.Worker"),
        "app:app",
        directory=tmp_path,
    )
    with Held(tmp_path, command.port, 8, running=2) as held:
        to_group(command, TERM)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0


def test_request_stop_can_handle_a_signal_that_comes_often(serve):
    running, over = threading.Event(), threading.Event()

    def app(environ, start_response):
        running.set()
        assert over.wait(PROCESS_TIMEOUT)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app, timeout_graceful=60)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(exchange(server, GET)))
    thread.start()
    assert running.wait(PROCESS_TIMEOUT)
    for _ in range(5):
        server.request_stop()
    assert not server.join(0.5)
    over.set()
    thread.join(PROCESS_TIMEOUT)
    assert [answer.content for answer in answers] == [b"ok"]
    assert server.join(PROCESS_TIMEOUT)
