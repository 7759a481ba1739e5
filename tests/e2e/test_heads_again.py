"""The core uses an earlier head of the connection to make the next environ, which must not change
it.

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
    """Return a request line, fields that partly repeat in another order, and content."""
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
def test_each_request_has_the_same_environ_as_a_first_request(server, different, order):
    """A few requests, repeated in any order, as clients send them."""
    expected = []
    for request in different:
        with connect(server) as client:
            expected.append(ask(client, request))
    with connect(server) as client:
        for number in order:
            number %= len(different)
            assert ask(client, different[number]) == expected[number]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_path_with_nul_is_complete_after_any_number_of_equal_heads(serve, method):
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


def test_a_repeated_head_comes_with_its_own_content_each_time(serve):
    """Holds also when one request is not read to its end, and another has its input closed."""

    def answer(environ, start_response):
        source = environ["wsgi.input"]
        content = source.read(1) if source.getvalue()[1:2] == b"1" else source.read()
        source.close()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [content]

    server = serve(answer, threads=1)
    with connect(server) as first, connect(server) as second:
        for number in range(50):
            for client, letter in (first, b"a"), (second, b"b"):
                content = b"%c%03d" % (letter, number + 100 * (number % 2))
                client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n" + content)
                expected = letter if content[1:2] == b"1" else content
                assert client.read_response().content == expected


SMALL = ("Host: a", "Cookie: " + "c" * 600)


def get(target, fields=SMALL):
    return "\r\n".join([f"GET {target} HTTP/1.1", *fields, "", ""]).encode()


@pytest.mark.parametrize("most", [1024, 4096])
def test_a_repeated_head_with_another_target_keeps_to_the_limit(serve, most):
    """Only the fields are known: the line may be longer than any before."""
    server = serve(Observer(), max_head_size=most)
    with connect(server) as client:
        for _ in range(5):
            assert ask(client, get("/a")).environ["PATH_INFO"] == "/a"
        room = most - len(get("/"))
        for size in (1, room - 1, room):
            path = "/" + "b" * size
            assert ask(client, get(path)).environ["PATH_INFO"] == path
        client.send(get("/" + "b" * (room + 1)))
        assert client.read_response().status in (414, 431)
        client.read_nothing_more()


HEADS = st.tuples(
    st.sampled_from(["/", "/one", "/two?three"]),
    st.sampled_from([0, 1, 700, 1500, 1501, 3000]),  # bytes of a field
    st.sampled_from([None, 0, 1, 900, 20_000, 40_000]),  # bytes of content, or none
    st.booleans(),  # in chunks
)


@settings(max_examples=120, deadline=None, derandomize="CI" in os.environ)
@given(
    st.lists(HEADS, min_size=2, max_size=6),
    st.lists(st.integers(1, 30_000), max_size=12),
    st.integers(1, 3),
)
def test_pipelined_requests_arrive_as_they_were_sent_wherever_they_are_split(
    server, heads, sizes, times
):
    """The buffer of a head moves and grows while the bytes after it arrive."""
    wanted, data = [], b""
    for number, (target, field, content, chunked) in enumerate(heads * times):
        fields = ["Host: a", f"X-Field: {'f' * field}"]
        body = b"" if content is None else bytes([97 + number % 26]) * content
        framed = body
        if content is not None and chunked:
            fields.append("Transfer-Encoding: chunked")
            parts = [body[at : at + 7000] for at in range(0, len(body), 7000)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif content is not None:
            fields.append(f"Content-Length: {content}")
        method = "GET" if content is None else "POST"
        data += "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode() + framed
        wanted.append((method, target.partition("?")[0], field, body))
    with connect(server) as client, connect(server) as other:
        at = 0
        for size in sizes:
            client.send(data[at : at + size])
            at += size
            ask(other, get("/", ["Host: a"]))  # so that it is read by then
        client.send(data[at:])
        for method, path, field, body in wanted:
            seen = seen_in(client.read_response())
            assert seen.environ["REQUEST_METHOD"] == method
            assert seen.environ["PATH_INFO"] == path
            assert len(seen.environ["HTTP_X_FIELD"]) == field
            assert seen.content == body
