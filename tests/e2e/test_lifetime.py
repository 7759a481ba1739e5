"""The life of a server: in a thread, in a process, on each type of socket, and its end."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest
import urllib3

from picowsgi import Server, __version__
from picowsgi.errors import BindError, ConfigError

TIMEOUT = 10.0


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


def get(url, path="/hello"):
    """Send a request over a connection of its own."""
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request("GET", url.rstrip("/") + path, timeout=TIMEOUT).data


def has_ipv6():
    """Return whether this machine lets us bind ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def short_path():
    """A directory whose paths fit the address of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="pw") as directory:
        yield Path(directory)


# --- in a thread --------------------------------------------------------------------------------


def test_a_server_is_a_context_manager_that_knows_its_url_and_port():
    with Server(application, port=0) as server:
        assert 0 < server.port < 65536
        assert server.url.rstrip("/") == f"http://127.0.0.1:{server.port}"
        assert get(server.url) == b"/hello"
        assert [one.getsockname() for one in server.sockets] == [("127.0.0.1", server.port)]


def test_a_stopped_server_has_joined_its_thread_and_does_not_listen():
    before = set(threading.enumerate())
    server = Server(application, port=0)
    server.start()
    assert set(threading.enumerate()) > before, "expected a thread of the server"
    port = server.port
    server.stop()
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def test_a_server_may_be_stopped_twice():
    with Server(application, port=0) as server:
        get(server.url)
        server.stop()
    server.stop()


def test_an_error_in_the_with_block_stops_the_server_and_is_raised():
    server = Server(application, port=0)
    with pytest.raises(ZeroDivisionError), server:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT)


def test_fifty_servers_one_after_the_other_leave_no_thread_and_no_descriptor():
    def serve_once():
        with Server(application, port=0) as server:
            # One connection stays open, so that the server ends it.
            connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
            connection.request("GET", "/hello")
            assert connection.getresponse().read() == b"/hello"
        connection.close()

    serve_once()
    gc.collect()
    threads, descriptors = set(threading.enumerate()), set(Path("/dev/fd").iterdir())
    for _ in range(50):
        serve_once()
    gc.collect()
    assert not set(threading.enumerate()) - threads, "expected no more threads"
    # Fewer than before is not our fault: earlier tests may have left garbage.
    assert len(set(Path("/dev/fd").iterdir())) <= len(descriptors), "expected no more descriptors"


def test_two_servers_run_at_the_same_time_with_an_application_each():
    def other(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"other"]

    with Server(application, port=0) as first, Server(other, port=0) as second:
        assert first.port != second.port
        for _ in range(3):
            assert (get(first.url), get(second.url)) == (b"/hello", b"other")
        first.stop()
        assert get(second.url) == b"other"


@pytest.mark.measured
def test_a_stop_ends_idle_connections_without_waiting_for_their_timeout():
    with (
        Server(application, port=0, timeout_keep_alive=60) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as idle,
    ):
        get(server.url)
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 1, "expected idle connections not to delay the end"
        assert idle.recv(1) == b""


def test_a_request_that_runs_during_a_stop_gets_its_response():
    running, stopping = threading.Event(), threading.Event()

    def slow(environ, start_response):
        running.set()
        assert stopping.wait(TIMEOUT)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"finished all the same"]

    def stop():
        running.wait(TIMEOUT)
        stopping.set()
        server.stop()

    with Server(slow, port=0) as server:
        stopper = threading.Thread(target=stop)
        stopper.start()
        assert get(server.url) == b"finished all the same"
        stopper.join(TIMEOUT)
        assert not stopper.is_alive(), "expected stop() to return when the request is over"


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=str(port)), Server(application, port=port):
            pass


def test_an_option_that_does_not_exist_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="port"):
        Server(application, prot=0)


# --- kinds of sockets ---------------------------------------------------------------------------


def ask_unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
        connection.sendall(b"GET /unix HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_unix_socket_serves_and_its_file_is_removed_afterwards(short_path):
    path = short_path / "socket"
    for _ in range(2):
        with Server(application, bind=[f"unix:{path}"]) as server:
            assert str(path) in server.url
            answer = ask_unix(path)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"/unix")
        assert not path.exists()


def test_the_environ_over_a_unix_socket_is_still_valid(short_path):
    from wsgiref.validate import validator

    path = short_path / "socket"
    seen = {}

    def keep(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"kept"]

    with Server(validator(keep), bind=[f"unix:{path}"]):
        assert ask_unix(path).startswith(b"HTTP/1.1 200 OK\r\n")
    for key in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR"):
        assert type(seen[key]) is str, key


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_ipv6_serves_and_its_url_has_brackets():
    with Server(application, bind=["[::1]:0"]) as server:
        assert server.url.rstrip("/") == f"http://[::1]:{server.port}"
        assert get(server.url) == b"/hello"


def test_several_addresses_are_served_by_one_server(short_path):
    path = short_path / "socket"
    with Server(application, bind=["127.0.0.1:0", "127.0.0.1:0", f"unix:{path}"]) as server:
        first, second = (one.getsockname()[1] for one in server.sockets[:2])
        assert server.port == first != second
        assert get(f"http://127.0.0.1:{first}") == get(f"http://127.0.0.1:{second}") == b"/hello"
        assert ask_unix(path).endswith(b"/unix")


# --- in a process -------------------------------------------------------------------------------


SCRIPT = """
import sys
from picowsgi import serve

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"from a script"]

