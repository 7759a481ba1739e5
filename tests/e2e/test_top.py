"""`picowsgi top` as a command: its text and JSON, and its display in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from support import TIMEOUT, outer_environ, wait_until
from support.development import get
from support.metrics import MetricsServer, page, response
from support.processes import eventually

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def environ(**more):
    kept = {
        name: value
        for name, value in outer_environ().items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")
    }
    return {**kept, "TERM": "xterm", "PYTHONUTF8": "1", **more}


def top(*arguments, **more):
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "picowsgi", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environ(**more),
        check=False,
    )


@pytest.fixture
def server():
    with MetricsServer() as one:
        yield one


# Once


def test_once_prints_a_line_for_each_label(server):
    done = top(server.address, "--once", "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"picowsgi 1.2.3 at {server.address}  CPython 3.12.1  epoll  up ")
    seconds = float(re.fullmatch(r"rates of (\d\.\d\d) s", lines[1])[1])
    assert 0.2 <= seconds < 5
    assert [line.split("  ")[0] for line in lines[2:]] == [
        *("requests", "duration", "queue time", "threads", "workers", "connections", "bytes"),
        *("refused", "memory", "CPU"),
    ]
    assert len(server.requests) == 2
    assert done.stdout.isascii()
    assert "\x1b" not in top(server.address, "--once", "--interval=0.1", FORCE_COLOR="1").stdout


def test_once_as_json_is_one_object_in_a_line(server):
    done = top(server.address, "--once", "--json", "--interval", "0.2s")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    found = json.loads(done.stdout)
    assert found["address"] == server.address
    seconds = found["seconds"]
    assert 0.2 <= seconds < 5
    assert found["requests"] * seconds == pytest.approx(100)
    assert found["statuses"]["4xx"] * seconds == pytest.approx(20)
    assert found["duration"]["percentiles"]["p99"] == {"low": 0.0025, "high": 0.005, "value": 0.005}
    assert (found["threads"], found["restarts"]) == (16, {"memory": 1})


def test_a_restart_between_the_two_samples_is_said():
    with MetricsServer(lambda number: response(page(9 - number, start=number))) as server:
        done = top(server.address, "--once", "--interval=0.1")
        assert done.returncode == 0
        assert done.stdout.splitlines()[1] == (
            "the server has restarted between the two samples, so no rate is known"
        )
        as_json = json.loads(top(server.address, "--once", "--json", "--interval=0.1").stdout)
        assert (as_json["seconds"], as_json["requests"]) == (None, None)


def test_once_ends_with_an_interrupt_as_other_commands(server):
    process = subprocess.Popen(
        [sys.executable, "-m", "picowsgi", "top", server.address, "--once", "--interval=1h"],
        env=environ(),
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: server.requests, "the first sample")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=TIMEOUT)[1] == b""
    assert process.returncode == 130


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            (
                "top needs the ADDRESS of a server's --metrics; an application module of that name "
                "is served as top:app"
            ),
        ),
        (
            ["x"],
            (
                "ADDRESS: expected the address of a server's --metrics: HOST:PORT, "
                "http://HOST:PORT/metrics or unix:PATH; got 'x'"
            ),
        ),
        (["a:1", "--json"], "--json needs --once"),
        (
            ["a:1", "--interval", "0"],
            "--interval: expected a time from 0.1s to 3600s, such as 10, 2.5, 10s or 1m, got '0'",
        ),
        (["a:1", "b:2"], "Got unexpected extra argument (b:2)"),
        (["a:1"], "standard output is no terminal that can show it; use --once"),
    ],
)
def test_a_mistake_is_one_line_and_a_status(arguments, message):
    done = top(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    first, *hint = done.stderr.splitlines()
    assert first == f"picowsgi: error: {message}"
    assert hint in ([], ["Try 'picowsgi top --help' for the options."])


def test_a_page_that_is_not_ours_is_one_line_and_status_1():
    with MetricsServer(lambda _number: response("up 1\n")) as server:
        done = top(server.address, "--once")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"picowsgi: error: the page of {server.address} has no metrics of picowsgi: "
            "picowsgi_info is missing\n"
        )


def test_the_help_describes_the_options():
    done = top("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: picowsgi top [OPTIONS] ADDRESS\n")
    assert set(re.findall(r"^  (--[a-z]+)", done.stdout, re.MULTILINE)) == {
        *("--interval", "--once", "--json", "--help"),
    }
    assert max(map(len, done.stdout.splitlines())) <= 80


# An application of that name

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application top"]
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("top:app", "--port", "0"),
        ("top.py", "--port", "0"),
        ("--port", "0", "top"),
        ("--port", "0", "--", "top"),
    ],
)
def test_an_application_may_still_be_called_top(command, tmp_path, arguments):
    (tmp_path / "top.py").write_text(APPLICATION)
    running = command("-m", "picowsgi", *arguments, directory=tmp_path)
    assert get(running)[1] == "the application top"
    assert running.stop() == 0


# The display


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Terminal:
    """`picowsgi top` in a pseudo-terminal of a size, and the text on its screen."""

    def __init__(self, *arguments, size=(80, 24), stdin=None, **more):
        self._outer, inner = pty.openpty()
        self.written = ""
        self.resize(*size)
        self.mode = termios.tcgetattr(inner)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", "top", *arguments],
            stdin=inner if stdin is None else stdin,
            stdout=inner,
            stderr=inner,
            env=environ(**more),
            start_new_session=True,
        )
        self.inner = inner

    def resize(self, columns, lines):
        fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys):
        os.write(self._outer, keys)

    def read(self, seconds):
        """Read what comes within this time; return whether there was something."""
        if not select.select([self._outer], [], [], seconds)[0]:
            return False
        self.written += os.read(self._outer, 65536).decode()
        return True

    def wait_for(self, condition, wanted):
        """Wait until the condition is true of the lines of the last screen."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(lines := self.lines()):
            assert time.monotonic() < deadline, f"expected {wanted}, got {lines} {self.written!r}"
            self.read(0.1)
        return lines

    def wait_for_text(self, pattern):
        return self.wait_for(
            lambda lines: re.search(pattern, "\n".join(lines)), f"the text {pattern!r}"
        )

    def lines(self):
        """Return the lines of the last whole screen, without colours."""
        frames = re.split(r"(?=\x1b\[1;1H)", self.written)
        whole = [frame for frame in frames[1:] if frame is not frames[-1] or "\x1b[J" in frame]
        if not whole:
            return []
        text = without_colours(whole[-1].partition("\x1b[?25h")[0])
        return re.findall(r"\x1b\[\d+;1H\x1b\[2K([^\x1b]*)", text)

    def finish(self):
        """Wait for the end, and check that the terminal is as before. Return the exit status."""
        wait_until(lambda: self.read(0.01) or self.process.poll() is not None, "the end")
        while self.process.poll() is None:
            self.read(0.01)
        while self.read(0.05):
            pass
        assert self.written.count("\x1b[?1049h") == self.written.count("\x1b[?1049l")
        assert self.written.count("\x1b[?25l") == self.written.count("\x1b[?25h")
        assert self.written.rpartition("\x1b[?1049h")[2].count(LEAVE) == 1
        assert termios.tcgetattr(self.inner) == self.mode
        return self.process.returncode

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.inner)
        os.close(self._outer)


