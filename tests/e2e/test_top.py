"""`picowsgi top` as a command: its text and JSON, its mistakes, and applications of that name."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from support import TIMEOUT, wait_until
from support.development import get
from support.metrics_server import MetricsServer, page, response
from support.screen import environ, top


@pytest.fixture
def server():
    with MetricsServer() as one:
        yield one


# Once


def test_once_prints_a_line_for_each_label(server):
    done = top(server.address, "--once", "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"picowsgi 1.2.3 at {server.address}  Python 3.12.1  epoll  up ")
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
