"""Headers with an underscore in their name: the error log reports that they are dropped."""

from __future__ import annotations

import re

import pytest

from support import RawClient
from support.processes import write_app

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("HTTP_X_USER", "none").encode()]
"""
COUNT = re.compile(r"warning: (\d+) headers with an underscore in their name were dropped")


@pytest.mark.parametrize("options", [(), ("--workers=2",)], ids=["one process", "two workers"])
def test_the_log_names_the_first_dropped_header_and_counts_them_at_the_end(
    picowsgi, tmp_path, options
):
    write_app(tmp_path, APP)
    command = picowsgi(*options, "app:app", directory=tmp_path)
    with RawClient(command.port) as client:  # on one connection, so in one process
        for number in range(10):  # the same head again, and another request line
            client.send(
                f"GET /{number // 5} HTTP/1.1\r\nHost: a\r\nX_User: root\r\nX_b: 1\r\n\r\n".encode()
            )
            assert client.read_response().content == b"none"
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-User: me\r\n\r\n")
            assert client.read_response().content == b"me"
        command.wait_for_log("is dropped")
    assert command.stop() == 0
    assert len(re.findall("the header X_.*is dropped", command.log)) == 1
    assert COUNT.findall(command.log) == ["20"]


def test_the_log_has_no_such_line_when_no_header_was_dropped(picowsgi, tmp_path):
    write_app(tmp_path, APP)
    command = picowsgi("app:app", directory=tmp_path)
    with RawClient(command.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-User: me\r\n\r\n")
        assert client.read_response().content == b"me"
    assert command.stop() == 0
    assert "dropped" not in command.log
