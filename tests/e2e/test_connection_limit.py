"""`--max-connections`, and the limit of descriptors that it depends on."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import RawClient, open_descriptors, wait_until
from support.processes import children

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n" + bytes(400_000)
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(environ["wsgi.input"].read())]
"""
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))
os.execv(sys.executable, [sys.executable, "-m", "picowsgi", "--port", "0", *sys.argv[1:]])
"""


@pytest.fixture
def limited(command, tmp_path):
    """`limited(soft, hard, *options)`: the command with these limits of descriptors."""
    (tmp_path / "app.py").write_text(APP)

    def start(soft, hard, *options):
        code = LIMITED.format(soft, hard)
        return command("-c", code, *options, "app:app", directory=tmp_path)

    return start


def limits_of(pid):
    [line] = re.findall("(?m)^Max open files .*", Path(f"/proc/{pid}/limits").read_text())
    return tuple(map(int, line.split()[3:5]))


def test_the_server_raises_the_soft_limit_to_what_the_connections_need(limited):
    command = limited(60, 1000, "--max-connections=100")
    assert limits_of(command.process.pid) == (164, 1000)
    assert "max-connections" not in command.log
    assert_so_many_are_served(command.port, 100)


def assert_so_many_are_served(port, most):
    """The server serves `most` connections. While all have a request, one more connection waits."""
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(most)]
        for client in clients:
            client.send(GET)
        for client in clients:
            assert client.read_response().content == b"0"
        for client in clients:  # there is still room for a file
            client.send(UPLOAD[:-1])
        late = stack.enter_context(RawClient(port))
        late.send(GET)
        for client in clients[1:]:
            client.send(UPLOAD[-1:])
            assert client.read_response().content == b"400000"
            client.send(UPLOAD[:-1])
        assert late.read_some(1) == 0, f"expected connection {most + 1} to wait"
        clients[0].send(UPLOAD[-1:])
        assert clients[0].read_response().content == b"400000"
        clients[0].read_nothing_more()  # because it is the only idle one
        assert late.read_response().content == b"0"


def test_at_the_limit_the_longest_idle_connection_is_closed_for_a_new_one(serve):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["REMOTE_PORT"].encode()]

    server = serve(app, max_connections=3, timeout_drain=0.05)
    with ExitStack() as stack:
        clients = []
        for _ in range(12):
            client = stack.enter_context(RawClient(server.port))
            client.send(GET)
            assert client.read_response().content == str(client.local_port).encode()
            clients.append(client)
        for client in clients[:-3]:
            client.read_nothing_more()
        for client in clients[-3:]:
            client.send(GET)
            assert client.read_response().content == str(client.local_port).encode()


def test_a_client_that_keeps_sending_requests_keeps_its_connection(serve):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"content"]

    server = serve(app, max_connections=4, timeout_drain=0.01)
    with ExitStack() as stack:
        busy = stack.enter_context(RawClient(server.port))
        for _ in range(20):
            busy.send(GET)
            assert busy.read_response().content == b"content"
            stack.enter_context(RawClient(server.port))
        busy.send(GET)
        assert busy.read_response().content == b"content"


@pytest.mark.parametrize("options", [[], ["--workers=1", "--preload"]], ids=["inline", "worker"])
def test_a_low_hard_limit_lowers_the_number_of_connections(limited, options):
    command = limited(60, 90, *options)
    assert limits_of(command.process.pid) == (90, 90)
    text = "max-connections is lowered from 8192 to 45: a process may have 90 descriptors here"
    assert command.log.count(text) == 1, command.log
    assert_so_many_are_served(command.port, 45)
    [process] = children(command.process.pid) or [command.process.pid]
    wait_until(lambda: open_descriptors(process) < 60, "the connections to be closed")
    assert command.stop() == 0


def test_a_server_in_a_program_does_not_change_the_limits_of_the_process(serve):
    before = limits_of("self")
    server = serve(lambda environ, start_response: [], max_connections=500_000)
    assert server.settings.max_connections == 500_000
    assert limits_of("self") == before
