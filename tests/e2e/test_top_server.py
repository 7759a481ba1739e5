"""`picowsgi top` with a running server."""

from __future__ import annotations

import json
import os
import platform
import signal
import threading

import pytest

from picowsgi import __version__
from support import TIMEOUT, connect
from support.processes import Load, ask, children, write_app
from support.screen import Terminal, top


@pytest.fixture
def site(picowsgi, tmp_path):
    """A server with two workers: its process, and the address of its metrics."""
    write_app(tmp_path)
    metrics = f"unix:{tmp_path}/metrics"
    running = picowsgi(
        *("app:app", "--workers", "2", "--threads", "3", "--metrics", metrics), directory=tmp_path
    )
    yield running, metrics
    assert running.stop() == 0


def test_the_numbers_are_those_of_the_server(site):
    running, metrics = site
    with Load(running.port):
        done = top(metrics, "--once", "--json", "--interval", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == __version__
    assert found["python"] == platform.python_version()
    assert found["poller"] in ("epoll", "poll", "kqueue")
    assert 0 < found["uptime"] < 60
    assert 1 <= found["seconds"] < 10
    assert found["requests"] > 0
    assert found["statuses"]["2xx"] == found["requests"]
    count = found["requests"] * found["seconds"]
    # The server counts a request and its duration one after the other.
    assert found["duration"]["count"] == pytest.approx(count, abs=10)
    for name in ("duration", "queue"):
        percentiles = found[name]["percentiles"]
        values = [percentiles[each]["value"] for each in ("p50", "p90", "p99")]
        assert values == sorted(values)
        assert 0 < found[name]["mean"] < 1
    assert (found["workers"], found["threads"]) == (2, 6)
    assert 0 <= found["threads_busy"] <= 6
    assert found["queue_length"] is not None
    assert found["connections_idle"] + found["connections_active"] > 0
    for name in ("accepted", "received", "sent", "cpu", "memory"):
        assert found[name] > 0, name
    assert (found["refused"], found["refused_total"], found["restarts"]) == (0, {}, {})


@pytest.fixture
def shown(site):
    """The display of that server, in a terminal."""
    with Terminal(site[1], "--interval", "0.2") as one:
        yield one


def test_the_display_shows_a_killed_worker_a_refusal_and_busy_threads(site, shown, tmp_path):
    running, _ = site
    shown.wait_for_text(r"\nthreads +busy 0 of 6  queue 0\nworkers +2  restarts 0\n")
    with connect(running) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
    shown.wait_for_text(r"\nrefused +[\d.]+/s +total 1 \([a-z_]+ 1\)")
    before = children(running.process.pid)
    os.kill(before[0], signal.SIGKILL)
    shown.wait_for_text(r"\nworkers +2  restarts 1 \(signal 1\)\n")
    waiting = threading.Thread(target=ask, args=(running.port, "/hold"))
    waiting.start()
    shown.wait_for_text(r"\nthreads +busy 1 of 6  queue 0\n")
    (tmp_path / "release").touch()
    waiting.join(TIMEOUT)
    shown.wait_for_text(r"\nthreads +busy 0 of 6  queue 0\n")
    shown.press(b"q")
    assert shown.finish() == 0
