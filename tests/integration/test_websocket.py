"""WebSocket applications for threaded servers, with the websockets client and a browser."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support import open_descriptors, wait_until
from support.development import edit, get
from support.processes import children

pytestmark = pytest.mark.timeout(120)

TIMEOUT = 20.0
APPS = Path(__file__).parent / "apps"
SITE = APPS / "websocket_site.py"


def open_socket(server, path="/echo"):
    url = server.url.replace("http:", "ws:")
    return connect(url + path, open_timeout=TIMEOUT, close_timeout=TIMEOUT, max_size=None)


def receive(socket):
    return socket.recv(TIMEOUT)


def receive_all(socket):
    while True:
        receive(socket)


def say(socket, message):
    socket.send(message)
    found = receive(socket)
    assert type(found) is type(message)
    assert found == message


@pytest.fixture
def site(tmp_path):
    """A folder with the application as app.py."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "app.py").write_text(SITE.read_text())
    return folder


@pytest.fixture
def start(command, site):
    """Start the application in the folder: `start("picowsgi", "--threads", "4")`."""
    ways = {
        "picowsgi": ("-m", "picowsgi", "--port", "0", "app:app"),
        "gunicorn": (
            "-m",
            "gunicorn",
            "--worker-class",
            "picowsgi.contrib.gunicorn.Worker",
            "--no-control-socket",
            "--bind",
            "127.0.0.1:0",
            "app:app",
        ),
        "flask": ("-m", "flask", "--app", "app", "picowsgi", "--port", "0"),
    }

    def run(way, *options, **more):
        return command(*ways[way], *options, directory=site, stdout=True, **more)

    return run


SERVERS = pytest.mark.parametrize(
    ("way", "options"),
    [
        ("picowsgi", ()),
        ("picowsgi", ("--workers", "2")),
        ("picowsgi", ("--poller", "poll")),
        ("gunicorn", ("--threads", "16")),
        ("gunicorn", ("--threads", "16", "--workers", "2", "--access-logfile", "-")),
        ("flask", ()),
        ("flask", ("--debug",)),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if type(value) is tuple else value,
)


@SERVERS
def test_every_server_speaks_websocket(start, way, options):
    server = start(way, *options)
    with open_socket(server) as socket:
        say(socket, "text \N{SNOWMAN}")
        say(socket, bytes(range(256)))
        say(socket, "")
        say(socket, os.urandom(1 << 20))
        say(socket, "large" * 300_000)
        assert socket.ping().wait(TIMEOUT), "expected a pong"
        assert get(server, "/pid")[0].status == 200
        socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            receive(socket)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you like")
    with open_socket(server) as socket:
        say(socket, "the client closes")
    assert socket.close_code == 1000
    with open_socket(server, "/fail-first") as socket, pytest.raises(ConnectionClosed):
        receive(socket)
    server.wait_for_log("RuntimeError: after the handshake")
    with pytest.raises(InvalidStatus) as refused, open_socket(server, "/fail-before"):
        pass
    assert refused.value.response.status_code == 500
    server.wait_for_log("RuntimeError: before the handshake")
    if "--access-logfile" in options:
        server.wait_for_log('"GET /echo HTTP/1.1" 101 ', 2)
    assert (server.interrupt() if way == "flask" else server.stop()) == 0
    assert "the client has gone" not in server.log
    assert "left behind" not in server.log


def test_a_server_in_a_thread_speaks_websocket(serve, load_app, caplog):
    server = serve(load_app("websocket_site.py").app, threads=4)
    with open_socket(server) as socket:
        say(socket, "text")
        say(socket, b"bytes")
    with open_socket(server) as socket:
        say(socket, "open at the end")
        server.stop()
        with pytest.raises(ConnectionClosed):
            receive(socket)
    assert caplog.messages == []


def test_django_speaks_websocket_in_its_development_server(runserver, surveys):
    urls = surveys / "surveys" / "urls.py"
    urls.write_text(
        urls.read_text()
        + """
import simple_websocket
from django.http import HttpResponse

def echo(request):
    ws = simple_websocket.Server(request.environ)
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        return HttpResponse()

urlpatterns.append(path("echo", echo))
"""
    )
    server = runserver("--nostatic")
    with open_socket(server) as socket:
        say(socket, "from Django")
        assert server.interrupt() == 0
        with pytest.raises(ConnectionClosed):
            receive(socket)
    assert "Traceback" not in server.log


# --- many connections, and clients that disappear ------------------------------------------------


def test_a_hundred_connections_are_open_at_once(start):
    server = start("picowsgi", "--threads", "101")
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(server)) for _ in range(100)]
        for number, socket in enumerate(sockets):
            socket.send(f"number {number}")
        for number, socket in enumerate(sockets):
            assert receive(socket) == f"number {number}"
        assert get(server, "/pid")[0].status == 200
        before = open_descriptors(server.process.pid)
    names = set()
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(server, "/thread")) for _ in range(100)]
        names = {receive(socket) for socket in sockets}
    assert len(names) == 100, "expected a thread for each connection"
    wait_until(
        lambda: open_descriptors(server.process.pid) < before - 150, "the descriptors to be closed"
    )
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_clients_that_disappear_free_their_threads(start):
    server = start("picowsgi", "--threads", "2")
    before = None
    for path in ("/echo", "/ticks") * 5:
        socket = open_socket(server, path).__enter__()
        if path == "/echo":
            say(socket, "hello")
        else:
            assert receive(socket) == "tick"
        socket.socket.shutdown(2)
        socket.socket.close()
        assert get(server, "/pid")[0].status == 200
        before = before or open_descriptors(server.process.pid)
    wait_until(
        lambda: open_descriptors(server.process.pid) <= before + 1, "the descriptors to be closed"
    )
    assert server.stop() == 0
    assert "Traceback" not in server.log