result = serve(application, bind=["fd://" + sys.argv[1]])
print("serve returned", result)
"""


@pytest.fixture
def script(tmp_path):
    """A process that calls serve() on a socket of ours, so that clients can connect at once."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        number = str(listening.fileno())
        process = subprocess.Popen(
            [sys.executable, str(path), number],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(process.communicate)
        stack.callback(process.kill)
        process.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_returns_none_in_a_script_when_a_signal_ends_it(script, how):
    assert get(script.url) == b"from a script"
    script.send_signal(how)
    output, log = script.communicate(timeout=TIMEOUT)
    assert script.returncode == 0, log
    assert output == "serve returned None\n"
    assert "Traceback" not in log, log


@pytest.mark.measured
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_command_ends_within_a_second_of_a_signal_with_status_0(picowsgi, how):
    command = picowsgi("examples/function.py")
    port = int(command.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT):
        assert get(command.url, "/?name=you") == b"Hello, you!\n"
        begin = time.monotonic()
        status = command.stop(how)
        seconds = time.monotonic() - begin
    assert status == 0, command.log
    assert seconds < 1, f"expected the end within a second, it took {seconds:.1f}"
    assert "Traceback" not in command.log, command.log


def test_a_request_that_runs_at_sigterm_is_answered_before_the_end(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(
        "import os, signal\n"
        "def app(environ, start_response):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    yield b'answered '\n"
        "    yield b'and ended'\n"
    )
    command = picowsgi("app:app", directory=tmp_path)
    assert get(command.url) == b"answered and ended"
    assert command.wait() == 0, command.log


def test_the_start_line_names_the_url_the_application_and_the_process(picowsgi):
    command = picowsgi("examples/function.py")
    line = next(line for line in command.log.splitlines() if command.url in line)
    assert "examples/function.py" in line
    assert str(command.process.pid) in line


def test_without_an_application_the_command_serves_the_demonstration(picowsgi):
    command = picowsgi()
    with urllib3.PoolManager(retries=False) as pool:
        page = pool.request("GET", f"{command.url}/?<script>", headers={"X-Field": "<b>&amp;"})
    text = page.data.decode()
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    for expected in ("picowsgi", __version__, "REQUEST_METHOD", "HTTP_X_FIELD", "wsgi.url_scheme"):
        assert expected in text, f"expected {expected} on the page"
    for raw_text in ("<script>", "<b>&amp;"):
        assert raw_text not in text, "expected the data of the client to be escaped"
    assert command.stop() == 0


def test_errors_of_the_application_are_in_the_log_with_their_traceback(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    print('a line for the log', file=environ['wsgi.errors'])\n"
        "    raise LookupError('as the test wants it')\n"
    )
    command = picowsgi("app:app", directory=tmp_path)
    assert b"LookupError" not in get(command.url), "expected no details of the error for a visitor"
    assert command.stop() == 0
    assert "a line for the log" in command.log
    assert "Traceback" in command.log
    assert "LookupError: as the test wants it" in command.log
