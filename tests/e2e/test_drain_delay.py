"""--drain-delay: after SIGTERM the server is unready, and still serves for a while."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack

import pytest

from support import RawClient, connect
from support.held import HOLDING_APP, Held, hold_on
from support.processes import ask, children, eventually, is_refused, lives, write_app
from support.stops import (
    MODES,
    TERM,
    TWO,
    UNSHARE,
    Terminal,
    can_be_first,
    reload,
    start_as_first,
    to_group,
    to_process,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LONG = ("--drain-delay", "60")
PROBES = ("--health", "/ready", "--health-live", "/live")


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def probe(port, path="/ready"):
    """Return the status of a health check over a connection of its own."""
    with RawClient(port) as client:
        client.send(get(path))
        return client.read_response().status


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    def start(*options, **more):
        write_app(tmp_path, HOLDING_APP)
        return picowsgi("app:app", *PROBES, *options, directory=tmp_path, **more)

    return start


def is_unready(command):
    # Each connection may reach another worker.
    return all(probe(command.port) == 503 for _ in range(8))


@MODES
@pytest.mark.parametrize("send", [to_process, to_group])
def test_during_the_delay_the_server_serves_and_health_checks_see_the_stop(
    serve_app, options, send
):
    command = serve_app(*LONG, *options)
    assert probe(command.port) == probe(command.port, "/live") == 200
    before = children(command.process.pid)
    with connect(command) as kept:
        kept.send(get("/ready"))
        response = kept.read_response()
        assert (response.status, response.tokens("connection")) == (200, [])
        for _ in range(3):
            send(command, TERM)
            eventually(lambda: is_unready(command), "health checks to get a 503")
        assert probe(command.port, "/live") == 200
        assert ask(command.port)  # a new connection
        kept.send(get("/"))  # a connection that was open
        response = kept.read_response()
        assert (response.status, response.tokens("connection")) == (200, ["close"])
        kept.read_nothing_more()
    assert children(command.process.pid) == before, "expected the same processes to serve"
    assert command.log.count("stopping in 60 s") == 1


@MODES
def test_after_the_delay_the_server_stops_as_without_the_delay(serve_app, tmp_path, options):
    command = serve_app("--drain-delay", "0.5", *options)
    with Held(tmp_path, command.port, 4) as held:
        began = time.monotonic()
        command.process.terminate()
        eventually(lambda: is_refused(command.port), "new connections to be refused")
        assert time.monotonic() - began >= 0.5
        held.check_that_all_are_answered()
    assert command.wait() == 0
    assert "error" not in command.log, command.log


@MODES
def test_a_second_ctrl_c_ends_the_delay(tmp_path, options):
    with Terminal(tmp_path, *LONG, *PROBES, *options) as terminal:
        terminal.press_ctrl_c()
        eventually(lambda: is_unready(terminal), "health checks to get a 503")
        hold_on(terminal, 0.2)  # or the two signals become one
        terminal.press_ctrl_c()
        assert terminal.process.wait(5) == 0


@pytest.mark.parametrize("options", [(), TWO], ids=["one process", "two workers"])
def test_a_reload_does_not_wait_and_leaves_the_server_ready(serve_app, options):
    command = serve_app(*LONG, *options)
    reload(command)
    assert all(probe(command.port) == 200 for _ in range(8))
    command.process.terminate()
    eventually(lambda: is_unready(command), "health checks to get a 503")


def test_a_retiring_worker_reports_the_server_as_ready(serve_app, tmp_path):
    command = serve_app(*TWO)
    with Held(tmp_path, command.port, 1) as held, ExitStack() as stack:
        clients = [stack.enter_context(connect(command)) for _ in range(8)]
        for client in clients:
            client.send(get("/ready"))
            assert client.read_response().status == 200
            client.send(b"GET /ready HTTP/1.1\r\n")  # which a drain does not close as idle
        old = children(command.process.pid)
        reload(command)
        for client in clients:
            client.send(b"Host: a\r\n\r\n")
            response = client.read_response()
            assert (response.status, response.tokens("connection")) == (200, ["close"])
        held.check_that_all_are_answered()
    eventually(lambda: not any(map(lives, old)), "the old workers to end")


def test_a_worker_that_starts_during_the_delay_is_unready_too(serve_app):
    command = serve_app(*LONG, *TWO)
    command.process.terminate()
    eventually(lambda: is_unready(command), "health checks to get a 503")
    old = children(command.process.pid)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(children(command.process.pid)) - set(old)) == 2, "other workers")
    eventually(lambda: is_unready(command), "health checks to get a 503")


def test_a_worker_that_gets_the_signal_alone_is_replaced_before_it_stops(serve_app, tmp_path):
    command = serve_app(*LONG, *TWO)
    with Held(tmp_path, command.port, 1) as held:
        (busy,) = held.running()
        os.kill(busy, TERM)
        command.wait_for_log(f"worker {busy} is to be replaced")
        eventually(lambda: len(children(command.process.pid)) == 3, "another worker")
        assert all(probe(command.port) == 200 for _ in range(8))
        held.check_that_all_are_answered()
    eventually(lambda: not lives(busy), "the worker to end")


def test_beside_a_successor_the_old_server_stops_at_once(serve_app, tmp_path):
    pid_file = tmp_path / "server.pid"
    command = serve_app(*LONG, "--pid", pid_file)
    command.process.send_signal(signal.SIGUSR2)
    command.wait_for_log("serves too")
    successor = int(pid_file.read_text())
    assert command.stop() == 0
    assert probe(command.port) == 200
    os.kill(successor, signal.SIGKILL)


@pytest.mark.skipif(not can_be_first(), reason=f"needs {UNSHARE[0]} and the right to use it")
@MODES
def test_as_process_1_the_server_serves_during_the_delay(command, tmp_path, options):
    write_app(tmp_path, HOLDING_APP)
    command = start_as_first(command, tmp_path, *LONG, *PROBES, *options)
    (first,) = children(command.process.pid)
    for _ in range(2):
        os.kill(first, TERM)
        eventually(lambda: is_unready(command), "health checks to get a 503")
    assert ask(command.port)


def test_workers_stop_when_their_supervisor_is_killed_during_the_delay(serve_app):
    command = serve_app(*LONG, *TWO)
    workers = children(command.process.pid)
    command.process.terminate()
    eventually(lambda: is_unready(command), "health checks to get a 503")
    command.process.kill()
    eventually(lambda: not any(map(lives, workers)), "the workers to end")
