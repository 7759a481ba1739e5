"""picowsgi.Server and picowsgi.serve, as tests and other programs use them."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

import picowsgi
from picowsgi.errors import BindError, ConfigError
from support import connect, descriptors_at_rest, outer_environ, resident_bytes
from support.processes import ask

MIB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def get(server):
    with urllib.request.urlopen(server.url, timeout=10) as response:
        return response.read()


def serve_many(count):
    for _ in range(count):
        with picowsgi.Server(hello, port=0) as server, connect(server) as client:
            client.send(GET)
            assert client.read_response().content == b"hello"


@pytest.mark.measured
@pytest.mark.unsanitized  # which keeps freed memory
def test_hundreds_of_servers_leave_nothing_open():
    serve_many(30)
    descriptors, threads, memory = descriptors_at_rest(), threading.active_count(), resident_bytes()
    serve_many(270)
    assert descriptors_at_rest() == descriptors
    assert threading.active_count() == threads
    grown = resident_bytes() - memory
    assert grown < 8 * MIB, (
        f"expected no memory of 270 servers to be left, got {grown / MIB:.1f} MiB"
    )


def test_a_server_listens_before_its_start_and_many_servers_have_different_ports():
    servers = [picowsgi.Server(hello, port=0) for _ in range(20)]
    try:
        assert len({server.port for server in servers}) == 20
        with connect(servers[0]) as client:
            client.send(GET)
            servers[0].start()
            assert client.read_response().content == b"hello"
    finally:
        for server in servers:
            server.stop()
            server.stop()


def test_a_running_server_cannot_be_started_again():
    server = picowsgi.Server(hello, port=0)
    server.start()
    started = threading.active_count()
    with server:
        server.start()
        assert threading.active_count() == started, "expected no more threads"
        assert get(server) == b"hello"
    with pytest.raises(RuntimeError, match="has been stopped"):
        server.start()


def test_an_exception_in_the_block_stops_the_server():
    before = threading.active_count()
    server = picowsgi.Server(hello, port=0)

    def fail():
        with server:
            assert get(server) == b"hello"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert threading.active_count() == before
    with pytest.raises(urllib.error.URLError):
        get(server)
    with pytest.raises(RuntimeError, match="make another one"):
        server.start()


def test_a_server_whose_threads_cannot_start_leaves_nothing_open(monkeypatch):
    before = descriptors_at_rest()

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        server = picowsgi.Server(hello, port=0)
        with pytest.raises(RuntimeError, match="new thread"), server:
            pass
    del server
    assert descriptors_at_rest() == before


def test_an_error_of_the_application_is_in_the_log(caplog):
    def bad(environ, start_response):
        raise ValueError("on purpose")

    with (
        picowsgi.Server(bad, port=0) as server,
        pytest.raises(urllib.error.HTTPError, match="500") as raised,
    ):
        get(server)
    raised.value.close()
    assert "ValueError: on purpose" in caplog.text


def test_an_address_in_use_is_an_error_at_once():
    with (
        picowsgi.Server(hello, port=0) as server,
        pytest.raises(BindError, match="in use"),
    ):
        picowsgi.Server(hello, port=server.port)


# --- scripts for waitress -----------------------------------------------------------------------

SCRIPT = """
import logging
from picowsgi import serve

logging.basicConfig(level=logging.INFO)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ["wsgi.multithread"]).encode()]

serve(app, host="127.0.0.1", port=0, threads=4)
print("after serve", file=__import__("sys").stderr)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_script_for_waitress_runs_with_another_import(command, tmp_path, end):
    (tmp_path / "app.py").write_text(SCRIPT)
    script = command("app.py", directory=tmp_path)
    assert ask(script.port) == "True"
    assert script.stop(end) == 0
    assert "after serve" in script.log


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("listen", "waitress's listen is bind here"),
        ("unix_socket", r"unix_socket is bind here \(as unix:PATH\)"),
        ("max_request_body_size", "max_request_body_size is max_body_size here"),
        ("treads", "did you mean threads"),
    ],
)
def test_the_names_that_other_servers_have_for_an_option_are_explained(name, hint):
    with pytest.raises(ConfigError, match=hint):
        picowsgi.serve(hello, **{name: "x"})


def test_dir_lists_the_names_of_the_package_and_others_do_not_exist():
    assert set(picowsgi.__all__) <= set(dir(picowsgi))
    for name in picowsgi.__all__:
        assert getattr(picowsgi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sever'"):
        picowsgi.sever  # noqa: B018


FULL = """
import resource
from picowsgi.config.settings import Settings
from picowsgi.core import CoreServer
kept = [CoreServer([], Settings())]
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
try:
    while True:
        kept.append(CoreServer([], Settings()))
except OSError as error:
    print(error.errno, error, flush=True)
"""


def test_the_error_for_a_core_that_cannot_start_says_what_the_system_has_refused():
    result = subprocess.run(
        [sys.executable, "-c", FULL],
        capture_output=True,
        text=True,
        env=outer_environ(),
        check=True,
    )
    number, _, message = result.stdout.partition(" ")
    assert int(number) == errno.EMFILE, result.stderr
    assert "the core could not be started: Too many open files" in message
