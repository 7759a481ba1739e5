"""The display of `picowsgi top` in a pseudo-terminal, with a server that sends made-up pages."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from support import TIMEOUT, wait_until
from support.metrics_server import MetricsServer, page, response
from support.processes import eventually
from support.screen import ENTER, LEAVE, Terminal, environ, without_colours


@pytest.fixture
def server():
    with MetricsServer() as one:
        yield one


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


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(terminal, server):
    shown = terminal(server.address, "--interval", "0.1", before='trap "" HUP;')
    shown.wait_for_text("\nCPU ")
    shown.process.send_signal(signal.SIGHUP)
    count = len(server.requests)
    wait_until(lambda: shown.read(0.1) and len(server.requests) > count + 2, "more samples")
    shown.press(b"q")
    assert shown.finish() == 0


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
    # In the session of its parent, in a group of its own: as a job of a shell.
    shown = terminal(server.address, "--interval", "0.1", start_new_session=False)
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


def test_a_display_that_no_shell_could_continue_does_not_stop(terminal, server):
    shown = terminal(server.address, "--interval", "0.1")
    shown.wait_for_text("\nCPU ")
    shown.written = ""
    shown.process.send_signal(signal.SIGTSTP)
    shown.wait_for_text("\nCPU ")
    wait_until(lambda: shown.read(0.1) and ENTER in shown.written, "another screen")
    assert state_of(shown.process) != "T"
    shown.written = shown.written.partition(LEAVE)[2]
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


def test_the_age_of_the_numbers_is_counted_between_two_samples(terminal):
    with MetricsServer() as server:
        shown = terminal(server.address, "--interval", "2")
        shown.wait_for_text("\nCPU ")
    # A sample fails at even seconds.
    shown.wait_for_text(r"trying again every 2 s; the numbers are \d*[13579] s old\n")
    shown.press(b"q")
    assert shown.finish() == 0


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
        assert re.sub(r"\x1b\[[0-9;]*m", "", after) == (
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