@pytest.fixture
def terminal():
    with ExitStack() as stack:

        def start(*arguments, **more):
            one = Terminal(*arguments, **more)
            stack.callback(one.end)
            return one

        yield start


@pytest.mark.parametrize(
    "size", [(80, 24), (200, 60), (41, 24), (39, 40), (20, 10), (5, 3), (1, 1)]
)
def test_the_display_fits_a_terminal_of_any_size(terminal, server, size):
    shown = terminal(server.address, "--interval", "0.1", size=size)
    wait_until(lambda: shown.read(0.1) and len(server.requests) > 3, "four samples")
    lines = shown.wait_for(lambda lines: lines and not lines[0].startswith("w"), "a screen")
    assert max(map(len, lines)) <= size[0]
    assert len(lines) <= size[1]
    rows = [int(row) for row in re.findall(r"\x1b\[(\d+);1H", shown.written)]
    assert max(rows) <= size[1]
    if size[0] >= 41:
        shown.wait_for_text(r"\nrequests +\d+/s +2xx ")
    shown.press(b"q")
    assert shown.finish() == 0


def test_a_new_size_is_used_at_once(terminal, server):
    shown = terminal(server.address, "--interval", "1h", size=(80, 24))
    shown.wait_for_text(r"\nCPU ")
    shown.resize(30, 10)
    lines = shown.wait_for(
        lambda lines: 0 < len(lines) <= 10 and max(map(len, lines)) <= 30, "a smaller screen"
    )
    assert len(lines) == 10
    shown.resize(120, 40)
    shown.wait_for(lambda lines: "up " in lines[0] if lines else False, "a larger screen")
    shown.press(b"Q")
    assert shown.finish() == 0


