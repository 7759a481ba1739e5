"""A stop never cuts: running requests get their responses, no matter which signals arrive."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from support import RawClient
from support.held import HELD, HOLDING_APP, Held, hold_on
from support.processes import (
    PROCESS_TIMEOUT,
    ask,
    children,
    eventually,
    is_refused,
    listens,
    lives,
    write_app,
)
from support.stops import (
    INT,
    MODES,
    TERM,
    TWO,
    Terminal,
    can_be_first,
    reload,
    start_as_first,
    to_group,
    to_process,
    to_workers,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    """Start the command in a folder with app.py: `serve_app("--workers", "2")`."""

    def start(*options, app=HOLDING_APP, **more):
        write_app(tmp_path, app)
        return picowsgi("app:app", *options, directory=tmp_path, **more)

    return start


# --- signals --------------------------------------------------------------------------------------


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
def test_running_requests_are_answered_no_matter_which_signals_arrive(
    serve_app, tmp_path, options, steps
):
    command = serve_app(*options)
    with Held(tmp_path, command.port, 4) as held:
        for send, number in steps:
            send(command, number)
            eventually(lambda: is_refused(command.port), "new connections to be refused")
            time.sleep(0.15)  # or the system and the server merge several signals
        hold_on(command)
        held.check_that_all_are_answered()
    assert command.wait() == 0
    assert "error" not in command.log, command.log


@pytest.mark.skipif(shutil.which("dumb-init") is None, reason="needs dumb-init")
@MODES
@pytest.mark.parametrize("flags", [(), ("--single-child",)], ids=["group", "single child"])
def test_running_requests_are_answered_under_dumb_init(command, tmp_path, options, flags):
    write_app(tmp_path, HOLDING_APP)
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


@pytest.mark.skipif(not can_be_first(), reason="needs the right to make a PID namespace")
@MODES
def test_as_process_1_the_server_answers_running_requests(command, tmp_path, options):
    write_app(tmp_path, HOLDING_APP)
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
def test_signals_until_the_exit_of_the_process_do_not_change_its_status_or_files(
    command, tmp_path, options
):
    app = (
        HOLDING_APP
        + "import atexit\natexit.register(lambda: (time.sleep(0.2), print('at the end')))\n"
    )
    write_app(tmp_path, app)
    path, pid_file = tmp_path / "s", tmp_path / "pid"
    binds = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    command = command(
        *("-m", "picowsgi", "app:app", "--pid", pid_file, *binds, *options),
        directory=tmp_path,
        stdout=True,
    )
    assert ask(command.port)
    deadline = time.monotonic() + PROCESS_TIMEOUT
    while command.process.poll() is None and time.monotonic() < deadline:
        os.killpg(command.process.pid, TERM)
        time.sleep(0.002)
    assert command.wait() == 0, command.log
    assert not path.exists()
    assert not pid_file.exists()
    assert "at the end" in command.log


def test_a_stop_while_a_reloaded_process_frees_its_application_is_not_lost(picowsgi, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, time\n"
        "from pathlib import Path\n"
        "def end():\n"
        "    dropped = Path(__file__).with_name('dropped')\n"
        "    if not dropped.exists():\n"
        "        dropped.touch()\n"
        "        time.sleep(0.5)\n"
        "atexit.register(end)\n"  # before all others, so that it is called last
    )
    write_app(tmp_path, HOLDING_APP)
    command = picowsgi("app:app", directory=tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    command.process.send_signal(signal.SIGHUP)
    eventually((tmp_path / "dropped").exists, "the application to be freed")
    assert command.stop() == 0


def test_a_later_signal_ends_a_process_whose_application_has_an_endless_thread(serve_app):
    app = (
        HOLDING_APP
        + "import threading\nthreading.Thread(target=time.sleep, args=(3600,)).start()\n"
    )
    command = serve_app(app=app)
    command.process.terminate()
    eventually(lambda: not listens(command.port), "the socket to be closed")
    deadline = time.monotonic() + PROCESS_TIMEOUT
    while command.process.poll() is None and time.monotonic() < deadline:
        command.process.terminate()
        time.sleep(0.1)
    assert command.wait() == -TERM


def test_serve_restores_the_handlers_of_a_program(tmp_path):
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
            timeout=PROCESS_TIMEOUT,
            check=True,
        )
    assert done.stdout == "served\nhandled\n"


# --- while a worker retires -----------------------------------------------------------------------


def connect_to_each_worker(stack, command):
    """Return a connection to each process that serves."""
    pids = set(children(command.process.pid)) or {command.process.pid}
    found = {}

    def has_all():
        client = stack.enter_context(RawClient(command.port))
        client.send(GET)
        found.setdefault(int(client.read_response().content), client)
        return found.keys() == pids

    eventually(has_all, "a connection to each worker")
    return found.values()


def wear_out(command, clients):
    first = set(children(command.process.pid))
    for client in clients:
        closes = False
        while not closes:
            client.send(GET)
            closes = "close" in client.read_response().tokens("Connection")
    eventually(
        lambda: len(set(children(command.process.pid)) - first) >= 2, "other workers to serve"
    )


def restart(command, _clients):
    reload(command)


def have_one_less(command, _clients):
    command.process.send_signal(signal.SIGTTOU)
    command.wait_for_log("info: workers: 1")


@pytest.mark.parametrize(
    ("options", "retire"),
    [
        pytest.param((), restart, id="one process reloads"),
        pytest.param(TWO, restart, id="two workers reload"),
        pytest.param((*TWO, "--preload"), restart, id="preload reloads"),
        pytest.param((*TWO, "--max-requests", "20"), wear_out, id="two workers reach a limit"),
        pytest.param(TWO, have_one_less, id="one worker less"),
    ],
)
@pytest.mark.parametrize("send", [to_process, to_group])
def test_a_stop_while_a_worker_retires_cuts_nothing(serve_app, tmp_path, options, retire, send):
    command = serve_app(*options)
    with ExitStack() as stack:
        clients = connect_to_each_worker(stack, command)
        held = stack.enter_context(Held(tmp_path, command.port, 4))
        retire(command, clients)
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
        command.wait_for_log("serves too")
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


@MODES
def test_ctrl_c_waits_for_requests_and_a_second_one_does_not(tmp_path, options):
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
        assert terminal.process.wait(PROCESS_TIMEOUT) == 0


@pytest.mark.measured
@MODES
def test_one_ctrl_c_that_arrives_twice_counts_once(tmp_path, options):
    """From the terminal, and from the program that has started the server."""
    with Terminal(tmp_path, *options) as terminal, Held(tmp_path, terminal.port, 4) as held:
        terminal.press_ctrl_c()
        terminal.process.send_signal(INT)
        hold_on(terminal)
        held.check_that_all_are_answered()
        assert terminal.process.wait(PROCESS_TIMEOUT) == 0
