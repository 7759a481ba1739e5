"""Stopping never cuts: whatever signals come, every request that was accepted gets its response."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from picowsgi import simple_server
from processes import PATIENCE, ask, children, eventually, lives, write_app
from support import RawClient, exchange, open_descriptors, outer_environ

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TWO = ("--workers", "2")
MODES = pytest.mark.parametrize(
    "options",
    [(), TWO, (*TWO, "--preload")],
    ids=["one process", "two workers", "preload"],
)
# So long a server that would cut what is open lets it live at most, and a little longer.
HELD = 1.3
GET = b"GET /hold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

#: Holds requests until the test releases them; a file tells of each that runs.
APP = """
import itertools, os, time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
numbers = itertools.count()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        with suppress(OSError):  # there may be no descriptor for it
            (HERE / f"held-{os.getpid()}-{next(numbers)}").touch()
        while not (HERE / "release").exists():
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    """Start the command in a folder with app.py: `serve_app("--workers", "2")`."""

    def start(*options, app=APP, **more):
        write_app(tmp_path, app)
        return picowsgi("app:app", *options, directory=tmp_path, **more)

    return start


class Held:
    """Requests that a server is at, or that wait for it, until they are released."""

    def __init__(self, directory, port, count, running=None):
        self._directory = directory
        self._stack = ExitStack()
        self.clients = [self._stack.enter_context(RawClient(port)) for _ in range(count)]
        for client in self.clients:
            client.send(GET)
        running = count if running is None else running
        eventually(lambda: len(self.running()) >= running, f"{running} requests to run")

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        (self._directory / "release").touch()
        self._stack.close()

    def running(self):
        """The processes that the requests run in which have reached the application."""
        return [int(file.name.split("-")[1]) for file in self._directory.glob("held-*")]

    def check_that_all_are_answered(self):
        (self._directory / "release").touch()
        for number, client in enumerate(self.clients):
            response = client.read_response()
            assert (response.status, response.complete) == (200, True), f"request {number}"


def is_refused(port):
    """Tell whether a new connection is refused."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def hold_on(command, seconds=HELD):
    """Give a server that cuts what is open the time to do so."""
    time.sleep(seconds)
    assert command.process.poll() is None, f"expected it to wait for its requests: {command.log}"


# --- signals --------------------------------------------------------------------------------------


def to_process(command, number):
    command.process.send_signal(number)


def to_group(command, number):
    os.killpg(command.process.pid, number)


def to_workers(command, number):
    for pid in children(command.process.pid):
        os.kill(pid, number)


TERM, INT = signal.SIGTERM, signal.SIGINT


@MODES
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(to_process, TERM)], id="once"),
        pytest.param([(to_process, TERM)] * 5, id="five times"),
        pytest.param([(to_group, TERM)], id="to the group"),
        pytest.param([(to_group, TERM)] * 5, id="five times to the group"),
        pytest.param(
            [(to_process, TERM), (to_workers, TERM), (to_workers, TERM)], id="then to the workers"
        ),
        pytest.param([(to_group, INT), (to_process, TERM), (to_group, TERM)], id="after SIGINT"),
        pytest.param([(to_group, TERM), (to_group, INT)], id="before SIGINT"),
        pytest.param([(to_group, INT)] * 3, id="SIGINT without a terminal"),
    ],
)
def test_running_requests_are_answered_whatever_signals_come(serve_app, tmp_path, options, steps):
    command = serve_app(*options)
    with Held(tmp_path, command.port, 4) as held:
        for send, number in steps:
            send(command, number)
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)  # or the system and the server make one signal of several
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    assert "error" not in command.log, command.log


@pytest.mark.skipif(shutil.which("dumb-init") is None, reason="needs dumb-init")
@MODES
@pytest.mark.parametrize("flags", [(), ("--single-child",)], ids=["group", "single child"])
def test_under_dumb_init_running_requests_are_answered(command, tmp_path, options, flags):
    write_app(tmp_path, APP)
    run = "import os, sys; os.execvp('dumb-init', ['dumb-init', *sys.argv[1:]])"
    picowsgi = (sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options)
    command = command("-c", run, *flags, *picowsgi, directory=tmp_path)
    with Held(tmp_path, command.port, 4) as held:
        for _ in range(2):
            command.process.terminate()
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0, command.log


UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


def can_be_first():
    """Tell whether this process may start another one as the first of a container."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def start_as_first(command, directory, *options, **more):
    run = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    picowsgi = (sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options)
    return command("-c", run, *UNSHARE, *picowsgi, directory=directory, **more)


