"""--reload: saved files are served, no request is refused, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from support.processes import APP, PROCESS_TIMEOUT, Load, ask, children, eventually, lives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SOON = 2.0  # seconds from a save to the new response; an idle machine needs a twentieth
BROKEN = "def app(environ, start_response):\n    return <script>\n"


def version(number):
    return APP.replace('VERSION = "1"', f'VERSION = "{number}"')


def save(path, text):
    """Write a file like most editors: beside the old one, and then rename it."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)


@pytest.fixture
def start(picowsgi, tmp_path):
    """Start the command with --reload in a folder with app.py: `start("--workers", "2")`."""

    def start(*options, app=APP, **more):
        save(tmp_path / "app.py", app)
        return picowsgi("app:app", "--reload", *options, directory=tmp_path, **more)

    return start


@pytest.fixture
def without_watchfiles(tmp_path_factory):
    """An environment in which watchfiles cannot be imported."""
    directory = tmp_path_factory.mktemp("without")
    (directory / "watchfiles.py").write_text("raise ImportError('as the test wants it')\n")
    return {"PYTHONPATH": str(directory)}


def fetch(port, accept="*/*"):
    """Return status, content type and text of any response."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/x", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=PROCESS_TIMEOUT) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def answers_until(port, wanted, within=PROCESS_TIMEOUT):
    """Send requests until the response is `wanted`; return the other responses."""
    deadline = time.monotonic() + within
    others = []
    while (answer := fetch(port)[2]) != wanted:
        others.append(answer)
        assert time.monotonic() < deadline, f"expected {wanted!r} within {within} s, got {answer!r}"
    return others


def times_reloaded(command):
    return command.log.count("loading the application again")


def expect_reload(command, act):
    """Check that `act` causes exactly one reload: another process serves."""
    before, count = ask(command.port, "/pid"), times_reloaded(command)
    act()
    command.wait_for_log("loading the application again", count + 1)
    eventually(lambda: ask(command.port, "/pid") != before, "a response of another process")
    assert times_reloaded(command) == count + 1, command.log


# --- saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])
def test_the_new_code_answers_soon_after_a_save(start, tmp_path, options):
    command = start(*options)
    assert ask(command.port) == "1"
    for number in range(2, 5):  # within a second, and files of the same size
        save(tmp_path / "app.py", version(number))
        others = answers_until(command.port, str(number), SOON)
        assert set(others) <= {str(number - 1)}, "expected only the old code until then"
        only_new = [str(number)] * 20
        if options:  # one of two workers may still respond after the other has ended
            eventually(
                lambda new=only_new: [ask(command.port) for _ in range(20)] == new,
                "no response of a worker with the old code",
            )
        else:
            assert [ask(command.port) for _ in range(20)] == only_new
    assert "changed: app.py; loading" in command.log
    assert command.stop() == 0, command.log


def test_a_file_that_is_written_in_place_is_noticed_too(start, tmp_path):
    command = start()
    (tmp_path / "app.py").write_text(version(2))
    answers_until(command.port, "2", SOON)


def test_no_request_is_refused_or_lost_while_a_file_is_saved_ten_times(start, tmp_path):
    command = start(app=version(0))
    answers, failures, over = [], [], threading.Event()

    def visit():
        """About 200 requests a second, each over a connection of its own."""
        while not over.wait(0.004):
            try:
                answers.append(int(ask(command.port)))
            except Exception as error:
                failures.append(repr(error))

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    for number in range(1, 12):
        save(tmp_path / "app.py", version(number))
        eventually(lambda n=number: answers[-1:] == [n], f"the response {number}")
    over.set()
    visitor.join(PROCESS_TIMEOUT)
    assert failures == []
    assert answers == sorted(answers), "expected no response of old code after one of new code"
    assert set(answers) - {0} == set(range(1, 12))


def test_persistent_connections_survive_a_reload(start, tmp_path):
    command = start()
    with Load(command.port) as load:
        for number in range(2, 6):
            save(tmp_path / "app.py", version(number))
            answers_until(command.port, str(number))
            load.wait_for_more(20)


def test_a_request_waits_while_the_application_is_imported(start, tmp_path):
    command = start()
    with socket.create_connection(("127.0.0.1", command.port), PROCESS_TIMEOUT) as early:
        slow = version(2) + (
            "(HERE / 'importing').touch()\nwhile not (HERE / 'go').exists(): time.sleep(0.005)\n"
        )
        save(tmp_path / "app.py", slow)
        eventually((tmp_path / "importing").exists, "the import to begin")
        answers = []
        late = threading.Thread(target=lambda: answers.append(ask(command.port)), daemon=True)
        late.start()
        early.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        early.settimeout(0.1)
        with pytest.raises(TimeoutError):
            early.recv(1)
        assert answers == []
        (tmp_path / "go").touch()
        early.settimeout(PROCESS_TIMEOUT)
        content = b"".join(iter(lambda: early.recv(4096), b""))
        assert content.endswith(b"\r\n\r\n2"), "expected the old code on its open connection"
        late.join(PROCESS_TIMEOUT)
        assert answers == ["2"]


def test_a_long_request_is_finished_by_the_old_code_and_delays_nothing(start, tmp_path):
    command = start()
    held = []
    thread = threading.Thread(target=lambda: held.append(ask(command.port, "/hold")), daemon=True)
    thread.start()
    eventually((tmp_path / "held").exists, "the request to run")
    save(tmp_path / "app.py", version(2))
    answers_until(command.port, "2", SOON)
    assert held == []
    (tmp_path / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert held == ["released"]
    eventually(lambda: len(children(command.process.pid)) == 2, "one worker and the watcher")


def test_a_save_during_the_import_is_noticed(start, tmp_path):
    command = start()
    save(tmp_path / "app.py", version(2) + "(HERE / 'importing').touch()\ntime.sleep(600)\n")
    eventually((tmp_path / "importing").exists, "the import to begin")
    save(tmp_path / "app.py", version(3))
    answers_until(command.port, "3", SOON)


def test_files_that_change_together_are_one_change(start, tmp_path):
    for number in range(30):
        (tmp_path / f"module{number}.py").touch()
        (tmp_path / f"module{number}.new").touch()
    command = start()
    for number in range(30):
        (tmp_path / f"module{number}.new").replace(tmp_path / f"module{number}.py")
    save(tmp_path / "app.py", version(2))
    answers_until(command.port, "2")
    assert times_reloaded(command) <= 2, command.log  # a busy machine may separate them


# --- broken messages -----------------------------------------------------------------------------


def test_a_syntax_error_is_shown_until_it_is_fixed(start, tmp_path):
    command = start()
    save(tmp_path / "app.py", BROKEN)
    command.wait_for_log("importing app failed with SyntaxError")
    assert "return <script>" in command.log
    status, kind, text = fetch(command.port, "text/html,*/*")
    assert (status, kind) == (500, "text/html; charset=utf-8")
    assert "return &lt;script&gt;" in text
    assert "<script>" not in text
    status, kind, text = fetch(command.port)
    assert (status, kind) == (500, "text/plain; charset=utf-8")
    assert f'File "{tmp_path / "app.py"}", line 2' in text
    save(tmp_path / "app.py", version(2))
    answers_until(command.port, "2", SOON)
    assert command.log.count("SyntaxError: invalid syntax") == 1, "expected one line in the log"


ACCIDENTS = {
    "syntax": (BROKEN, "SyntaxError: invalid syntax"),
    "exception": ("raise LookupError('as wanted')\n", "LookupError: as wanted"),
    "exit": ("raise SystemExit(3)\n", "it ended the program"),
    "os._exit": ("import os\nos._exit(7)\n", "ended with status 7 before it had loaded"),
    "crash": ("import os\nos.kill(os.getpid(), 9)\n", "was killed by signal 9"),
    "no app": ("x = 1\n", "has no attribute 'app'"),
}


@pytest.mark.parametrize(("text", "shown"), ACCIDENTS.values(), ids=ACCIDENTS)
def test_the_server_waits_for_a_fix_of_an_application_that_could_not_be_loaded_at_the_start(
    start, tmp_path, text, shown
):
    command = start("--workers", "2", app=text)
    assert shown in fetch(command.port)[2]
    assert command.log.count(shown) == 1, "expected one report"
    save(tmp_path / "app.py", version(2))
    answers_until(command.port, "2", SOON)
    assert command.stop() == 0


def test_the_server_also_waits_for_a_fix_of_a_broken_module_elsewhere(
    start, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "helper.py").write_text("def\n")
    app = version("x").replace('"x"', "helper.V")
    command = start(app="import helper\n" + app, environ={"PYTHONPATH": str(elsewhere)})
    assert "SyntaxError" in fetch(command.port)[2]
    save(elsewhere / "helper.py", "V = 'fixed'\n")
    answers_until(command.port, "fixed", SOON)


# --- the files -----------------------------------------------------------------------------------


def test_files_that_editors_and_tools_leave_behind_do_not_count(start, tmp_path):
    for name in ("node_modules/p", ".git", "__pycache__", ".venv/lib", "env/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    command = start("--reload-include", "*")
    names = ["4913", ".app.py.swp", ".app.py.swx", "app.py~", "#app.py#", ".#app.py", "app.py.tmp"]
    names += ["app.pyc", ".git/index.py", "node_modules/p/x.py", "__pycache__/app.cpython-311.pyc"]
    names += [".venv/lib/x.py", "env/lib/x.py"]
    for name in names:
        (tmp_path / name).write_text("x")
    for name in names:
        (tmp_path / name).unlink()
    save(tmp_path / "app.py", version(2))
    answers_until(command.port, "2", SOON)
    assert re.findall(r"changed: (.*?);", command.log) == ["app.py"]


def test_templates_and_env_files_count_and_so_do_files_that_an_option_names(start, tmp_path):
    (tmp_path / "templates").mkdir()
    names = ["templates/page.html", "templates/mail.jinja2", ".env", "data.csv", "static/late.html"]
    names += ["notes.md"]
    for name in names[:3]:
        (tmp_path / name).write_text("old")
    command = start("--reload-include", "*.csv", "--reload-exclude", "static/*")
    for name in names[:4]:
        expect_reload(command, lambda n=name: save(tmp_path / n, "new"))
        assert f"changed: {name};" in command.log
    (tmp_path / "static").mkdir()
    for name in names[4:]:
        save(tmp_path / name, "new")
    expect_reload(command, (tmp_path / ".env").unlink)
    changed = re.findall(r"changed: (.*?);", command.log)
    assert changed == [*names[:4], ".env"]


def test_a_new_package_counts(start, tmp_path):
    command = start()

    def make():
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "__init__.py").touch()

    make()
    command.wait_for_log("loading the application again")
    ask(command.port)
    expect_reload(command, lambda: save(tmp_path / "new" / "deep" / "__init__.py", "x = 1\n"))


def test_a_module_that_was_missing_is_found_although_its_directory_looks_the_same(start, tmp_path):
    """The import system caches the content of a directory by its time, which may be coarse."""
    command = start(app="import missing\n" + APP, listens=True)
    before = tmp_path.stat()
    assert "missing" in fetch(command.port)[2]
    (tmp_path / "missing.py").touch()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    answers_until(command.port, "1")


def test_modules_outside_the_directory_count_also_when_they_are_imported_late(
    start, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("early", "late"):
        (elsewhere / f"{name}.py").write_text("V = '1'\n")
    app = "import early\n" + APP.replace('"/grow"', '"/late"').replace(
        'kept.append(b"x" * (150 << 20))', 'answer = __import__("late").V'
    )
    command = start(app=app, environ={"PYTHONPATH": str(elsewhere)})
    expect_reload(command, lambda: save(elsewhere / "early.py", "V = '2'\n"))
    assert ask(command.port, "/late") == "1"
    deadline = time.monotonic() + PROCESS_TIMEOUT  # no message says when it is watched
    while ask(command.port, "/late") != "3":
        save(elsewhere / "late.py", "V = '3'\n")
        command.process.poll()
        assert time.monotonic() < deadline, "expected late.py to be watched"


def test_an_option_names_other_directories_to_watch(start, tmp_path, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    command = start("--reload-dir", other)
    save(tmp_path / "unused.py", "")
    expect_reload(command, lambda: save(other / "x.py", ""))
    assert "unused.py" not in command.log
    save(tmp_path / "app.py", version(2))  # its place does not matter: it is the application
    answers_until(command.port, "2", SOON)


def test_without_watchfiles_the_server_scans_the_files(start, tmp_path, without_watchfiles):
    command = start(environ=without_watchfiles)
    command.wait_for_log("pip install picowsgi[reload]")
    for number in range(2, 5):
        save(tmp_path / "app.py", version(number))
        answers_until(command.port, str(number), SOON)
    expect_reload(command, lambda: save(tmp_path / "new.py", ""))
    expect_reload(command, (tmp_path / "new.py").unlink)


# --- the end, and the environment ----------------------------------------------------------------


def descendants(command):
    found = children(command.process.pid)
    assert len(found) >= 2, "expected a worker and the watcher"
    return found


@pytest.mark.measured
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("state", ["idle", "importing", "broken"])
def test_nothing_is_left_after_the_end(start, tmp_path, how, state):
    command = start(app=BROKEN if state == "broken" else APP)
    if state == "importing":
        save(tmp_path / "app.py", "import time\nopen('importing', 'w')\ntime.sleep(600)\n")
        eventually((tmp_path / "importing").exists, "the import to begin")
    found = descendants(command)
    begin = time.monotonic()
    status = command.stop(how)
    assert status == (0 if how != signal.SIGKILL else -signal.SIGKILL), command.log
    eventually(lambda: not any(map(lives, found)), "all processes to end")
    assert time.monotonic() - begin < 3


@pytest.mark.measured
def test_an_open_request_delays_the_end_for_two_seconds_only(start, tmp_path):
    command = start()
    threading.Thread(target=lambda: fetch_quietly(command.port), daemon=True).start()
    eventually((tmp_path / "held").exists, "the request to run")
    begin = time.monotonic()
    assert command.stop(signal.SIGINT) == 0
    assert time.monotonic() - begin < 6, "expected less than the 30 s of a server without --reload"


def fetch_quietly(port):
    with suppress(OSError):
        ask(port, "/hold")


def connects(path):
    """Return whether a unix socket listens. Its file exists shortly before that."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_unix_socket_stays_open_during_a_reload(tmp_path):
    path = tmp_path / "s"
    save(tmp_path / "app.py", APP)
    process = subprocess.Popen(
        [sys.executable, "-m", "picowsgi", "app:app", "--reload", "--bind", f"unix:{path}"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )

    def answer():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PROCESS_TIMEOUT)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(4096), b"")).rpartition(b"\n")[2]

    try:
        eventually(lambda: connects(path), "the socket")
        assert answer() == b"1"
        save(tmp_path / "app.py", version(2))
        eventually(lambda: answer() == b"2", "the new response")
        process.terminate()
        assert process.wait(PROCESS_TIMEOUT) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_sockets_of_systemd_stay_open_during_a_reload(tmp_path):
    save(tmp_path / "app.py", APP)
    program = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'picowsgi', 'app:app', '--reload'])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, number = listening.getsockname()[1], listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            cwd=tmp_path,
            pass_fds=[number],
            stderr=subprocess.DEVNULL,
        )
    try:
        answers_until(port, "1")
        save(tmp_path / "app.py", version(2))
        answers_until(port, "2", SOON)
        process.terminate()
        assert process.wait(PROCESS_TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_dies_is_replaced_and_sighup_reloads(start):
    command = start()
    first = int(ask(command.port, "/pid"))
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not lives(first), "the worker to end")
    second = int(ask(command.port, "/pid"))
    assert second != first
    command.process.send_signal(signal.SIGHUP)
    eventually(lambda: int(ask(command.port, "/pid")) != second, "another worker")


def test_the_server_continues_when_its_watcher_ends(start):
    command = start()
    worker = int(ask(command.port, "/pid"))
    (watcher,) = set(children(command.process.pid)) - {worker}
    os.kill(watcher, signal.SIGKILL)
    command.wait_for_log("the file watcher has ended")
    assert int(ask(command.port, "/pid")) == worker
    assert command.stop() == 0


# --- unsuitable options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preload",), "--reload: it cannot load again what --preload has loaded; choose one"),
        (("--reload-dir", "no"), "--reload-dir: expected a directory, got 'no'"),
    ],
)
def test_an_application_that_cannot_be_reloaded_is_refused(tmp_path, options, message):
    save(tmp_path / "app.py", APP)
    done = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--port", "0", "--reload", *options, "app:app"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"picowsgi: error: {message}\n")


def test_an_application_object_cannot_be_reloaded(serve):
    import picowsgi
    from picowsgi.errors import ConfigError

    for attempt in (picowsgi.serve, picowsgi.Server):
        with pytest.raises(ConfigError, match=r"option reload: .* picowsgi --reload MODULE"):
            attempt(lambda environ, start_response: [], reload=True, port=0)
