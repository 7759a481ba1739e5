"""Workers are forked, watched and replaced, and no request fails."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import pytest

from support.processes import (
    APP,
    PROCESS_TIMEOUT,
    Load,
    ask,
    children,
    eventually,
    is_refused,
    lives,
    needs_gil,
    write_app,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TWO = ("--workers", "2")


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    """Start the command in a folder with app.py: `serve_app("--workers", "2")`."""

    def start(*options, app=APP, **more):
        write_app(tmp_path, app)
        return picowsgi("app:app", *options, directory=tmp_path, **more)

    return start


def workers(command):
    return children(command.process.pid)


def ask_in_thread(port, path):
    """Send a request and do not wait. The last item of the list will be the response."""
    answers = []

    def run():
        try:
            answers.append(ask(port, path))
        except Exception as error:
            answers.append(repr(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


@contextmanager
def connections(port, count):
    with ExitStack() as stack:
        address = ("127.0.0.1", port)
        yield [
            stack.enter_context(socket.create_connection(address, PROCESS_TIMEOUT))
            for _ in range(count)
        ]


def is_stopped(pid):
    """Return whether a signal has stopped all threads of a process."""
    return all(
        (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def ask_on(client, path):
    """Send a request on a connection that stays open; return the content of the response."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    response = HTTPResponse(client)
    response.begin()
    return response.read().decode()


