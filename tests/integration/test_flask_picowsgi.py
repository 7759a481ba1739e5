"""`flask picowsgi` does the same as `flask run`, on picowsgi."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from urllib.parse import unquote

import pytest

from support import TIMEOUT, RawClient, wait_until
from support.development import edit, get
from support.processes import Load, eventually

MOTTO = "What happened today"
BOTH = pytest.mark.parametrize("options", [("--debug",), ()], ids=["debug", "plain"])


def test_with_debug_the_server_reloads_and_prints_the_pin_of_the_debugger(flask):
    server = flask("--debug")
    answer, content = get(server, "/server")
    assert answer.getheader("Server") == "picowsgi"
    assert json.loads(content) == {"software": "picowsgi", "threads": True, "debug": True}
    for text in ("Serving Flask app 'journal'", "Debug mode: on", "Press CTRL+C to quit"):
        assert server.log.count(text) == 1, f"expected {text!r} once in:\n{server.log}"
    assert " * Restarting with stat" in server.log
    server.wait_for_log(" * Debugger is active!")
    assert re.search(r" \* Debugger PIN: \d{3}-\d{3}-\d{3}", server.log), server.log


def test_without_debug_the_server_does_not_reload_and_prints_no_pin(flask):
    server = flask()
    assert json.loads(get(server, "/server")[1])["debug"] is False
    answer, content = get(server, "/broken")
    assert (answer.status, "Internal Server Error" in content) == (500, True)
    assert "Debug mode: off" in server.log
    assert "Restarting" not in server.log
    assert "Debugger" not in server.log
    assert "KeyError: 'question'" in server.log


@BOTH
def test_ctrl_c_ends_the_server_cleanly_and_frees_the_port_at_once(flask, options):
    server = flask(*options)
    with RawClient(server.port) as kept:
        kept.send(b"GET /server HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert kept.read_response().status == 200
        assert server.interrupt() == 0, server.log
        assert "Traceback" not in server.log
        with socket.create_server(("127.0.0.1", server.port)):
            pass


def test_sigterm_ends_the_reloader_and_the_server_and_frees_the_port(flask):
    server = flask("--debug")
    assert get(server)[0].status == 200
    assert server.stop(signal.SIGTERM) == 0, server.log
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_the_log_has_lines_like_those_of_werkzeug(flask):
    server = flask(PICOWSGI_LOOPS="1")  # each of several processes writes at its own time
    for target in ("/", "/caf%C3%A9%0A", "/broken", "/static/look.css"):
        get(server, target)
        # A line is written after the response was sent; on PyPy that may take a while.
        server.wait_for_log(unquote(target).replace("\n", "%0A") + " HTTP/1.1")
    with RawClient(server.port) as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400
    line = r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] (.*)"
    server.wait_for_log('" 400 -')
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in re.findall(line, server.log)]
    assert lines == [
        '"GET / HTTP/1.1" 200 -',
        r'"GET /café%0A HTTP/1.1" 404 -',
        '"GET /broken HTTP/1.1" 500 -',
        '"GET /static/look.css HTTP/1.1" 200 -',
        '"nonsense" 400 -',
    ]


def test_the_log_is_silent_when_the_logger_of_werkzeug_is(flask, journal):
    (journal / "quiet.py").write_text(
        "import logging\nfrom journal import create_app\n"
        "logging.getLogger('werkzeug').setLevel('ERROR')\n"
    )
    server = flask(app="quiet")
    assert get(server)[0].status == 200
    assert server.stop(signal.SIGINT) == 0
    assert "GET /" not in server.log


# --- its options ----------------------------------------------------------------------------------


def test_the_command_has_the_options_of_flask_run(flask):
    def names(command):
        done = flask_command(command, "--help")
        assert done.returncode == 0, done.stderr
        return set(re.findall(r"--[a-z][a-z-]+", done.stdout))

    assert names("picowsgi") == names("run") | {"--live-reload", "--no-live-reload"}


def flask_command(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "flask", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("option", ["--cert", "--key"])
def test_tls_is_refused_with_advice(option):
    done = flask_command("--app", "journal", "picowsgi", option, "adhoc")
    assert done.returncode == 2
    assert f"picowsgi has no TLS; use 'flask run {option}'" in done.stderr


@pytest.mark.parametrize("app", ["journal", "journal:create_app", "journal:create_app('Mine')"])
def test_factories_are_called(flask, app):
    server = flask("--no-reload", app=app)
    title = "Mine" if "Mine" in app else MOTTO
    assert f"<h1>{title}</h1>" in get(server)[1]


def test_flaskenv_and_env_are_read_with_python_dotenv(command, journal):
    pytest.importorskip("dotenv")
    (journal / ".flaskenv").write_text("FLASK_APP=journal\nFLASK_RUN_PORT=x\nPICOWSGI_HEALTH=/up\n")
    (journal / ".env").write_text(f"FLASK_RUN_PORT=0\nJOURNAL_FOLDER={journal}\n")
    server = command("-m", "flask", "picowsgi", directory=journal, stdout=True)
    assert MOTTO in get(server)[1]
    assert get(server, "/up")[0].status == 200


@pytest.mark.parametrize(
    "variables", [("FLASK_RUN_PORT",), ("FLASK_PICOWSGI_PORT", "FLASK_RUN_PORT")], ids=len
)
def test_options_come_from_the_environment_and_flask_variables_come_first(flask, variables):
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in variables]
        ports = [sock.getsockname()[1] for sock in taken]
        server = flask(listens=False, **dict(zip(variables, map(str, ports), strict=True)))
        assert server.wait() == 1
    assert f"cannot listen on 127.0.0.1:{ports[0]}: the port is in use" in server.log


def test_debug_comes_from_the_environment_too(flask):
    server = flask("--no-reload", FLASK_DEBUG="1")
    assert json.loads(get(server, "/server")[1])["debug"] is True
    assert "Werkzeug Debugger" in get(server, "/broken")[1]


@pytest.mark.parametrize(
    ("options", "reached"),
    [(("--host", "0.0.0.0"), "127.0.0.1"), (("-h", "::1", "-p", "0"), "::1")],
    ids=["0.0.0.0", "::1"],
)
def test_the_server_listens_at_the_given_address(flask, options, reached):
    server = flask(*options)
    with socket.create_connection((reached, server.port), TIMEOUT) as client:
        client.sendall(b"GET /server HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer


def test_a_unix_socket_is_removed_at_the_end(flask, journal):
    path = journal / "socket"
    server = flask("--host", f"unix://{path}", listens=False)
    server.wait_for_log(f"Running on unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        client.sendall(b"GET /server HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    assert server.interrupt() == 0
    assert not path.exists()


def test_a_unix_socket_is_removed_although_a_thread_stays_in_the_application(flask, journal):
    (journal / "stuck.py").write_text(
        "import sys, threading\n"
        "from flask import Flask\n"
        "app = Flask(__name__)\n"
        "@app.get('/')\n"
        "def stay():\n"
        "    print('reached', file=sys.stderr)\n"
        "    threading.Event().wait()\n"
    )
    path = journal / "socket"
    server = flask("--host", f"unix://{path}", app="stuck", listens=False)
    server.wait_for_log(f"Running on unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_for_log("reached")
        server.interrupt()
    assert not path.exists()


@BOTH
def test_a_port_in_use_is_an_error_with_advice(flask, options):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = flask("-p", str(taken.getsockname()[1]), *options, listens=False)
        assert server.wait() == 1
    assert "Error: cannot listen on 127.0.0.1:" in server.log
    assert "the port is in use; stop the program that has it" in server.log


def test_a_wrong_option_of_picowsgi_in_the_environment_is_an_error(flask):
    server = flask(listens=False, PICOWSGI_THREADS="many")
    assert server.wait() == 1
    assert "Error: PICOWSGI_THREADS in the environment: expected" in server.log


def test_an_application_that_cannot_be_loaded_ends_the_command(flask):
    server = flask("--debug", app="missing", listens=False)
    assert server.wait() != 0
    assert "Could not import 'missing'" in server.log


def meet(server, timeout):
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda _: get(server, f"/meet?timeout={timeout}")[1], range(2))
        return [json.loads(answer)["met"] for answer in answers]


def test_requests_overlap_unless_without_threads_forbids_it(flask):
    assert meet(flask(), 10) == [True, True]
    server = flask("--without-threads")
    assert meet(server, 0.2) == [False, False]
    assert json.loads(get(server, "/server")[1])["threads"] is False


def test_the_debugger_can_be_used_alone_or_left_out(flask):
    alone = flask("--debug", "--no-reload")
    assert "Werkzeug Debugger" in get(alone, "/broken")[1]
    assert "Restarting" not in alone.log
    without = flask("--debug", "--no-reload", "--no-debugger")
    answer, content = get(without, "/broken")
    assert (answer.status, content) == (500, "Internal Server Error\n")
    without.wait_for_log("KeyError: 'question'")


def test_the_console_of_the_debugger_asks_for_the_pin_and_then_evaluates_in_the_frame(flask):
    server = flask("--debug", "--no-reload", WERKZEUG_DEBUG_PIN="123-456-789")
    page = get(server, "/broken")[1]
    secret = re.search(r'SECRET = "(\w+)"', page)[1]
    frame = re.findall(r'id="frame-(\d+)"', page)[-1]
    ask = f"/?__debugger__=yes&cmd=wanted&frm={frame}&s={secret}"
    assert "42" not in get(server, ask)[1], "expected no result without the PIN"
    unlock = f"/?__debugger__=yes&cmd=pinauth&pin=123-456-789&s={secret}"
    answer, content = get(server, unlock)
    assert json.loads(content)["auth"] is True
    cookie = answer.getheader("Set-Cookie").partition(";")[0]
    assert "42" in get(server, ask, Cookie=cookie)[1]


# --- reloading ------------------------------------------------------------------------------------


def test_every_request_is_answered_while_files_are_saved(flask, journal):
    server = flask("--debug")
    mottos = [MOTTO, "First", "Second"]
    with Load(server.port):
        for old, new in pairwise(mottos):
            edit(server, journal / "journal" / "__init__.py", old, new)
            wait_until(lambda motto=new: motto in get(server)[1], f"the motto {new}", 20)


def test_a_request_that_runs_during_a_save_is_finished(flask, journal):
    server = flask("--reload")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(get, server, "/hold")
        eventually((journal / "held").exists, "the request to run")
        edit(server, journal / "journal" / "__init__.py", MOTTO, "New")
        server.wait_for_log(" * Detected change in")
        (journal / "release").touch()
        answer, content = held.result(TIMEOUT)
    assert (answer.status, json.loads(content)) == (200, {"held": True})
    wait_until(lambda: "New" in get(server)[1], "the new motto", 20)


def test_a_syntax_error_is_shown_until_it_is_fixed(flask, journal):
    server = flask("--debug")
    file = journal / "journal" / "entries.py"
    edit(server, file, "def overview", "def def overview")
    wait_until(lambda: get(server)[0].status == 500, "a page with the error", 20)
    page = get(server)[1]
    assert "SyntaxError" in page
    assert "Werkzeug Debugger" in page
    server.wait_for_log("SyntaxError: invalid syntax")
    edit(server, file, "def def overview", "def overview")
    wait_until(lambda: get(server)[0].status == 200, "the page again", 20)
    assert MOTTO in get(server)[1]


def test_extra_files_are_watched_and_excluded_files_are_not(flask, journal):
    extra, left_out = journal / "extra.txt", journal / "journal" / "entries.py"
    extra.write_text("old")
    server = flask(
        "--reload", "--extra-files", str(extra), "--exclude-patterns", str(journal / "*" / "ent*")
    )
    edit(server, left_out, "def overview", "def overview ")
    edit(server, extra, "old", "new")
    server.wait_for_log(" * Detected change in")
    assert f"Detected change in {str(extra)!r}" in server.log
    assert "entries.py" not in server.log
