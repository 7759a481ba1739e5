"""The option --poller: each poller of the build serves, and a missing one is refused."""

import threading
from pathlib import Path

import pytest

import picowsgi as package
from picowsgi import core
from picowsgi.errors import ConfigError
from support import TIMEOUT, connect, cpu_seconds, exchange, open_descriptors, raw, wait_until

ALL = ("epoll", "kqueue", "poll")
MISSING = [name for name in ALL if name not in core.POLLERS]
LARGE = b"0123456789abcdef" * (1 << 18)  # 4 MiB: more than the system takes at once
EPOLL = "anon_inode:[eventpoll]"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

each = pytest.mark.parametrize("poller", core.POLLERS)


def descriptors(pid):
    """The open descriptors of the process, as the kernel names them."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # closed in the meantime
            continue
    return found


def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [environ["wsgi.input"].read()]


@each
def test_the_server_waits_with_the_chosen_poller(picowsgi, poller):
    server = picowsgi("--poller", poller, "--workers", "2")
    assert raw(server, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200 OK\r\n"
    )
    workers = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    assert len(workers.split()) == 2
    for worker in workers.split():
        # The kqueue of the tests is made of epoll.
        assert (EPOLL in descriptors(worker)) == (poller != "poll")
    assert server.stop() == 0


def test_the_environment_chooses_the_poller_too(picowsgi):
    server = picowsgi("--poller", "auto", environ={"PICOWSGI_POLLER": "poll"})
    assert EPOLL in descriptors(server.process.pid)
    server = picowsgi(environ={"PICOWSGI_POLLER": "poll"})
    assert EPOLL not in descriptors(server.process.pid)


@each
def test_content_larger_than_the_socket_buffers_goes_both_ways(serve, poller):
    server = serve(echo, poller=poller)
    with connect(server) as client:
        for _ in range(2):  # on one connection, which has been full before
            head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(LARGE)}\r\n\r\n"
            assert client.send(head.encode() + LARGE)
            assert client.read_response().content == LARGE


@each
def test_the_poller_watches_a_connection_that_another_thread_hands_back(serve, poller):
    # All threads but one are in the application while the last one waits for events.
    inside, leave = threading.Semaphore(0), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            inside.release()
            leave.wait(TIMEOUT)
        return echo(environ, start_response)

    server = serve(app, poller=poller, threads=4, timeout_keep_alive=60)
    clients = [connect(server) for _ in range(3)]
    for client in clients:
        client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    for _ in clients:
        assert inside.acquire(timeout=TIMEOUT)
    assert exchange(server, GET)[0].status == 200
    leave.set()
    for client in clients:
        assert client.read_response().status == 200
    for client in clients:
        with client:
            client.send(GET)
            assert client.read_response().status == 200


@each
def test_a_client_that_half_closes_gets_its_response_and_a_closed_connection_is_freed(
    serve, poller
):
    server = serve(echo, poller=poller)
    before = open_descriptors()
    with connect(server) as client:
        client.send(GET)
        client.half_close()
        assert client.read_response().status == 200
    idle, half, reset = connect(server), connect(server), connect(server)
    half.send(b"GET / HT")
    reset.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    wait_until(lambda: open_descriptors() == before + 6, "three connections with two ends each")
    idle.close()
    half.close()
    reset.reset()
    wait_until(lambda: open_descriptors() == before, "all of their descriptors to be closed")


@pytest.mark.measured
@each
def test_an_idle_server_does_not_spin(serve, poller):
    server = serve(echo, poller=poller)
    with connect(server) as unread, connect(server) as idle:
        unread.send(GET * 2)
        idle.send(b"GET / HT")
        unread.read_response()
        unread.read_response()
        before = cpu_seconds()
        threading.Event().wait(0.3)
        assert cpu_seconds() - before < 0.1, "expected the server to wait"


@pytest.mark.parametrize("poller", MISSING)
def test_a_poller_that_the_build_lacks_is_refused_and_the_message_lists_the_others(
    picowsgi, poller
):
    expected = f"expected a poller of this build, which has auto, {', '.join(core.POLLERS)}, got "
    server = picowsgi("--poller", poller, listens=False)
    assert server.wait() == 2
    assert f"picowsgi: error: --poller: {expected}{poller!r}\n" in server.log
    server = picowsgi(environ={"PICOWSGI_POLLER": poller}, listens=False)
    assert server.wait() == 2
    assert f"PICOWSGI_POLLER in the environment: {expected}{poller!r}\n" in server.log
    with pytest.raises(ConfigError, match=f"option poller: {expected}"):
        package.Server(echo, poller=poller)


def test_an_unknown_poller_is_refused():
    with pytest.raises(
        ConfigError, match="expected one of auto, epoll, kqueue, poll, got 'select'"
    ):
        package.Server(echo, poller="select")


def test_the_build_lists_its_pollers_and_the_default_comes_first():
    first, *others = core.POLLERS
    assert f"{first} (or {', '.join(others)})" in core.build()
    assert others == ["poll"]
