"""`--head-memory-total` limits the memory for clients that have not sent a whole request."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from support import RawClient, connect, resident_bytes, site, wait_until

MEBIBYTE = 1 << 20
LARGE_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 60_000
PING = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"pong"]
"""


def statuses(clients):
    """The number of clients with each status. None: they have no response."""
    found = {}
    for client in clients:
        status = None
        if client.read_some(1 << 16) or client.received:
            status = int(client.received.split()[1])
        found[status] = found.get(status, 0) + 1
    return found


@pytest.mark.unsanitized
def test_incomplete_heads_of_many_clients_keep_to_their_limit_of_memory(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    server = picowsgi(
        "--head-memory-total", "8M", "--timeout-head", "60", "app:app", directory=tmp_path
    )
    count = 700  # 43 MiB, each in a buffer of 64 KiB
    with ExitStack() as stack:
        early = stack.enter_context(RawClient(server.port))
        early.send(PING[:20])
        before = resident_bytes(server.process.pid)
        clients = [stack.enter_context(RawClient(server.port)) for _ in range(count)]
        for client in clients:
            client.send(LARGE_HEAD)
        wait_until(
            lambda: statuses(clients).get(503, 0) >= count - 129, "most clients to be refused"
        )
        after = resident_bytes(server.process.pid)
        assert after - before < 16 * MEBIBYTE, f"grown by {(after - before) / MEBIBYTE:.0f} MiB"
        assert statuses(clients).get(None, 0) >= 100, statuses(clients)
        early.send(PING[20:])
        assert early.read_response().content == b"pong"
        clients[-1].send(b"\r\n\r\n")  # it came last, and the server kept it
        assert clients[-1].read_response().content == b"pong"
    server.wait_for_log("more than --head-memory-total, so some of these requests get a 503")
    assert server.log.count("--head-memory-total") == 1


def test_requests_that_wait_for_a_thread_keep_to_their_limit_of_memory(serve):
    release = threading.Event()

    def answer(_environ, start_response):
        release.wait(20)
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"late"]

    server = serve(site(answer), threads=1, head_memory_total="1M", max_head_size="128K")
    count = 60
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(count)]
            for client in clients:
                client.send(LARGE_HEAD + b"\r\n\r\n")
            wait_until(
                lambda: statuses(clients).get(503, 0) >= count // 2, "some clients to be refused"
            )
            release.set()
            wait_until(lambda: None not in statuses(clients), "the others to get responses")
            found = statuses(clients)
            assert set(found) == {200, 503}, found
            assert found[200] >= 8, found
            with connect(server) as client:
                client.send(PING)
                assert client.read_response().content == b"pong"
    finally:
        release.set()
