"""Reload, upgrade and the other signals of a running server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import (
    APP,
    PROCESS_TIMEOUT,
    Load,
    ask,
    children,
    eventually,
    lives,
    threads,
    write_app,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MODES = pytest.mark.parametrize(
    "options",
    [(), ("--workers", "2"), ("--workers", "2", "--preload")],
    ids=["one process", "two workers", "preload"],
)
# A busy machine may let a client wait longer than the default of a quarter of a second.
PATIENT = ("--timeout-drain", "1")


def version(number):
    return APP.replace('VERSION = "1"', f'VERSION = "{number}"')


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    """Start the command in a folder with app.py: `serve_app("--workers", "2")`."""

    def start(*options, app=APP, **more):
        write_app(tmp_path, app)
        return picowsgi("app:app", *PATIENT, *options, directory=tmp_path, **more)

    return start


@pytest.fixture
def end_later():
    """Kill the rest of processes that are not our children."""
    pids = []
    yield pids.append
    for pid in pids:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda p=pid: not lives(p), "the process to end")


# --- SIGHUP -------------------------------------------------------------------------------------


@MODES
def test_three_reloads_serve_the_new_application_each_time_and_no_request_fails(
    serve_app, tmp_path, options
):
    command = serve_app(*options)
    with Load(command.port) as load:
        for number in (2, 3, 4):
            write_app(tmp_path, version(number))
            command.process.send_signal(signal.SIGHUP)
            command.wait_for_log("info: reloaded", number - 1)
            eventually(lambda n=number: ask(command.port) == str(n), "the new application")
            load.wait_for_more()
    assert command.process.poll() is None
    assert command.stop() == 0, command.log
    assert "error" not in command.log, command.log


@MODES
def test_a_failed_reload_changes_nothing(serve_app, tmp_path, options):
    command = serve_app(*options)
    serving = int(ask(command.port, "/pid"))
    write_app(tmp_path, "raise LookupError('broken meanwhile')\n")
    with Load(command.port) as load:
        command.process.send_signal(signal.SIGHUP)
        command.wait_for_log("error: the reload has failed: importing app failed with LookupError")
        load.wait_for_more()
    assert "LookupError: broken meanwhile" in command.log, "expected the traceback, too"
    assert lives(serving)
    write_app(tmp_path, version(2))
    command.process.send_signal(signal.SIGHUP)
    command.wait_for_log("info: reloaded")
    eventually(lambda: ask(command.port) == "2", "the new application")
    assert command.stop() == 0


def test_after_a_reload_the_first_process_keeps_neither_threads_nor_the_application(
    serve_app, tmp_path
):
    app = APP + (
        "import atexit, threading\n"
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        "atexit.register(lambda: (HERE / 'ended').write_text(str(os.getpid())))\n"
    )
    command = serve_app(app=app)
    first = command.process.pid
    assert int(ask(command.port, "/pid")) == first
    command.process.send_signal(signal.SIGHUP)
    eventually(lambda: threads(first) == 1, "its threads to end")
    assert (tmp_path / "ended").read_text() == str(first)
    (second,) = children(first)
    assert int(ask(command.port, "/pid")) == second
    os.kill(second, signal.SIGKILL)
    eventually(lambda: set(children(first)) - {second}, "another process to serve")
    assert int(ask(command.port, "/pid")) in children(first)
    assert command.stop() == 0


def test_a_reload_starts_in_the_directory_and_environment_of_the_first_start(picowsgi, tmp_path):
    """As in a deployment: the directory is a link, which has another target the next time."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        write_app(
            tmp_path / name,
            version(name) + "os.environ['CHANGED'] = os.environ.get('CHANGED', '') + 'x'\n"
            "VERSION += os.environ['CHANGED']\n",
        )
    link = tmp_path / "current"
    link.symlink_to("1")
    command = picowsgi("app:app", directory=link, environ={"PWD": str(link)})
    assert ask(command.port) == "1x"
    link.unlink()
    link.symlink_to("2")
    command.process.send_signal(signal.SIGHUP)
    eventually(lambda: ask(command.port) == "2x", "the application of the other directory")


