"""--log-config: `logging` writes both logs to files and to syslog."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from support import RawClient, wait_until
from support.processes import ask, write_app

DOCS = Path(__file__).resolve().parents[2] / "docs"
BOTH = pytest.mark.parametrize(
    "options", [(), ("--workers=2",)], ids=["one process", "two workers"]
)
APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError("as the test wants it")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def documented(address):
    """The file of the documentation, with another address."""
    page = (DOCS / "operation.md").read_text("utf-8")
    (text,) = re.findall(r"```toml\n(\[formatters.plain\]\n.*?)```", page, re.DOTALL)
    return text.replace('"/dev/log"', json.dumps(address))


@pytest.fixture(params=["unix", "udp"])
def syslog(request, tmp_path):
    """The socket of a syslog, and its address."""
    if request.param == "udp":
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("127.0.0.1", 0))
        address = list(receiver.getsockname())
    else:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(tmp_path / "log.s")
        receiver.bind(address)
    receiver.settimeout(10)
    with receiver:
        yield receiver, address


def receive(receiver, wanted):
    """Read messages until one has this text, and return it."""
    while True:
        message = receiver.recv(65536).decode()
        if wanted in message:
            return message


@BOTH
def test_both_logs_go_to_a_syslog(picowsgi, tmp_path, syslog, options):
    receiver, address = syslog
    write_app(tmp_path, APP)
    (tmp_path / "log.toml").write_text(documented(address))
    command = picowsgi("--log-config=log.toml", *options, "app:app", directory=tmp_path)
    with RawClient(command.port) as client:
        client.send(b"GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n")
        assert client.read_response().status == 200
        line = receive(receiver, "GET /a?b")
        assert re.match(r"<14>picowsgi\[\d+\]: 127\.0\.0\.1 - - \[", line)
        assert line.rstrip("\0").endswith('"GET /a?b HTTP/1.1" 200 5 "-" "x"')
        client.send(b"GET /error HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 500
        found = [receiver.recv(65536).decode() for _ in range(2)]  # in either order
    assert any(
        one.startswith("<11>picowsgi[") and "error in the application: GET /error" in one
        for one in found
    )
    assert any('"GET /error HTTP/1.1" 500' in one for one in found)
    assert command.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a datagram waits for a reader on Linux only")
def test_a_syslog_that_does_not_read_blocks_nothing(picowsgi, tmp_path):
    write_app(tmp_path, APP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log.s"))
        (tmp_path / "log.toml").write_text(documented(str(tmp_path / "log.s")))
        command = picowsgi("--log-config=log.toml", "app:app", directory=tmp_path)
        with RawClient(command.port) as client:
            request = b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 2000)
            for _ in range(100):
                client.send(request * 20)
                for _ in range(20):
                    assert client.read_response().status == 200
        receiver.setblocking(True)  # as long as the server runs
        command.process.send_signal(signal.SIGKILL)
        command.wait()


def test_each_line_is_a_record_and_the_file_is_opened_again(picowsgi, tmp_path):
    write_app(tmp_path, APP)
    handler = {"class": "logging.FileHandler", "filename": "access.log", "formatter": "own"}
    config = {
        "formatters": {"own": {"format": "%(name)s %(levelname)s %(message)s"}},
        "handlers": {"own": handler},
        "loggers": {"picowsgi.access": {"handlers": ["own"], "propagate": False}},
    }
    (tmp_path / "log.json").write_text(json.dumps(config))
    command = picowsgi(
        "--log-config=log.json",
        "--access-log-format=%(U)s %(s)s",
        "app:app",
        directory=tmp_path,
    )
    log = tmp_path / "access.log"
    ask(command.port, "/before")
    wait_until(lambda: log.read_text(), "the record")
    log.rename(tmp_path / "old.log")
    command.process.send_signal(signal.SIGUSR1)
    wait_until(log.exists, "the new file")
    ask(command.port, "/after")
    assert command.stop() == 0
    assert (tmp_path / "old.log").read_text() == "picowsgi.access INFO /before 200\n"
    assert log.read_text() == "picowsgi.access INFO /after 200\n"


def test_without_an_access_log_there_are_no_records(picowsgi, tmp_path):
    write_app(tmp_path, APP)
    config = {
        "handlers": {"own": {"class": "logging.FileHandler", "filename": "access.log"}},
        "loggers": {"picowsgi.access": {"handlers": ["own"]}},
    }
    (tmp_path / "log.json").write_text(json.dumps(config))
    command = picowsgi("--log-config=log.json", "--no-access-log", "app:app", directory=tmp_path)
    ask(command.port, "/")
    assert command.stop() == 0
    assert (tmp_path / "access.log").read_text() == ""
