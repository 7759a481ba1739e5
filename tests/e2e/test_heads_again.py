"""What a client has sent before helps to make its next environ, which is none the worse for it.

The invariant: each request of a connection has the environ that it has on a connection of its own.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picowsgi import Server
from support import connect
from wire.observer import Observer, seen_in

FIELDS = [
    "Accept: a",
    "Accept: b",
    "accept: a",
    "Accept:",
    "Cookie: a=b",
    "Cookie: c=d",
    "Referer: http://a/\xe9",
    "X-Own: 1",
    "X-Own: 2",
    "x-own: 1",
    "Content-Type: text/plain",
    "Content-Length: 3",
    "Connection: keep-alive",
    "Transfer-Encoding: chunked",
]
LINES = ["GET / HTTP/1.1", "GET /a%41?b HTTP/1.1", "PUT / HTTP/1.1", "GET http://b/ HTTP/1.1"]


@pytest.fixture(scope="module")
def server():
    with Server(Observer(), port=0) as running:
        yield running


@st.composite
def requests(draw):
    """Return a request line, fields of which some come again in another order, and content."""
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=6))
    types = [field for field in fields if field.startswith("Content-Type")]
    lengths = [field for field in fields if field.startswith(("Content-Length", "Transfer"))]
    fields = [field for field in fields if field not in types + lengths] + types[:1] + lengths[:1]
    content = b""
    if lengths:
        content = b"abc" if lengths[0].startswith("Content") else b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    line = draw(st.sampled_from(LINES))
    head = "\r\n".join([line, "Host: a", *fields, "", ""])
    return head.encode("latin-1") + content


def ask(client, request):
    client.send(request)
    seen = seen_in(client.read_response())
    del seen.environ["REMOTE_PORT"]
    return seen


@settings(max_examples=150, deadline=None, derandomize="CI" in os.environ)
@given(st.lists(requests(), min_size=2, max_size=5), st.lists(st.integers(0, 4), max_size=25))
def test_each_request_has_the_environ_of_a_first_one(server, different, order):
    """A few requests, in any order and again and again, as clients send them."""
    expected = []
    for request in different:
        with connect(server) as client:
            expected.append(ask(client, request))
    with connect(server) as client:
        for number in order:
            number %= len(different)
            assert ask(client, different[number]) == expected[number]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_path_with_nul_is_whole_however_often_its_like_has_come(serve, method):
    def answer(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        keys = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "HTTP_COOKIE")
        return [repr([environ[key] for key in keys]).encode()]

    server = serve(answer, threads=1)
    with connect(server) as client:
        for number in range(200):
            path = f"/{number}%00%0041" if number % 3 else f"/{number}"
            query = f"n={number}" if number % 2 else ""
            mark = "?" if query else ""
            head = f"{method} {path}{mark}{query} HTTP/1.1\r\nHost: a\r\nCookie: {number}\r\n\r\n"
            client.send(head.encode())
            decoded = path.replace("%00", "\0")
            expected = repr([method, decoded, query, "HTTP/1.1", str(number)])
            assert client.read_response().content.decode() == expected