def test_the_server_ends_when_its_terminal_is_closed(tmp_path):
    write_app(tmp_path)
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "picowsgi", "--port", "0", "app:app"],
        cwd=tmp_path,
        stdin=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(its)
    try:
        text = b""
        while b"Ctrl-C" not in text:
            text += os.read(ours, 1000)
        os.close(ours)
        assert process.wait(PROCESS_TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()


# --- SIGUSR2 ------------------------------------------------------------------------------------


@MODES
def test_a_successor_serves_beside_the_old_program_and_then_alone(
    serve_app, tmp_path, options, end_later
):
    pid_file = tmp_path / "server.pid"
    command = serve_app(*options, "--pid", pid_file)
    old = command.process.pid
    write_app(tmp_path, version(2))
    with Load(command.port) as load:
        command.process.send_signal(signal.SIGUSR2)
        command.wait_for_log("serves too")
        new = int(pid_file.read_text())
        end_later(new)
        assert new in children(old)
        assert (tmp_path / "server.pid.old").read_text() == f"{old}\n"
        load.wait_for_more()
        command.process.terminate()
        command.process.wait(PROCESS_TIMEOUT)
        assert command.process.returncode == 0
        load.wait_for_more()
        assert ask(command.port) == "2"
    assert pid_file.read_text() == f"{new}\n"
    assert not (tmp_path / "server.pid.old").exists()
    os.kill(new, signal.SIGTERM)
    eventually(lambda: not lives(new), "the successor to end")
    assert not pid_file.exists()


@MODES
def test_a_successor_that_cannot_start_or_dies_changes_nothing(serve_app, tmp_path, options):
    pid_file = tmp_path / "server.pid"
    socket_file = tmp_path / "s"
    write_app(tmp_path)
    command = serve_app(*options, "--pid", pid_file)
    for app in ("raise LookupError('broken meanwhile')\n", version(2)):
        write_app(tmp_path, app)
        with Load(command.port) as load:
            command.process.send_signal(signal.SIGUSR2)
            if "broken" not in app:
                command.wait_for_log("serves too")
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
                command.wait_for_log("ended with status 0; nothing has changed")
            else:
                command.wait_for_log("ended with status 1; nothing has changed")
            load.wait_for_more()
        eventually(
            lambda: pid_file.read_text() == f"{command.process.pid}\n", "the pid file to return"
        )
    assert not socket_file.exists()
    assert command.stop() == 0


@MODES
def test_the_old_program_serves_until_its_successor_does(serve_app, tmp_path, options, end_later):
    pid_file = tmp_path / "server.pid"
    command = serve_app(*options, "--pid", pid_file)
    write_app(
        tmp_path, version(2) + "while not (HERE / 'release').exists():\n    time.sleep(0.005)\n"
    )
    with Load(command.port) as load:
        command.process.send_signal(signal.SIGUSR2)
        command.wait_for_log("starting the successor")
        command.process.terminate()
        command.wait_for_log("stopping when the successor serves")
        load.wait_for_more()
        (tmp_path / "release").touch()
        assert command.process.wait(PROCESS_TIMEOUT) == 0
        end_later(int(pid_file.read_text()))
        load.wait_for_more()
        assert ask(command.port) == "2"


def test_the_file_of_a_unix_socket_stays_until_both_processes_have_ended(
    command, tmp_path, end_later
):
    write_app(tmp_path)
    path = tmp_path / "s"
    pid_file = tmp_path / "server.pid"
    one = command(
        *("-m", "picowsgi", "app:app", "--pid", pid_file),
        *("--bind", "127.0.0.1:0", "--bind", f"unix:{path}"),
        directory=tmp_path,
    )
    one.process.send_signal(signal.SIGUSR2)
    one.wait_for_log("serves too", 1)
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    one.wait_for_log("nothing has changed")
    assert path.exists(), "expected the old program to listen"
    one.process.send_signal(signal.SIGUSR2)
    one.wait_for_log("serves too", 2)
    new = int(pid_file.read_text())
    end_later(new)
    one.process.terminate()
    one.process.wait(PROCESS_TIMEOUT)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PROCESS_TIMEOUT)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"1")
    os.kill(new, signal.SIGTERM)
    eventually(lambda: not lives(new), "the successor to end")
    assert not path.exists()


INHERITED = (
    APP
    + """
NUMBERS = [int(name) for name in os.listdir("/proc/self/fd")]
for number in NUMBERS:
    try:
        if number > 2 and os.get_inheritable(number):
            (HERE / "inheritable").write_text(os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass  # of the listing itself
(HERE / f"imported-{os.getpid()}").touch()
"""
)