@pytest.mark.skipif(not can_be_first(), reason="needs the right to make a PID namespace")
@MODES
def test_as_process_1_it_answers_running_requests(command, tmp_path, options):
    write_app(tmp_path, APP)
    command = start_as_first(command, tmp_path, *options)
    (first,) = children(command.process.pid)
    with Held(tmp_path, command.port, 4) as held:
        for _ in range(3):
            os.kill(first, TERM)
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0, command.log


@pytest.mark.skipif(not can_be_first(), reason="needs the right to make a PID namespace")
@pytest.mark.parametrize("options", [(), (*TWO, "--preload")], ids=["one process", "preload"])
def test_process_1_can_be_stopped_while_it_loads_the_application(command, tmp_path, options):
    write_app(tmp_path, "import time\nfrom pathlib import Path\nPath('loads').touch()\n" + LOAD)
    command = start_as_first(command, tmp_path, *options, listens=False)
    eventually((tmp_path / "loads").exists, "the application to be loaded")
    (first,) = children(command.process.pid)
    os.kill(first, TERM)
    command.wait()
    assert not lives(first)


LOAD = "while True:\n    time.sleep(0.01)\n"


@MODES
def test_signals_that_come_until_the_process_is_gone_leave_its_status_and_files_right(
    command, tmp_path, options
):
    app = APP + "import atexit\natexit.register(lambda: (time.sleep(0.2), print('at the end')))\n"
    write_app(tmp_path, app)
    path, pid_file = tmp_path / "s", tmp_path / "pid"
    binds = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    command = command(
        *("-m", "picowsgi", "app:app", "--pid", pid_file, *binds, *options),
        directory=tmp_path,
        stdout=True,
    )
    assert ask(command.port)
    deadline = time.monotonic() + PATIENCE
    while command.process.poll() is None and time.monotonic() < deadline:
        os.killpg(command.process.pid, TERM)
        time.sleep(0.002)
    assert command.wait() == 0, command.log
    assert not path.exists()
    assert not pid_file.exists()
    assert "at the end" in command.log


def test_a_stop_while_a_reloaded_process_drops_its_application_is_not_lost(picowsgi, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, time\n"
        "from pathlib import Path\n"
        "def end():\n"
        "    dropped = Path(__file__).with_name('dropped')\n"
        "    if not dropped.exists():\n"
        "        dropped.touch()\n"
        "        time.sleep(0.5)\n"
        "atexit.register(end)\n"  # before anything else, so that it is called last
    )
    write_app(tmp_path, APP)
    command = picowsgi("app:app", directory=tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    command.process.send_signal(signal.SIGHUP)
    eventually((tmp_path / "dropped").exists, "the application to be dropped")
    assert command.stop() == 0


def test_a_thread_of_the_application_that_never_ends_can_be_ended_by_a_later_signal(serve_app):
    app = APP + "import threading\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n"
    command = serve_app(app=app)
    command.process.terminate()
    eventually(lambda: not listens(command.port), "the socket to be closed")
    deadline = time.monotonic() + PATIENCE
    while command.process.poll() is None and time.monotonic() < deadline:
        command.process.terminate()
        time.sleep(0.1)
    assert command.wait() == -TERM


def test_a_server_that_is_to_stop_refuses_new_connections(serve):
    running, over = threading.Event(), threading.Event()

    def app(_environ, start_response):
        running.set()
        assert over.wait(PATIENCE)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app, timeout_graceful=60)
    with RawClient(server.port) as client:
        client.send(GET)
        assert running.wait(PATIENCE)
        server.request_stop()
        eventually(lambda: is_refused(server.port), "new connections to be refused")
        over.set()
        assert client.read_response().content == b"ok"
    assert server.join(PATIENCE)