# --- reload and stop -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])
def test_open_connections_do_not_delay_the_end(start, how, options):
    server = start("picowsgi", *options)
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(server)) for _ in range(4)]
        sockets.append(stack.enter_context(open_socket(server, "/ticks")))
        for socket in sockets:
            socket.send("still open")
            receive(socket)
        began = time.monotonic()
        assert server.stop(how) == 0
        assert time.monotonic() - began < TIMEOUT / 2
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                receive_all(socket)
    assert "left behind" not in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])
def test_a_reload_ends_open_connections_and_new_ones_reach_the_new_process(start, options):
    server = start("picowsgi", *options)
    with open_socket(server, "/pid-of-socket") as socket:
        old = receive(socket)
        server.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed):
            receive(socket)
        server.wait_for_log("info: reloaded")
        with open_socket(server, "/pid-of-socket") as another:
            assert receive(another) != old
    if options:
        wait_until(lambda: int(old) not in children(server.process.pid), "the old worker to end")
    assert server.stop() == 0
    assert "left behind" not in server.log


@pytest.mark.parametrize(
    ("way", "options"),
    [("picowsgi", ("--reload",)), ("flask", ("--debug",))],
    ids=["picowsgi", "flask"],
)
def test_a_save_ends_open_connections_and_new_ones_run_the_new_code(start, site, way, options):
    server = start(way, *options)
    with open_socket(server) as socket:
        say(socket, "before")
        edit(server, site / "app.py", "ws.send(message)", 'ws.send(f"new {message}")')
        with pytest.raises(ConnectionClosed):
            receive(socket)

    def is_new():
        try:
            with open_socket(server) as another:
                another.send("code")
                return receive(another) == "new code"
        except (ConnectionClosed, OSError, InvalidStatus):
            return False

    wait_until(is_new, "the new code", TIMEOUT)
    server.interrupt()
    assert "Traceback" not in server.log


# --- Flask-SocketIO ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "options"),
    [("picowsgi", ()), ("gunicorn", ("--threads", "8"))],
    ids=["picowsgi", "gunicorn"],
)
def test_flask_socketio_uses_websocket(start, way, options):
    server = start(way, *options)
    with open_socket(server, "/socket.io/?EIO=4&transport=websocket") as socket:
        assert receive(socket).startswith("0{"), "expected the handshake of engine.io"
        socket.send("40")
        assert receive(socket).startswith("40{"), "expected the handshake of socket.io"
        socket.send('42["say","hello"]')
        assert receive(socket) == '42["said",["hello","GET"]]'
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_flask_socketio_upgrades_from_polling(start):
    server = start("picowsgi")
    target = "/socket.io/?EIO=4&transport=polling"
    opened = get(server, target)[1]
    name = opened.partition('"sid":"')[2].partition('"')[0]
    with open_socket(server, f"/socket.io/?EIO=4&transport=websocket&sid={name}") as socket:
        socket.send("2probe")
        assert receive(socket) == "3probe"
        socket.send("5")
        socket.send("40")
        assert receive(socket) == "6", "expected the end of polling"
        assert receive(socket).startswith("40{")
        socket.send('42["say","hello"]')
        assert receive(socket).startswith('42["said",["hello",')
    assert server.stop() == 0
    assert "Traceback" not in server.log


# --- a browser -----------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize(
    ("way", "options"),
    [("picowsgi", ()), ("flask", ("--debug",))],
    ids=["picowsgi", "flask"],
)
def test_a_browser_speaks_websocket(browser, start, way, options):
    server = start(way, *options)
    browser.get(server.url + "/")
    expected = "begun|text é|bytes 0 255 10|large 200000|closed 4001 as you like"

    def text():
        return browser.execute_script("return document.getElementById('log').textContent")

    wait_until(lambda: text().count("|") >= 4, "the browser's messages")
    assert text() == expected


@pytest.mark.browser
def test_a_browser_connects_again_after_a_save(browser, start, site):
    server = start("picowsgi", "--reload")
    browser.get(server.url + "/")
    browser.execute_script(
        """
        window.found = [];
        const again = () => {
          const socket = new WebSocket(location.origin.replace("http", "ws") + "/echo");
          socket.onopen = () => socket.send("hello");
          socket.onmessage = event => window.found.push(event.data);
          socket.onclose = () => setTimeout(again, 50);
        };
        again();
        """
    )
    found = "return window.found"
    wait_until(lambda: browser.execute_script(found) == ["hello"], "the first message")
    edit(server, site / "app.py", "ws.send(message)", 'ws.send(f"new {message}")')
    wait_until(
        lambda: browser.execute_script(found)[-1] == "new hello", "the message of the new code", 20
    )
    browser.get("about:blank")
    assert server.stop() == 0