def test_the_history_grows_with_the_samples(terminal, server):
    shown = terminal(server.address, "--interval", "0.1")
    shown.wait_for_text(r"requests/s +[▁▂▃▄▅▆▇█]{4,}  highest \d+")
    assert "█" in shown.written
    shown.press(b"q")
    assert shown.finish() == 0


def test_a_terminal_without_unicode_gets_ascii(terminal, server):
    shown = terminal(
        server.address, "--interval", "0.1", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C"
    )
    shown.wait_for_text(r"requests/s +[_.:=+*#-]{4,}  highest \d+")
    assert shown.written.isascii()
    shown.press(b"q")
    assert shown.finish() == 0


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_removes_the_colours(terminal, server, more, coloured):
    shown = terminal(server.address, "--interval", "0.1", **more)
    shown.wait_for_text("2xx ")
    shown.press(b"q")
    assert shown.finish() == 0
    assert ("\x1b[32m2xx" in shown.written) == coloured
    assert bool(re.search(r"\x1b\[[1-9]", shown.written.replace("1H", ""))) or not coloured


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_a_signal_restores_the_terminal(terminal, server, number, status):
    shown = terminal(server.address)
    shown.wait_for_text("\nCPU ")
    shown.process.send_signal(number)
    assert shown.finish() == status


def test_ctrl_c_in_the_terminal_ends_the_display(server):
    # Only a process whose terminal is its controlling one gets the signal of the key.
    pid, outer = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "picowsgi", "top", server.address],
            environ(),
        )
    written = b""
    try:
        while b"CPU" not in written:
            assert select.select([outer], [], [], TIMEOUT)[0], f"expected a screen, got {written}"
            written += os.read(outer, 65536)
        os.write(outer, b"\x03")
        while b"\x1b[?1049l" not in written:
            assert select.select([outer], [], [], TIMEOUT)[0], f"expected the end, got {written}"
            written += os.read(outer, 65536)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert b"^C" not in written
    finally:
        os.close(outer)