def test_serve_gives_a_program_its_handlers_back(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, signal, sys, threading, urllib.request, picowsgi\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'']\n"
        "def handle(number, frame):\n"
        "    print('handled', flush=True)\n"
        "signal.signal(signal.SIGTERM, handle)\n"
        "def stop():\n"
        "    urllib.request.urlopen(sys.argv[1]).close()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=stop).start()\n"
        "picowsgi.serve(app, bind=['fd://' + sys.argv[2]])\n"
        "print('served', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url, number = f"http://127.0.0.1:{listening.getsockname()[1]}", listening.fileno()
        done = subprocess.run(
            [sys.executable, tmp_path / "script.py", url, str(number)],
            pass_fds=[number],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    assert done.stdout == "served\nhandled\n"


# --- while a worker retires -----------------------------------------------------------------------


def reload(command):
    command.process.send_signal(signal.SIGHUP)
    command.wait_for_log("info: reloaded")


def wear_out(command):
    first = set(children(command.process.pid))

    def are_worn():
        ask(command.port)
        return all(f"worker {pid} is to be replaced" in command.log for pid in first)

    eventually(are_worn, "both workers to have had enough requests")
    eventually(lambda: len(set(children(command.process.pid)) - first) >= 2, "others to serve")


def have_one_less(command):
    command.process.send_signal(signal.SIGTTOU)
    command.wait_for_log("info: workers: 1")


@pytest.mark.parametrize(
    ("options", "retire"),
    [
        pytest.param((), reload, id="one process reloads"),
        pytest.param(TWO, reload, id="two workers reload"),
        pytest.param((*TWO, "--preload"), reload, id="preload reloads"),
        pytest.param((*TWO, "--max-requests", "20"), wear_out, id="two workers are worn"),
        pytest.param(TWO, have_one_less, id="one worker less"),
    ],
)
@pytest.mark.parametrize("send", [to_process, to_group])
def test_a_stop_while_a_worker_retires_cuts_nothing(serve_app, tmp_path, options, retire, send):
    command = serve_app(*options)
    with Held(tmp_path, command.port, 4) as held:
        retire(command)
        hold_on(command, 0.2)
        for _ in range(2):
            send(command, TERM)
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    assert "error" not in command.log, command.log


@MODES
def test_a_stop_of_a_server_and_its_successor_cuts_nothing(serve_app, tmp_path, options):
    pid_file = tmp_path / "server.pid"
    command = serve_app(*options, "--pid", pid_file)
    with Held(tmp_path, command.port, 4) as held:
        command.process.send_signal(signal.SIGUSR2)
        command.wait_for_log("serves, too")
        successor = int(pid_file.read_text())
        for _ in range(2):
            to_group(command, TERM)
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    eventually(lambda: not lives(successor), "the successor to end")


def test_a_worker_that_a_signal_stops_is_replaced_and_answers_its_requests(serve_app, tmp_path):
    command = serve_app(*TWO)
    with Held(tmp_path, command.port, 1) as held:
        (busy,) = held.running()
        for _ in range(3):
            os.kill(busy, TERM)
            time.sleep(0.15)
        eventually(lambda: len(children(command.process.pid)) == 3, "another worker")
        assert int(ask(command.port)) != busy
        held.check_that_all_are_answered()
    eventually(lambda: not lives(busy), "the worker to end")
    assert command.stop() == 0
    assert "error" not in command.log, command.log


# --- in a terminal --------------------------------------------------------------------------------


class Terminal:
    """The command in the foreground of a terminal of its own; Ctrl-C is what the terminal makes."""

    def __init__(self, directory, *options):
        write_app(directory, APP)
        self._keyboard, inner = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options],
            cwd=directory,
            env=outer_environ(),
            stdin=inner,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.log = ""
        while "Ctrl-C" not in self.log:
            self.log += self.process.stderr.readline().decode()
        self.port = int(self.log.partition("http://127.0.0.1:")[2].split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self._keyboard)

    def press_ctrl_c(self):
        os.write(self._keyboard, b"\x03")


