"""The output of picowsgi in a terminal, and in a pipe or a file."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from support import TIMEOUT, outer_environ, raw
from support.terminal import Terminal as Foreground

APPLICATION = """
import time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/500":
        raise RuntimeError("as the test wants it")
    if path == "/slow":
        time.sleep(0.15)
    statuses = {"/302": "302 Found", "/404": "404 Not Found"}
    start_response(statuses.get(path, "200 OK"), [("Content-Type", "text/plain")])
    return [b"hello"]
"""
CLOCK = r"\d\d:\d\d:\d\d"


class Terminal:
    """`python -m picowsgi` with its output in a terminal, or a part of it elsewhere."""

    def __init__(self, arguments, environ, **streams):
        kept = {
            name: value
            for name, value in outer_environ().items()
            if name not in ("NO_COLOR", "FORCE_COLOR")
        }
        self._descriptor, inner = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", "--port", "0", *arguments],
            env={**kept, "TERM": "xterm", **environ},
            **{"stdin": inner, "stdout": inner, "stderr": inner, **streams},
        )
        os.close(inner)
        self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)\D.*Ctrl-C")[1])

    def wait_for(self, pattern):
        """Wait until a part of the output matches."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._descriptor], [], [], left)[0]
            assert ready, f"expected {pattern!r} within {TIMEOUT:g} s, got {self.text!r}"
            self.text += os.read(self._descriptor, 65536).decode()
        return found

    def line_of(self, path):
        """Request a path, and return its line of the access log, without the time of day."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            error.close()
        return self.wait_for(rf"{CLOCK} ([^\n]* GET {re.escape(path)} [^\n]*)\r\n")[1]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._descriptor)


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Start picowsgi in a terminal: `terminal("--debug", NO_COLOR="1")`."""
    (tmp_path / "seen.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    started = []

    def start(*arguments, streams=None, **environ):
        one = Terminal([*arguments, "seen:app"], environ, **(streams or {}))
        started.append(one)
        return one

    yield start
    for one in started:
        one.end()


def test_lines_are_short_and_coloured_by_the_status(terminal):
    seen = terminal()
    assert "\x1b[36m\x1b[1mhttp://127.0.0.1:" in seen.text
    for path, status, size in (
        ("/?a=b", "\x1b[32m200\x1b[0m", 5),
        ("/404", "\x1b[33m404\x1b[0m", 5),
        ("/500", "\x1b[1;31m500\x1b[0m", 22),
    ):
        line = seen.line_of(path)
        assert re.fullmatch(
            rf"{re.escape(status)} GET {re.escape(path)} {size} B \d+\.\d+ ms", line
        )
    raw(seen, b"GET /302 HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    seen.wait_for(re.escape("\x1b[36m302\x1b[0m GET /302"))


def test_slow_requests_are_marked(terminal):
    seen = terminal("--access-log-slow", "0.1")
    assert not seen.line_of("/").endswith("slow\x1b[0m")
    assert re.search(r" B 1\d\d\.\d ms \x1b\[1;35mslow\x1b\[0m$", seen.line_of("/slow"))


def test_lines_of_the_error_log_have_the_same_shape_and_a_colour_for_their_level(terminal):
    seen = terminal()
    seen.line_of("/500")
    seen.wait_for(
        rf"\n{CLOCK} \x1b\[1;31merror:\x1b\[0m error in the application: GET /500\r\n    Traceback "
    )
    seen.process.send_signal(signal.SIGHUP)
    seen.wait_for(rf"\n{CLOCK} info: reloaded\r\n")


def test_without_colours_the_error_log_has_the_same_shape(terminal):
    seen = terminal(NO_COLOR="1")
    seen.line_of("/500")
    seen.wait_for(rf"\n{CLOCK} error: error in the application: GET /500\r\n    Traceback ")


def test_no_color_removes_the_colours_and_keeps_the_marks(terminal):
    seen = terminal("--access-log-slow", "0.1", NO_COLOR="1")
    assert re.fullmatch(r"200 GET / 5 B \d+\.\d+ ms", seen.line_of("/"))
    assert re.fullmatch(r"200 GET /slow 5 B \d+\.\d+ ms slow", seen.line_of("/slow"))
    assert "\x1b" not in seen.text


def test_a_custom_format_in_a_terminal_has_colours_and_marks_too(terminal):
    seen = terminal(
        "--access-log-format", "12:00:00 %(s)s %(m)s %(U)s .", "--access-log-slow", "0.1"
    )
    assert seen.line_of("/slow") == "\x1b[32m200\x1b[0m GET /slow . \x1b[1;35mslow\x1b[0m"


def test_json_has_neither_colours_nor_marks(terminal):
    seen = terminal("--access-log-format", "json", "--access-log-slow", "0.001")
    raw(seen, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    line = seen.wait_for(r'\{"time".*\}\r\n')[0]
    assert "\x1b" not in line
    assert "slow" not in line.replace("/slow", "")


def test_no_byte_from_outside_controls_the_terminal(terminal):
    seen = terminal(NO_COLOR="1")
    raw(seen, b"GET /\xc2\x9b31m\x80\xff HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    seen.wait_for(r"400 GET /\\xc2\\x9b31m\\x80\\xff 0 B")
    raw(seen, b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    seen.wait_for(r" 400 .* 400 ")
    raw(seen, b'GET /%1b%5b31m?"\\ HTTP/1.1\r\nHost: a\r\n\r\n', count=1)
    seen.wait_for(r"200 GET /%1b%5b31m\?\\x22\\x5c 5 B")
    assert "\x1b" not in seen.text


def test_lines_in_a_file_are_plain_and_in_the_combined_format(terminal, tmp_path):
    log = tmp_path / "access.log"
    seen = terminal("--access-log", "--access-log-file", log, "--access-log-slow", "0.001")
    raw(seen, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    seen.process.send_signal(signal.SIGINT)
    assert seen.process.wait(TIMEOUT) == 0
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[.*\] "GET /slow HTTP/1\.1" 200 5 "-" "-"\n', log.read_text()
    )


@pytest.mark.parametrize(
    ("environ", "status"), [({}, "200"), ({"FORCE_COLOR": "1"}, "\x1b[32m200\x1b[0m")]
)
def test_lines_in_a_pipe_are_plain_unless_colours_are_forced(terminal, environ, status):
    piped = {"stdout": subprocess.PIPE}
    seen = terminal("--access-log", "--access-log-format", "%(s)s %(U)s", streams=piped, **environ)
    raw(seen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", count=1)
    seen.process.send_signal(signal.SIGINT)
    out, _ = seen.process.communicate(timeout=TIMEOUT)
    assert out.decode() == f"{status} /\n"


def test_the_browser_is_opened_once_and_not_after_a_reload(terminal, tmp_path):
    opened = tmp_path / "opened"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >>{opened}\n')
    script.chmod(0o700)
    seen = terminal("--open", BROWSER=str(script))
    deadline = time.monotonic() + TIMEOUT
    while not (opened.exists() and opened.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "expected the browser to be opened"
        time.sleep(0.01)
    seen.process.send_signal(signal.SIGHUP)
    seen.wait_for("info: reloaded")
    assert seen.line_of("/")
    assert opened.read_text() == f"http://127.0.0.1:{seen.port}\n"


def test_without_a_browser_the_log_names_the_page(terminal):
    seen = terminal("--open", BROWSER="", PATH="/nonexistent", DISPLAY="", WAYLAND_DISPLAY="")
    seen.wait_for(f"--open: there is no browser; the page is at http://127.0.0.1:{seen.port}")


def test_the_banner_has_the_modes_the_documentation_and_then_the_pin_once(tmp_path):
    (tmp_path / "seen.py").write_text(APPLICATION)
    seen = Foreground(
        ["-m", "picowsgi", "--port", "0", "--debug", "--reload", "seen:app"], tmp_path
    )
    try:
        seen.wait_for(
            r"(?s)picowsgi .* serving seen:app on http.*\n.* threads; reload is on; debug is on; "
            r"live reload is on; "
            r"press Ctrl-C to stop\ndocumentation: https://.*\n.*the debugger's PIN is [\d-]+\n"
        )
        (tmp_path / "seen.py").write_text(APPLICATION + "\n")
        seen.wait_for("changed: seen.py; loading the application again")
        urllib.request.urlopen(f"http://127.0.0.1:{seen.port}/", timeout=TIMEOUT).close()
        assert seen.text.count("PIN") == 1, seen.text
    finally:
        seen.end()


def test_an_import_error_is_red(tmp_path):
    seen = Foreground(
        ["-m", "picowsgi", "--port", "0", "missing:app"],
        tmp_path,
        {"NO_COLOR": "", "FORCE_COLOR": "1"},
    )
    try:
        seen.wait_for(r"\x1b\[31m\x1b\[1mpicowsgi: error: .*'missing'.*\x1b\[0m")
        assert seen.wait() == 1
    finally:
        seen.end()


@pytest.mark.parametrize(
    ("bind", "own"),
    [("0.0.0.0:0", r"http://127\.0\.0\.1:[1-9]\d*"), ("[::]:0", r"http://\[::1\]:[1-9]\d*")],
)
def test_the_banner_has_the_addresses_of_the_machine(tmp_path, bind, own):
    (tmp_path / "seen.py").write_text(APPLICATION)
    seen = Foreground(["-m", "picowsgi", "--bind", bind, "seen:app"], tmp_path)
    try:
        seen.wait_for(rf"http://\S+ is this machine at {own}[^\n]*\n")
    finally:
        seen.end()
