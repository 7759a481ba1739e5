"""wsgiref.validate around an application, end to end: it reports mistakes of either side.

The validator asserts inside the server's calls; a violation by the server becomes a 500 here, and
its text is in the response, so that a failure names the broken rule.
"""

from __future__ import annotations

import traceback
from http.client import HTTPConnection
from wsgiref.validate import validator

import pytest

TEXT = ("Content-Type", "text/plain")


def telling(application):
    """Wrap a validated application: the text of an AssertionError becomes the content of a 500."""

    def wrapped(environ, start_response):
        try:
            yield from closing(application(environ, start_response))
        except AssertionError:
            report = traceback.format_exc().encode()
            start_response("500 Rule Broken", [TEXT, ("Content-Length", str(len(report)))])
            yield report

    return wrapped


def closing(iterable):
    try:
        yield from iterable
    finally:
        iterable.close()


@validator
def application(environ, start_response):
    content = b""
    source = environ["wsgi.input"]
    match environ["PATH_INFO"]:
        case "/read":
            content = source.read(int(environ.get("CONTENT_LENGTH") or 0))
        case "/lines":
            content = source.readline() + b"".join(source.readlines(1)) + b"".join(source)
        case "/no-content":
            start_response("204 No Content", [])
            return []
        case "/not-modified":
            start_response("304 Not Modified", [("ETag", '"x"')])
            return []
        case "/generator":
            return generate(start_response)
        case "/write":
            write = start_response("200 OK", [TEXT])
            write(b"written ")
            return [b"and returned"]
        case "/errors":
            environ["wsgi.errors"].write("a line\n")
            environ["wsgi.errors"].writelines(["another\n"])
            environ["wsgi.errors"].flush()
    start_response("200 OK", [TEXT])
    return [b"content: ", content]


def generate(start_response):
    start_response("200 OK", [TEXT])
    yield b"one "
    yield b""
    yield b"two"


REQUESTS = [
    ("GET", "/", None, 200, b"content: "),
    ("GET", "/?a=b&c=%20", None, 200, b"content: "),
    ("GET", "/caf%C3%A9%20%2F", None, 200, b"content: "),
    ("HEAD", "/", None, 200, b""),
    ("HEAD", "/generator", None, 200, b""),
    ("POST", "/read", b"abc", 200, b"content: abc"),
    ("POST", "/read", b"x" * 300_000, 200, b"content: " + b"x" * 300_000),
    ("POST", "/lines", b"1\n2\n3\n4", 200, b"content: 1\n2\n3\n4"),
    ("POST", "/", b"never read", 200, b"content: "),
    ("PUT", "/read", b"abc", 200, b"content: abc"),
    ("PATCH", "/read", b"", 200, b"content: "),
    ("DELETE", "/", None, 200, b"content: "),
    ("OPTIONS", "/", None, 200, b"content: "),
    ("GET", "/no-content", None, 204, b""),
    ("GET", "/not-modified", None, 304, b""),
    ("GET", "/generator", None, 200, b"one two"),
    ("GET", "/write", None, 200, b"written and returned"),
    ("GET", "/errors", None, 200, b"content: "),
]


@pytest.fixture
def connection(serve):
    one = HTTPConnection("127.0.0.1", serve(telling(application)).port, timeout=10)
    yield one
    one.close()


@pytest.mark.parametrize(
    ("method", "target", "content", "status", "expected"),
    REQUESTS,
    ids=[f"{method} {target}" for method, target, *_ in REQUESTS],
)
def test_the_validator_of_wsgiref_finds_no_fault(
    connection, method, target, content, status, expected
):
    # Twice over one connection: the second environ may come from a copy of the first.
    for _ in range(2):
        connection.request(method, target, body=content, headers={"X-Field": "1", "Cookie": "a=b"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status == status, answer.decode()
        assert answer == expected


def test_the_validator_finds_no_fault_directly_below_the_server(serve):
    connection = HTTPConnection("127.0.0.1", serve(application).port, timeout=10)
    for method, target, content, status, expected in REQUESTS:
        connection.request(method, target, body=content)
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, expected), (method, target)
    connection.close()