@MODES
def test_ctrl_c_waits_for_requests_and_pressed_again_does_not(tmp_path, options):
    with Terminal(tmp_path, *options) as terminal, Held(tmp_path, terminal.port, 4) as held:
        terminal.press_ctrl_c()
        eventually(lambda: is_refused(terminal.port), "new connections to be refused")
        for _ in range(2):
            to_group(terminal, TERM)
            hold_on(terminal, HELD / 2)
        running = children(terminal.process.pid)
        terminal.press_ctrl_c()
        assert terminal.process.wait(5) == 0
        assert not any(map(lives, running))
        for client in held.clients:
            client.end()
            assert client.received == b""


@MODES
def test_ctrl_c_in_a_terminal_lets_running_requests_finish(tmp_path, options):
    with Terminal(tmp_path, *options) as terminal, Held(tmp_path, terminal.port, 4) as held:
        terminal.press_ctrl_c()
        hold_on(terminal)
        held.check_that_all_are_answered()
        assert terminal.process.wait(PATIENCE) == 0


@pytest.mark.measured
@MODES
def test_one_ctrl_c_that_comes_twice_is_one(tmp_path, options):
    """From the terminal, and from the program that has started the server."""
    with Terminal(tmp_path, *options) as terminal, Held(tmp_path, terminal.port, 4) as held:
        terminal.press_ctrl_c()
        terminal.process.send_signal(INT)
        hold_on(terminal)
        held.check_that_all_are_answered()
        assert terminal.process.wait(PATIENCE) == 0


# --- connections that wait to be accepted ---------------------------------------------------------


