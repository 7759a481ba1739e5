"""What other clients get while one asks for as much as it can.

Counted in requests of the application, not in time: what else the machine does changes nothing.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from statistics import median

import pytest

from support import RawClient, connect, wait_until

TURN = 32  # requests of one connection, before the turn of the others
MANY = 6000
FLOOD = b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n" * MANY
COUNT = b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n"


def counting(wait):
    """Make an application that takes a while for each request, and counts the requests."""
    count = 0

    def application(environ, start_response):
        nonlocal count
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        if environ["PATH_INFO"] == "/count":
            return [b"%d" % count]
        count += 1
        wait()
        return [b"x"]

    return application


def compute():
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass


@contextmanager
def flooding(server, clients=1):
    """Clients that send many requests ahead, and read the responses."""

    def flood():
        with RawClient(server.port, timeout=60) as client:
            client.send(FLOOD)
            while not over.is_set() and not client.is_over():
                client.read_response()

    over = threading.Event()
    threads = [threading.Thread(target=flood) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def count_of(client):
    client.send(COUNT)
    return int(client.read_response().content)


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("wait", [compute, lambda: time.sleep(0.001)], ids=["computes", "sleeps"])
@pytest.mark.parametrize("floods", [1, 3])
def test_other_clients_wait_for_one_slice_of_a_pipelining_client_and_not_for_all_of_it(
    serve, wait, threads, floods
):
    server = serve(counting(wait), threads=threads)
    with connect(server) as client, flooding(server, floods):
        wait_until(lambda: count_of(client) > 0, "the flood to begin")
        before = count_of(client)
        waited = []
        for _ in range(12):
            now = count_of(client)
            waited.append(now - before)
            before = now
        # The current turn, and one more until this client has sent its next request.
        assert median(waited) <= 2 * TURN * floods, f"waited for so many requests: {waited}"
        assert before < MANY * floods / 2, "expected the flood to continue"