def run_to_the_end(directory, *options):
    """Run a command that is expected to exit."""
    return subprocess.run(
        [sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
        check=False,
    )


# --- serving ------------------------------------------------------------------------------------


def test_the_others_serve_when_one_worker_blocks(serve_app, tmp_path):
    command = serve_app(*TWO)
    thread, answers = ask_in_thread(command.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    assert int(ask(command.port, "/pid")) in workers(command)
    (tmp_path / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert answers == ["released"]
    assert command.stop() == 0, command.log
    assert command.log.count("serving app:app") == 1, "expected no start line of a worker"


def test_workers_share_persistent_connections_evenly(serve_app):
    command = serve_app(*TWO)
    pids = [str(pid) for pid in workers(command)]
    for count in (2, 6, 40):
        seen = []
        for _ in range(10):  # a worker that the system does not run for long may miss its turn
            # All at once: the first worker that wakes could take all of them.
            with connections(command.port, count) as clients:
                served = Counter(ask_on(client, "/pid") for client in clients)
            seen.append(served)
            if min(served[pid] for pid in pids) >= count * 0.4:
                break
        else:
            pytest.fail(f"expected half of {count} for each worker, got {seen}")


def test_new_connections_go_to_the_worker_whose_threads_are_free(serve_app, tmp_path):
    held_by_each = APP.replace('"held"', 'f"held-{threading.get_ident()}"').replace(
        "import os,", "import os, threading,"
    )
    command = serve_app(*TWO, "--threads", "4", app=held_by_each)
    with connections(command.port, 24) as clients:
        of_worker = defaultdict(list)
        for client in clients:
            of_worker[ask_on(client, "/pid")].append(client)
        busy, *others = sorted(of_worker, key=lambda pid: len(of_worker[pid]))
        assert len(others) == 1, f"expected connections of both workers, got {of_worker}"
        waiting = of_worker[busy][:6]
        assert len(waiting) > 4, f"expected more requests than threads, got {of_worker}"
        for client in waiting:
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: len(list(tmp_path.glob("held-*"))) == 4, "all threads to be busy")
        # The worker has the smaller number of connections, so these would be for it.
        with connections(command.port, 8) as more:
            served = {ask_on(client, "/pid") for client in more}
        (tmp_path / "release").touch()
        assert served == set(others), f"expected no connection for the busy worker {busy}"
        for client in waiting:
            response = HTTPResponse(client)
            response.begin()
            assert response.read() == b"released"


def test_connections_do_not_wait_for_a_stuck_worker(serve_app):
    command = serve_app(*TWO, "--timeout-worker", "600")
    stuck, other = workers(command)
    os.kill(stuck, signal.SIGSTOP)
    try:
        eventually(lambda: is_stopped(stuck), "the worker to be stopped")
        with connections(command.port, 200) as clients:
            served = {ask_on(client, "/pid") for client in clients}
        assert served == {str(other)}, "expected the stopped worker to take no connection"
    finally:
        os.kill(stuck, signal.SIGCONT)


def test_the_application_is_loaded_once_in_each_worker_or_once_with_preload(serve_app):
    app = APP + "sys.stderr.write(f'loaded by {os.getpid()}\\n')\n"
    command = serve_app(*TWO, app=app)
    found = {int(pid) for pid in re.findall(r"loaded by (\d+)", command.log)}
    assert found == set(workers(command))
    command.stop()
    command = serve_app(*TWO, "--preload", app=app)
    assert re.findall(r"loaded by (\d+)", command.log) == [str(command.process.pid)]
    assert len(workers(command)) == 2


def test_sigttin_and_sigttou_change_the_number_of_workers(serve_app):
    command = serve_app(*TWO)
    with Load(command.port) as load:
        for how, number in (
            (signal.SIGTTIN, 3),
            (signal.SIGTTOU, 2),
            (signal.SIGTTOU, 1),
            (signal.SIGTTOU, 1),
        ):
            command.process.send_signal(how)
            eventually(lambda n=number: len(workers(command)) == n, f"{number} workers")
            load.wait_for_more(20)


def test_serve_with_workers_forks_and_reloads_by_forks_and_returns(tmp_path):
    (tmp_path / "script.py").write_text(
        "import atexit, os, sys, picowsgi\n"
        "atexit.register(lambda: print('at the end', os.getpid(), flush=True))\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'%d' % os.getpid()]\n"
        "print(picowsgi.serve(app, workers=2, bind=['fd://' + sys.argv[1]]), flush=True)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, number = listening.getsockname()[1], listening.fileno()
        process = subprocess.Popen(
            [sys.executable, tmp_path / "script.py", str(number)],
            pass_fds=[number],
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        first = int(ask(port))
        assert first in children(process.pid)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: not lives(first), "the first workers to be replaced")
        assert int(ask(port)) != first
        process.terminate()
        assert (
            process.communicate(timeout=PROCESS_TIMEOUT)[0] == f"None\nat the end {process.pid}\n"
        )
    finally:
        process.kill()
        process.communicate()


# --- accidents ----------------------------------------------------------------------------------


@pytest.mark.measured
def test_a_killed_worker_is_replaced_and_the_others_continue_to_serve(serve_app, tmp_path):
    command = serve_app(*TWO)
    thread, answers = ask_in_thread(command.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    idle = int(ask(command.port, "/pid"))
    (busy,) = set(workers(command)) - {idle}
    os.kill(busy, signal.SIGKILL)
    thread.join(PROCESS_TIMEOUT)
    assert answers != ["released"], "expected no response from a killed worker"
    begin = time.monotonic()
    assert ask(command.port) == "1"
    eventually(lambda: len(set(workers(command)) - {busy}) == 2, "another worker")
    assert time.monotonic() - begin < 2
    command.wait_for_log("was killed by signal 9")
    assert idle in workers(command)


def test_an_import_error_is_reported_once_and_ends_the_start(tmp_path):
    (tmp_path / "app.py").write_text("raise LookupError('as the test wants it')\n")
    for options in ((), ("--workers", "3"), ("--workers", "3", "--preload")):
        done = run_to_the_end(tmp_path, *options)
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1, done.stderr
        assert done.stderr.count("LookupError: as the test wants it") == 1
        assert "picowsgi: error: importing app failed with LookupError" in done.stderr


def test_a_worker_that_dies_during_the_import_ends_the_start(tmp_path):
    (tmp_path / "app.py").write_text("import os\nos._exit(7)\n")
    done = run_to_the_end(tmp_path, *TWO)
    assert done.returncode == 1
    assert "ended with status 7 before it had loaded the application" in done.stderr


@needs_gil
def test_a_worker_without_a_heartbeat_writes_its_stacks_and_is_replaced(serve_app):
    command = serve_app(*TWO, "--timeout-worker", "2", "--timeout-graceful", "1")
    before = set(workers(command))
    ask_in_thread(command.port, "/spin")
    command.wait_for_log("has sent no heartbeat")
    command.wait_for_log("was killed by signal 9")
    assert "hold_the_interpreter" in command.log, "expected its stacks"
    eventually(lambda: len(workers(command)) == 2, "another worker")
    assert len(set(workers(command)) & before) == 1
    assert ask(command.port) == "1"


def test_a_worker_that_got_sigstop_is_replaced(serve_app):
    command = serve_app(*TWO, "--timeout-worker", "1.5")
    stopped, other = workers(command)
    os.kill(stopped, signal.SIGSTOP)
    eventually(lambda: not lives(stopped), "the stopped worker to be killed")
    eventually(lambda: len(workers(command)) == 2, "another worker")
    assert other in workers(command)


@pytest.mark.parametrize("options", [TWO, (*TWO, "--preload")])
def test_workers_end_when_their_supervisor_is_killed(serve_app, options):
    command = serve_app(*options)
    orphans = workers(command)
    command.process.kill()
    command.process.wait()
    eventually(lambda: not any(map(lives, orphans)), "the workers to end")


def test_workers_whose_supervisor_is_killed_finish_their_requests(serve_app, tmp_path):
    command = serve_app(*TWO)
    thread, answers = ask_in_thread(command.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    orphans = workers(command)
    command.process.kill()
    command.process.wait()
    eventually(lambda: sum(map(lives, orphans)) == 1, "the idle worker to end")
    (tmp_path / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert answers == ["released"]
    eventually(lambda: not any(map(lives, orphans)), "the other worker to end")


# --- replacement of workers ---------------------------------------------------------------------


def test_a_worker_is_replaced_after_its_number_of_requests_and_no_request_fails(serve_app):
    command = serve_app("--max-requests", "200", "--max-requests-jitter", "20")
    (first,) = workers(command)
    with Load(command.port) as load:
        eventually(lambda: not lives(first), "the first worker to be replaced")
        load.wait_for_more()
    assert "is to be replaced" in command.log
    assert command.stop() == 0


def test_a_worker_that_takes_too_much_memory_is_replaced(serve_app):
    command = serve_app("--max-worker-rss", "120M")
    (first,) = workers(command)
    assert int(ask(command.port, "/pid")) == first
    ask(command.port, "/grow")
    eventually(lambda: not lives(first), "the worker to be replaced")
    command.wait_for_log("bytes in memory")
    assert ask(command.port) == "1"


def test_a_worker_that_is_due_for_replacement_serves_while_no_other_can_start(serve_app, tmp_path):
    command = serve_app("--max-requests", "3")
    (first,) = workers(command)
    write_app(tmp_path, "raise LookupError('broken meanwhile')\n")
    for _ in range(4):
        assert ask(command.port) == "1"
    command.wait_for_log("a new worker cannot start: importing app failed with LookupError")
    assert int(ask(command.port, "/pid")) == first
    write_app(tmp_path)
    eventually(lambda: not lives(first), "the first worker to be replaced in the end")
    assert ask(command.port) == "1"


# --- the end ------------------------------------------------------------------------------------

MODES = pytest.mark.parametrize("options", [(), TWO], ids=["one process", "two workers"])


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@MODES
def test_new_connections_are_refused_while_open_requests_are_finished(serve_app, options):
    command = serve_app(*options)
    with socket.create_connection(("127.0.0.1", command.port), PROCESS_TIMEOUT) as slow:
        slow.sendall(REQUEST)
        assert slow.recv(1000).endswith(b"1")
        slow.sendall(REQUEST[:10])
        command.process.terminate()
        eventually(lambda: is_refused(command.port), "new connections to be refused")
        assert command.process.poll() is None
        slow.sendall(REQUEST[10:])
        answer = b"".join(iter(lambda: slow.recv(1000), b""))
        assert b"Connection: close" in answer
        assert answer.endswith(b"1")
    assert command.wait() == 0


@MODES
def test_at_the_end_running_requests_are_answered(serve_app, tmp_path, options):
    command = serve_app(*options)
    thread, answers = ask_in_thread(command.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    command.process.terminate()
    eventually(lambda: is_refused(command.port), "new connections to be refused")
    if options:
        eventually(lambda: len(workers(command)) == 1, "the idle worker to end")
    assert thread.is_alive()
    assert command.process.poll() is None
    (tmp_path / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert answers == ["released"]
    assert command.wait() == 0


@pytest.mark.measured
@MODES
def test_requests_that_outlast_the_graceful_time_are_cut_and_logged(serve_app, tmp_path, options):
    command = serve_app(*options, "--timeout-graceful", "0.2")
    thread, answers = ask_in_thread(command.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    begin = time.monotonic()
    assert command.stop() == 0
    assert time.monotonic() - begin < 5
    thread.join(PROCESS_TIMEOUT)
    assert answers[0] != "released"
    assert "is left behind at:" in command.log, "expected the place of the request"
    assert "in app" in command.log


@pytest.mark.measured
@MODES
def test_idle_connections_do_not_delay_the_end(serve_app, options):
    command = serve_app(*options, "--timeout-keep-alive", "60")
    with socket.create_connection(("127.0.0.1", command.port), PROCESS_TIMEOUT) as client:
        client.sendall(REQUEST)
        assert client.recv(1000).endswith(b"1")
        begin = time.monotonic()
        assert command.stop() == 0
        assert time.monotonic() - begin < 2
        assert client.recv(1000) == b""


@MODES
def test_a_request_that_arrives_during_a_drain_is_answered(serve_app, options):
    """On a connection that was in use a moment ago, and on a new one."""
    command = serve_app(*options, "--timeout-drain", "5")
    with (
        socket.create_connection(("127.0.0.1", command.port), PROCESS_TIMEOUT) as used,
        socket.create_connection(("127.0.0.1", command.port), PROCESS_TIMEOUT) as new,
    ):
        used.sendall(REQUEST)
        assert b"Connection: close" not in used.recv(1000)
        command.process.terminate()
        eventually(lambda: is_refused(command.port), "the server to drain")
        for client in (used, new):
            client.sendall(REQUEST)
            answer = b"".join(iter(lambda c=client: c.recv(1000), b""))
            assert answer.endswith(b"1"), answer
    assert command.wait() == 0


# --- pid, umask, chdir, user, unix sockets --------------------------------------------------------


@MODES
def test_the_pid_file_names_the_process_and_is_removed_afterwards(serve_app, tmp_path, options):
    path = tmp_path / "server.pid"
    path.write_text("999999999\n")  # left by a process that is gone
    command = serve_app(*options, "--pid", path)
    assert path.read_text() == f"{command.process.pid}\n"
    done = run_to_the_end(tmp_path, "--pid", str(path))
    assert done.returncode == 2
    assert f"names process {command.process.pid}, which is running" in done.stderr
    assert command.stop() == 0
    assert not path.exists()


def test_a_pid_file_that_names_another_process_stays(serve_app, tmp_path):
    path = tmp_path / "server.pid"
    command = serve_app("--pid", path)
    path.write_text("1\n")
    assert command.stop() == 0
    assert path.read_text() == "1\n"


@MODES
def test_directory_and_umask_are_set_before_the_application_is_imported(
    picowsgi, tmp_path, options
):
    inner = tmp_path / "inner"
    inner.mkdir()
    write_app(inner, APP + "Path('made').touch()\n")
    picowsgi("app:app", "--chdir", inner, "--umask", "027", *options, directory=tmp_path)
    assert (inner / "made").stat().st_mode & 0o777 == 0o640


def test_a_directory_that_does_not_exist_is_reported(tmp_path):
    done = run_to_the_end(tmp_path, "--chdir", "absent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--chdir: absent: No such file or directory" in done.stderr


@MODES
def test_a_unix_socket_has_the_given_mode_and_is_removed(command, tmp_path, options):
    path = tmp_path / "s"
    command = command(
        "-m",
        "picowsgi",
        *options,
        "--bind",
        "127.0.0.1:0",
        "--bind",
        f"unix:{path}",
        "--unix-socket-mode",
        "606",
    )
    assert path.stat().st_mode & 0o777 == 0o606
    assert command.stop() == 0
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
@MODES
def test_root_changes_to_the_user_and_the_group_before_the_application_is_imported(
    picowsgi, options
):
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        folder.chmod(0o755)
        write_app(
            folder,
            "import os\n"
            "WHO = f'{os.getresuid()} {os.getresgid()} {os.getgroups()}'\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            "    return [WHO.encode()]\n",
        )
        command = picowsgi(
            "app:app", "--user", "65534", "--group", "65534", *options, directory=folder
        )
        assert ask(command.port) == "(65534, 65534, 65534) (65534, 65534, 65534) [65534]"
        status = Path(f"/proc/{command.process.pid}/status").read_text()
        assert "Uid:\t65534\t65534\t65534\t65534" in status


@pytest.fixture
def nobodys():
    """A folder that user 65534 can enter, with the application, its own `logs`, and a log.json.

    It is not below the folder of the tests, which only root can enter.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        folder.chmod(0o755)
        (folder / "logs").mkdir()
        os.chown(folder / "logs", 65534, 65534)
        write_app(folder, APP + "import logging\nlogging.getLogger('app').warning('a line')\n")
        handler = {"class": "logging.FileHandler", "filename": str(folder / "logs" / "log")}
        config = {"handlers": {"file": handler}, "root": {"handlers": ["file"]}}
        (folder / "log.json").write_text(json.dumps(config))
        (folder / "log.json").chmod(0o600)  # root reads it
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
@MODES
def test_log_files_are_opened_by_the_user_of_the_workers(picowsgi, nobodys, options):
    user = ("--user", "65534", "--group", "65534", "--log-config", "log.json")
    log = nobodys / "logs" / "log"
    command = picowsgi("app:app", *user, *options, directory=nobodys)
    assert (log.stat().st_uid, log.stat().st_gid) == (65534, 65534)
    assert "a line\n" in log.read_text()
    log.unlink()
    command.process.send_signal(signal.SIGUSR1)
    eventually(log.exists, "the file to be created again")
    assert command.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
@MODES
def test_root_follows_no_link_in_the_path_of_a_log(nobodys, options):
    secret = nobodys / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    (nobodys / "logs" / "log").symlink_to(secret)
    user = ("--user", "65534", "--group", "65534", "--log-config", "log.json")
    ended = run_to_the_end(nobodys, *user, *options)
    assert ended.returncode == 2
    assert "Permission denied" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert secret.read_text() == "root's\n"
