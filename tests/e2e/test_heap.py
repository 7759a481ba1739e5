"""The server returns the memory of a peak to the system when it is idle."""

from __future__ import annotations

import platform
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from picowsgi.system.cpus import has_gil
from support import RawClient
from support.processes import ask, eventually, write_app

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or not has_gil(),
        reason="needs the heap of glibc",
    ),
    pytest.mark.unsanitized,
]

MIB = 1 << 20
GET = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
#: Responses of a size that glibc keeps in its heap. Objects that outlive them are allocated between
#: them.
APP = """
kept = []

def app(environ, start_response):
    large = environ["PATH_INFO"] == "/large"
    body = bytes([65]) * (1_500_000 if large else 10)
    if large:
        kept.extend(bytes(2000) for _ in range(20))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def peak(command):
    """Have many responses wait for clients that do not read, and then disconnect."""
    with ExitStack() as stack:
        for _ in range(150):
            client = stack.enter_context(RawClient(command.port, receive_buffer=4096))
            client.send(GET)
            client.wait_for_bytes()
        return resident(command.process.pid)


@pytest.mark.measured
def test_memory_of_responses_that_waited_for_clients_is_returned_to_the_system(picowsgi, tmp_path):
    write_app(tmp_path, APP)
    command = picowsgi("app:app", directory=tmp_path)
    assert ask(command.port)
    before = resident(command.process.pid)
    most = peak(command)
    assert most > before + 150 * MIB
    eventually(
        lambda: resident(command.process.pid) < before + 30 * MIB, "the memory to be returned"
    )
    assert ask(command.port) == "A" * 10
    assert command.stop() == 0


@pytest.mark.measured
@pytest.mark.parametrize(
    "environ",
    [
        {"MALLOC_TRIM_THRESHOLD_": "2000000000"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=2000000000"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_a_threshold_that_the_user_has_set_is_kept(picowsgi, tmp_path, environ):
    write_app(tmp_path, APP)
    command = picowsgi("app:app", directory=tmp_path, environ=environ)
    assert ask(command.port)
    before = resident(command.process.pid)
    peak(command)
    with pytest.raises(AssertionError, match="to be returned"):
        eventually(
            lambda: resident(command.process.pid) < before + 30 * MIB, "the memory to be returned"
        )
    assert command.stop() == 0
