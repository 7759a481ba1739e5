"""`manage.py runserver` on picowsgi works as with the server of Django, and faster."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import django
import pytest

from support import TIMEOUT, RawClient, wait_until
from support.development import edit, get
from support.processes import Load, eventually

TITLE = "What people were asked"


# --- output and log -------------------------------------------------------------------------------


def test_the_command_serves_the_wsgi_application_of_the_project_in_a_thread_of_picowsgi(runserver):
    server = runserver()
    answer, content = get(server, "/threads/")
    assert answer.getheader("Server") == "picowsgi"
    assert answer.getheader("X-From") == "surveys.wsgi", "expected WSGI_APPLICATION to be used"
    assert json.loads(content) == {"multithread": True, "server": "picowsgi", "main": False}
    assert "Performing system checks..." in server.log
    assert "System check identified no issues" in server.log
    assert "using settings 'surveys.settings'" in server.log
    assert re.search(r"Starting (WSGI )?development server at http://127.0.0.1:\d+/", server.log)
    server.wait_for_log("Quit the server with CONTROL-C.")


@pytest.mark.parametrize("options", [(), ("--noreload",)], ids=["reloader", "noreload"])
def test_ctrl_c_ends_the_server_cleanly_and_frees_the_port_at_once(runserver, options):
    server = runserver(*options)
    with RawClient(server.port) as kept:
        kept.send(b"GET /threads/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert kept.read_response().status == 200
        assert server.interrupt() == 0, server.log
        assert "Traceback" not in server.log
        with socket.create_server(("127.0.0.1", server.port), reuse_port=False):
            pass


def test_sigterm_ends_the_reloader_and_the_server_and_frees_the_port(runserver):
    server = runserver()
    assert server.stop(signal.SIGTERM) == 0, server.log
    with socket.create_server(("127.0.0.1", server.port)):
        pass


class Terminal:
    """A command in a terminal, and its output there."""

    def __init__(self, arguments, directory, environ):
        ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**os.environ, "TERM": "xterm", **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = ours
        self._text = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._screen, 65536)
            except OSError:  # all writers have closed it
                return
            with self._changed:
                self._text += data.decode().replace("\r\n", "\n")
                self._changed.notify_all()

    def wait_for(self, pattern):
        with self._changed:
            found = self._changed.wait_for(lambda: re.search(pattern, self._text), 20)
        assert found, f"expected {pattern!r}, got:\n{self._text}"
        return found

    def end(self):
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self.status = self._process.wait(TIMEOUT)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._reader.join(TIMEOUT)
            os.close(self._screen)
        return self._text


LAST_WORDS = "deployment/" if django.VERSION >= (5, 2) else "CONTROL-C."
VISITS = [
    ("GET", "/", 200),
    ("GET", "/?a=%C3%A9&b=\"'", 200),
    ("GET", "/nowhere/", 404),
    ("GET", "/broken/", 500),
    ("HEAD", "/", 200),
    ("GET", "/admin/", 302),
    ("GET", "/static/survey/look.css", 200),
    ("GET", "/static/survey/look.css", 304),
    ("POST", "/", 403),
]


def watch(surveys, server):
    """The output in a terminal for these visits, without the parts that differ each time."""
    environ = {"SURVEYS_SERVER": server, "PYTHONDONTWRITEBYTECODE": "1"}
    terminal = Terminal(["manage.py", "runserver", "0"], surveys, environ)
    try:
        url = terminal.wait_for(f"(http://127.0.0.1:[0-9]+)/(?=[^$]*{LAST_WORDS})")[1]
        stamp = None
        for method, target, status in VISITS:
            fields = {"If-Modified-Since": stamp} if status == 304 else {}
            answer, _ = get(url, target, method, **fields)
            assert answer.status == status, target
            stamp = answer.getheader("Last-Modified")
            terminal.wait_for(re.escape(f"{method} {target} HTTP/1.1") + f'".* {status} ')
    finally:
        text = terminal.end()
    assert terminal.status == 0
    text = re.sub(r"\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d", "TIME", text)
    text = text.replace(url, "URL")
    text = re.sub(r"(HTTP/1.1\" 500) \d+", r"\1", text)  # the page shows the environ
    return re.sub(r"\w+ \d\d, \d{4} - \d\d:\d\d:\d\d", "TIME", text)


def test_a_terminal_shows_the_same_as_with_the_server_of_django(surveys):
    expected = watch(surveys, "none")
    shown = watch(surveys, "first")
    assert shown.split("\n") == expected.split("\n")
    assert "\x1b[" in shown, "status colours"


def test_the_log_has_requests_that_are_refused_before_they_reach_django(runserver):
    server = runserver("--noreload")
    with RawClient(server.port) as client:
        client.send(b"GET /x HTTP/1.1\r\nNo colon\r\n\r\n")
        assert client.read_response().status == 400
    server.wait_for_log('"GET /x HTTP/1.1" 400 ')
    with RawClient(server.port) as client:
        client.send(b"GET /%(s)s/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1,1\r\n\r\n")
        assert client.read_response().status == 400
    server.wait_for_log('"GET /%(s)s/ HTTP/1.1" 400 ')
    with RawClient(server.port) as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert client.read_response().status == 400
    server.wait_for_log("You're accessing the development server over HTTPS")


# --- its options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shown", "reached"),
    [
        (("0",), "http://127.0.0.1:", "127.0.0.1"),
        (("0:0",), "http://0.0.0.0:", "127.0.0.1"),
        (("localhost:0",), "http://localhost:", "127.0.0.1"),
        (("[::1]:0",), "http://[::1]:", "::1"),
        (("-6", "0"), "http://[::1]:", "::1"),
        (("--ipv6", "[::1]:0"), "http://[::1]:", "::1"),
        (("[::]:0",), "http://[::]:", "127.0.0.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_server_listens_at_the_given_address(runserver, options, shown, reached):
    server = runserver("--noreload", "--skip-checks", *options)
    assert server.url.startswith(shown)
    with socket.create_connection((reached, server.port), TIMEOUT) as client:
        client.sendall(b"GET /threads/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert "Performing system checks" not in server.log, "--skip-checks"


def meet(server, timeout):
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda _: get(server, f"/meet/?timeout={timeout}")[1], range(2))
        return [json.loads(answer)["met"] for answer in answers]


def test_requests_overlap_unless_nothreading_forbids_it(runserver):
    assert meet(runserver("--noreload"), 10) == [True, True]
    server = runserver("--noreload", "--nothreading")
    assert meet(server, 0.2) == [False, False]
    assert json.loads(get(server, "/threads/")[1])["multithread"] is False


STYLE = "/static/survey/look.css"


@pytest.mark.parametrize(
    ("options", "environ", "status"),
    [
        ((), {}, 200),
        (("--nostatic",), {}, 404),
        ((), {"SURVEYS_DEBUG": "off"}, 404),
        (("--insecure",), {"SURVEYS_DEBUG": "off"}, 200),
        ((), {"SURVEYS_NO_STATICFILES": "1"}, 404),
    ],
    ids=["debug", "nostatic", "no debug", "insecure", "without staticfiles"],
)
def test_static_files_are_served_as_by_the_runserver_of_staticfiles(
    runserver, options, environ, status
):
    server = runserver("--noreload", *options, **environ)
    answer, content = get(server, STYLE)
    assert answer.status == status
    if status == 200:
        assert "color:" in content
        assert answer.getheader("Content-Type") == "text/css"


def test_without_staticfiles_its_options_are_unknown(runserver):
    server = runserver("--nostatic", listens=False, SURVEYS_NO_STATICFILES="1")
    assert server.wait() == 2
    assert "unrecognized arguments: --nostatic" in server.log


def test_migrations_that_are_missing_are_reported(runserver, surveys):
    (surveys / "db.sqlite3").unlink()
    server = runserver("--noreload")
    assert re.search(r"You have \d+ unapplied migration\(s\)", server.log), server.log


@pytest.mark.parametrize("options", [(), ("--noreload",)], ids=["reloader", "noreload"])
def test_a_port_in_use_is_an_error_in_the_words_of_django(runserver, options):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = runserver(str(taken.getsockname()[1]), *options, listens=False)
        assert server.wait() == 1
    assert "Error: That port is already in use." in server.log


def test_an_address_of_another_machine_is_an_error_in_the_words_of_django(runserver):
    server = runserver("192.0.2.1:8000", "--noreload", listens=False)
    assert server.wait() == 1
    assert "Error: That IP address can't be assigned to." in server.log


def test_an_impossible_port_is_refused(runserver):
    server = runserver("127.0.0.1:70000", "--noreload", listens=False)
    assert server.wait() == 1
    assert "Error: the port must be from 0 to 65535, not 70000" in server.log


def test_options_of_picowsgi_come_from_the_environment_and_wrong_ones_are_errors(runserver):
    server = runserver("--noreload", PICOWSGI_MAX_HEAD_SIZE="512", PICOWSGI_WORKERS="3")
    assert get(server, "/", Cookie="c" * 600)[0].status == 431
    server = runserver("--noreload", listens=False, PICOWSGI_THREADS="many")
    assert server.wait() == 1
    assert "CommandError: PICOWSGI_THREADS in the environment: expected" in server.log


def test_listed_after_staticfiles_the_app_warns_that_its_command_is_not_used(surveys):
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=surveys,
        env={**os.environ, "SURVEYS_SERVER": "last"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "picowsgi.W001" in done.stderr
    assert "before 'django.contrib.staticfiles' in INSTALLED_APPS" in done.stderr


# --- reloading ------------------------------------------------------------------------------------


def test_every_request_is_answered_while_files_are_saved(runserver, surveys):
    server = runserver()
    views = surveys / "survey" / "views.py"
    titles = [TITLE, "First", "Second"]
    with Load(server.port):
        for old, new in pairwise(titles):
            edit(server, views, old, new)
            wait_until(lambda title=new: title in get(server)[1], f"the title {new}", 20)


def test_a_request_that_runs_during_a_save_is_finished(runserver, surveys):
    server = runserver()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(get, server, "/hold/")
        eventually((surveys / "held").exists, "the request to run")
        edit(server, surveys / "survey" / "views.py", TITLE, "New")
        server.wait_for_log("changed, reloading.")
        (surveys / "release").touch()
        answer, content = held.result(TIMEOUT)
    assert (answer.status, json.loads(content)) == (200, {"held": True})
    wait_until(lambda: "New" in get(server)[1], "the new title", 20)


@pytest.mark.parametrize("name", ["views", "models"])
def test_a_syntax_error_is_shown_until_it_is_fixed(runserver, surveys, name):
    server = runserver()
    file, good = surveys / "survey" / f"{name}.py", "from django."
    edit(server, file, good, f"def {good}")
    wait_until(lambda: get(server)[0].status == 500, "a page with the error", 20)
    page = get(server)[1]
    assert "SyntaxError" in page
    assert f"survey/{name}.py" in page
    server.wait_for_log("SyntaxError: invalid syntax")
    edit(server, file, f"def {good}", good)
    wait_until(lambda: get(server)[0].status == 200, "the page again", 20)
    assert TITLE in get(server)[1]


def test_without_debug_an_error_page_shows_no_details(runserver, surveys):
    server = runserver(SURVEYS_DEBUG="off")
    assert get(server)[0].status == 200
    edit(server, surveys / "survey" / "views.py", "def overview", "def def overview")
    wait_until(lambda: get(server)[0].status == 500, "an error", 20)
    assert get(server)[1] == "The project cannot be loaded.\n"


def test_a_server_that_started_with_a_syntax_error_serves_once_the_error_is_fixed(
    runserver, surveys
):
    models = surveys / "survey" / "models.py"
    good = models.read_text()
    models.write_text(good.replace("class Question", "class class Question"))
    server = runserver(listens=False)
    server.wait_for_log("SyntaxError: invalid syntax")
    edit(server, models, "class class Question", "class Question")
    server.wait_until_it_listens()
    assert get(server)[0].getheader("Server") == "picowsgi"


# --- tests of applications ------------------------------------------------------------------------


def test_the_live_servers_of_the_tests_of_a_project_are_picowsgi_servers(surveys):
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test"],
        cwd=surveys,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran 9 tests in", done.stderr), done.stderr


def test_picowsgi_can_be_imported_without_django(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('django', 'flask', 'werkzeug'):\n    sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import picowsgi, picowsgi.cli.main, picowsgi.contrib.development"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