def state_of(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopped_display_gives_the_terminal_back_and_continues(terminal, server):
    shown = terminal(server.address, "--interval", "0.1")
    shown.wait_for_text("\nCPU ")
    shown.process.send_signal(signal.SIGTSTP)
    eventually(lambda: state_of(shown.process) == "T", "the process to stop")
    while shown.read(0.05):
        pass
    assert shown.written.endswith(LEAVE)
    assert termios.tcgetattr(shown.inner) == shown.mode
    count = len(server.requests)
    shown.written = ""
    shown.process.send_signal(signal.SIGCONT)
    shown.wait_for_text("\nCPU ")
    assert ENTER in shown.written
    wait_until(lambda: shown.read(0.1) and len(server.requests) > count + 2, "more samples")
    shown.written = ENTER + shown.written.replace(ENTER, "")
    shown.press(b"q")
    assert shown.finish() == 0


def test_a_terminal_that_takes_no_bytes_does_not_hold_up_the_end(terminal, server):
    shown = terminal(server.address, "--interval", "0.1")
    shown.wait_for_text("\nCPU ")
    os.set_blocking(shown.inner, False)
    with suppress(BlockingIOError):
        while os.write(shown.inner, b"x" * 4096):
            pass
    os.set_blocking(shown.inner, True)
    count = len(server.requests)
    wait_until(lambda: len(server.requests) > count + 2, "a sample that cannot be shown")
    shown.process.terminate()
    assert shown.process.wait(TIMEOUT) == 143
    assert termios.tcgetattr(shown.inner) == shown.mode


def test_a_server_that_goes_away_is_shown_and_found_again(terminal):
    with MetricsServer() as server:
        shown = terminal(server.address, "--interval", "0.1")
        shown.wait_for_text(r"\nrequests +\d+/s")
    shown.wait_for_text(
        f"no metrics from {server.address}: Connection refused\n"
        r"trying again every 0\.1 s; the numbers are \d+ s old\n"
    )
    with MetricsServer(lambda number: response(page(number, start=2000.0)), port=server.port):
        shown.wait_for_text(r"every 0\.1 s; press q to quit\nrequests +\d+/s")
        assert "the server has restarted" in without_colours(shown.written)
        shown.press(b"q")
        assert shown.finish() == 0
    assert not re.search(r"-\d", shown.written), "expected no negative number"


def test_the_display_may_start_before_the_server(terminal, tmp_path):
    path = tmp_path / "s"
    shown = terminal(f"unix:{path}", "--interval", "0.1")
    shown.wait_for_text("No such file or directory\ntrying again every 0.1 s$")
    with MetricsServer(path=path):
        shown.wait_for_text(r"\nrequests +\d+/s")
        shown.press(b"q")
        assert shown.finish() == 0


def test_a_server_that_does_not_respond_leaves_the_keys_working(terminal):
    with MetricsServer(lambda _number: None) as server:
        shown = terminal(server.address)
        shown.wait_for_text("waiting for the first sample")
        wait_until(lambda: server.requests, "a request")
        shown.press(b"q")
        assert shown.finish() == 0


def test_the_first_page_that_is_not_ours_ends_the_display_with_one_line(terminal):
    with MetricsServer(lambda _number: response("up 1\n")) as server:
        shown = terminal(server.address)
        assert shown.finish() == 1
        after = shown.written.rpartition(LEAVE)[2]
        assert after == (
            f"picowsgi: error: the page of {server.address} has no metrics of picowsgi: "
            "picowsgi_info is missing\r\n"
        )


def test_a_later_page_that_is_malformed_is_shown(terminal):
    with MetricsServer(
        lambda number: response(page(number) if number != 3 else "picowsgi_info")
    ) as server:
        shown = terminal(server.address, "--interval", "0.3", size=(120, 24))
        shown.wait_for_text(r"no metrics page: line 1: expected NAME\{LABELS\} VALUE")
        shown.wait_for_text(r"press q to quit\nrequests +\d+/s")
        shown.press(b"q")
        assert shown.finish() == 0


def test_without_a_keyboard_the_display_shows_the_server(terminal, server):
    shown = terminal(server.address, stdin=subprocess.DEVNULL)
    shown.wait_for_text("\nCPU ")
    shown.process.terminate()
    assert shown.finish() == 143


def test_a_dumb_terminal_is_refused(terminal, server):
    shown = terminal(server.address, TERM="dumb")
    wait_until(lambda: shown.read(0.1) and "--once" in shown.written, "the error")
    assert shown.process.wait(TIMEOUT) == 2
    assert "\x1b" not in shown.written