@MODES
@pytest.mark.parametrize("send", [to_process, to_group])
def test_at_the_maximum_those_that_wait_are_answered_before_the_end(
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
def test_at_the_maximum_a_reload_leaves_those_that_wait_to_the_new_ones(
    serve_app, tmp_path, options
):
    command = serve_app(*options, "--max-connections", "3", "--threads", "3")
    places = 3 if not options else 6
    with Held(tmp_path, command.port, places + 3, running=places) as held:
        old = set(held.running())
        reload(command)
        eventually(lambda: len(held.running()) == places + 3, "those that wait to run")
        assert len(set(held.running()) - old) > 0, "expected them in a new process"
        held.check_that_all_are_answered()
    assert command.stop() == 0


def test_at_the_maximum_a_successor_takes_those_that_wait(serve_app, tmp_path):
    pid_file = tmp_path / "server.pid"
    command = serve_app("--max-connections", "3", "--threads", "3", "--pid", pid_file)
    with Held(tmp_path, command.port, 5, running=3) as held:
        command.process.send_signal(signal.SIGUSR2)
        command.wait_for_log("serves, too")
        successor = int(pid_file.read_text())
        eventually(lambda: len(held.running()) == 5, "those that wait to run")
        assert held.running().count(successor) == 2
        to_process(command, TERM)
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    os.kill(successor, TERM)
    eventually(lambda: not lives(successor), "the successor to end")


def test_without_descriptors_those_that_wait_are_answered_before_the_end(serve_app, tmp_path):
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


def test_those_that_wait_when_the_time_is_over_are_told_of(serve_app, tmp_path):
    command = serve_app("--max-connections", "1", "--timeout-graceful", "0.3")
    with Held(tmp_path, command.port, 2, running=1):
        assert command.stop() == 0
    assert "the server stops while connections wait to be accepted" in command.log


def listens(port):
    """Tell whether a socket listens on a port, without connecting."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )


def test_with_nobody_waiting_a_server_at_its_maximum_refuses_at_once(serve_app, tmp_path):
    command = serve_app("--max-connections", "2", "--threads", "2")
    with Held(tmp_path, command.port, 2) as held:
        to_process(command, TERM)
        eventually(lambda: not listens(command.port), "the socket to be closed")
        held.check_that_all_are_answered()
    assert command.wait() == 0


class Busy:
    """More clients than a server has places; each connects again and again until it is refused."""

    def __init__(self, port, count):
        self._port = port
        self.failures = []
        self.answered = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self):
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _run(self):
        while True:
            client = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
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
def test_clients_that_keep_coming_do_not_delay_the_end_and_none_is_cut(picowsgi, tmp_path, options):
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
    """An application whose responses go on until their clients have left."""

    def __init__(self):
        self._go_on = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def __call__(self, _environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self._events()

    def _events(self):
        yield b"data: begun\n\n"
        self.begun.release()
        while True:
            self._go_on.acquire(timeout=0.02)
            yield b"data: more\n\n"


def begin_streams(port, streams, count):
    clients = [RawClient(port) for _ in range(count)]
    for client in clients:
        client.send(GET)
        client.wait_for_bytes()
        assert streams.begun.acquire(timeout=PATIENCE)
    return clients


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (4, 1), (8, 8)])
@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("first", ["the clients", "the stop", "neither"])
def test_a_server_ends_when_the_clients_of_its_streams_have_left(
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
    assert server.join(PATIENCE), "no connection is open any more"


def test_a_server_with_idle_connections_and_streams_ends_with_the_last_of_them(serve):
    streams = Streams()
    server = serve(streams, threads=4, timeout_graceful=600, timeout_drain=0.3)
    idle = RawClient(server.port)
    clients = begin_streams(server.port, streams, 2)
    server.request_stop()
    for client in clients:
        client.close()
    assert server.join(PATIENCE)
    idle.read_nothing_more()
    idle.close()


@pytest.mark.parametrize("threads", [False, True], ids=["one thread", "threads"])
def test_a_simple_server_ends_when_the_clients_of_its_streams_have_left(monkeypatch, threads):
    import socketserver

    monkeypatch.setenv("PICOWSGI_TIMEOUT_GRACEFUL", "600")
    bases = (socketserver.ThreadingMixIn, simple_server.WSGIServer)[not threads :]
    kind = type("Server", bases, {})

    class Quiet(simple_server.WSGIRequestHandler):
        def log_request(self, *_arguments):
            """Say nothing."""

    streams = Streams()
    with simple_server.make_server("127.0.0.1", 0, streams, kind, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        clients = begin_streams(server.server_port, streams, 1)
        stopper = threading.Thread(target=server.shutdown)
        stopper.start()
        for client in clients:
            client.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        stopper.join(PATIENCE)


@MODES
@pytest.mark.parametrize("gap", [-0.2, 0.0, 0.2])
def test_the_command_ends_when_the_clients_of_its_streams_have_left(
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


def test_gunicorn_ends_when_the_clients_of_its_streams_have_left(command, tmp_path):
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


def test_gunicorn_at_its_maximum_answers_those_that_wait(command, tmp_path):
    pytest.importorskip("gunicorn")
    write_app(tmp_path, APP)
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


def test_request_stop_may_be_wired_to_a_signal_that_comes_often(serve):
    running, over = threading.Event(), threading.Event()

    def app(environ, start_response):
        running.set()
        assert over.wait(PATIENCE)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(app, timeout_graceful=60)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(exchange(server, GET)))
    thread.start()
    assert running.wait(PATIENCE)
    for _ in range(5):
        server.request_stop()
    assert not server.join(0.5)
    over.set()
    thread.join(PATIENCE)
    assert [answer.content for answer in answers] == [b"ok"]
    assert server.join(PATIENCE)