@MODES
@pytest.mark.parametrize("how", [signal.SIGUSR2, signal.SIGHUP], ids=lambda each: each.name)
def test_child_processes_of_the_application_inherit_no_descriptor_of_the_server(
    serve_app, tmp_path, options, how, end_later
):
    pid_file = tmp_path / "server.pid"
    command = serve_app(*options, "--pid", pid_file, app=INHERITED)
    imported = len(list(tmp_path.glob("imported-*")))
    command.process.send_signal(how)
    eventually(lambda: len(list(tmp_path.glob("imported-*"))) >= 2 * imported, "a second import")
    if how == signal.SIGUSR2:
        command.wait_for_log("serves too")
        end_later(int(pid_file.read_text()))
    assert not (tmp_path / "inheritable").exists()
    assert command.stop() == 0


# --- SIGQUIT, SIGUSR1 and signals without a meaning -----------------------------------------------


@MODES
def test_sigquit_writes_the_stacks_of_all_threads_and_ends_nothing(serve_app, options):
    command = serve_app(*options)
    command.process.send_signal(signal.SIGQUIT)
    # One process or several, each writes one marked as the current thread.
    command.wait_for_log("Current thread 0x", 1 if not options else 3)
    assert "pool.py" in command.log, "expected the serving thread"
    assert ask(command.port) == "1"
    assert command.stop() == 0


@MODES
def test_sigusr1_opens_log_files_again(serve_app, tmp_path, options):
    app = APP + (
        "import logging\n"
        "logging.getLogger().addHandler(logging.FileHandler(HERE / 'log'))\n"
        "original = app\n"
        "def app(environ, start_response):\n"
        "    logging.getLogger().warning('a line')\n"
        "    return original(environ, start_response)\n"
    )
    command = serve_app(*options, app=app)
    log = Path(tmp_path / "log")
    ask(command.port)
    assert log.read_text() == "a line\n"
    log.rename(tmp_path / "log.1")
    command.process.send_signal(signal.SIGUSR1)
    eventually(log.exists, "the file to be created again")

    def is_in_use():
        ask(command.port)
        return "a line\n" in log.read_text()

    eventually(is_in_use, "the new file to be used")
    assert command.stop() == 0


@MODES
def test_log_files_that_cannot_be_opened_again_stay_in_use(serve_app, tmp_path, options):
    app = APP + (
        "import logging\n"
        "logging.getLogger().addHandler(logging.FileHandler(HERE / 'logs' / 'log'))\n"
        "original = app\n"
        "def app(environ, start_response):\n"
        "    logging.getLogger().warning('a line')\n"
        "    return original(environ, start_response)\n"
    )
    logs = tmp_path / "logs"
    logs.mkdir()
    access = ("--access-log", "--access-log-file", logs / "access")
    command = serve_app(*options, *access, app=app)
    ask(command.port)
    moved = logs.rename(tmp_path / "moved")
    command.process.send_signal(signal.SIGUSR1)
    count = 2 if "--workers" in options else 1
    command.wait_for_log("cannot open a log file again: ", count)
    command.wait_for_log("cannot open the access log again: ", count)
    before = (moved / "log").read_text().count("a line\n")
    ask(command.port)
    assert (moved / "log").read_text().count("a line\n") == before + 1
    assert command.stop() == 0
    assert (moved / "access").read_text().count("GET /") == 2


@MODES
def test_signals_that_arrive_while_the_application_loads_are_handled_later(
    serve_app, tmp_path, options
):
    app = APP + (
        "import os, signal\n"
        "loads = HERE / 'loads'\n"
        "is_first = not loads.exists()\n"
        "with loads.open('a') as file:\n"
        "    file.write('once\\n')\n"
        "if is_first:\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    command = serve_app(*options, app=app)
    assert ask(command.port) == "1"
    wanted = 3 if "2" in options and "--preload" not in options else 2

    def is_reloaded():
        return (tmp_path / "loads").read_text().count("once") >= wanted

    eventually(is_reloaded, "the reload of the application")
    assert ask(command.port) == "1"
    assert command.stop() == 0


def test_a_server_without_workers_refuses_to_change_their_number(serve_app):
    command = serve_app()
    command.process.send_signal(signal.SIGTTIN)
    command.wait_for_log("this server has no workers")
    assert ask(command.port) == "1"
