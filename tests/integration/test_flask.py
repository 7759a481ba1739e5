"""A Flask application gives the same responses over picowsgi as over its own test client."""

from __future__ import annotations

import http.client
import json
import re
from http.cookies import SimpleCookie

import pytest

from support.through_server import ThroughServer

# Fields of the connection, or of the server itself.
IGNORED = {"date", "server", "connection", "keep-alive", "transfer-encoding"}

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=cut"}
UPLOAD = (
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a b.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\n%s\r\n"
    b'--cut\r\nContent-Disposition: form-data; name="note"\r\n\r\nsmall\r\n--cut--\r\n'
)

REQUESTS = [
    ("GET", "/", {}, None),
    ("HEAD", "/", {}, None),
    ("OPTIONS", "/", {}, None),
    ("POST", "/", {}, b"not allowed here"),
    ("GET", "/greet/Ada", {}, None),
    ("GET", "/greet/%C3%A9%20%E2%82%AC%26", {}, None),
    ("GET", "/path/a/b%2Fc//d?x=%2F", {}, None),
    ("GET", "/path//double", {}, None),
    ("GET", "/args", {}, None),
    ("GET", "/args?a=1&b=%C3%A9&a=2&empty=&flag", {}, None),
    ("GET", "/fields", {"X-One": "1", "Accept-Language": "en;q=0.5, de"}, None),
    ("POST", "/fields", {"X-Two": "caf\xe9", "Authorization": "Basic YTpi", "Referer": "/x"}, b""),
    ("GET", "/about-me?x=1", {}, None),
    ("POST", "/form", FORM, b"b=2&a=1&a=%C3%A9+x"),
    ("POST", "/form", FORM, b""),
    ("POST", "/upload", MULTIPART, UPLOAD % b"text of the file"),
    ("POST", "/upload", MULTIPART, UPLOAD % (b"\r\n--almost" * 40_000)),
    ("POST", "/upload", MULTIPART, UPLOAD % (b"too large" * 200_000)),
    ("POST", "/upload", FORM, b"no=file"),
    ("POST", "/json", JSON, json.dumps({"é": [1, None, "x"]}).encode()),
    ("POST", "/json", JSON, b"{broken"),
    ("POST", "/json", FORM, b"a=b"),
    ("POST", "/raw", {}, bytes(range(256)) * 1_000),
    ("PUT", "/raw", {}, b"put"),
    ("PATCH", "/raw", {}, b"patched"),
    ("DELETE", "/raw", {}, None),
    ("GET", "/login", {}, None),
    ("POST", "/login", FORM, b"user=Ada"),
    ("POST", "/login", FORM, b"user=Ada&stay=1"),
    ("POST", "/login", FORM, b"unknown=1"),
    ("GET", "/me", {}, None),
    ("GET", "/logout", {}, None),
    ("GET", "/cookies", {"Cookie": 'a=1; b="two words"; c=%C3%A9'}, None),
    ("GET", "/redirect/301", {}, None),
    ("GET", "/redirect/307", {}, None),
    ("HEAD", "/redirect/302", {}, None),
    ("GET", "/elsewhere", {}, None),
    ("GET", "/folder", {}, None),
    ("GET", "/folder/", {}, None),
    ("GET", "/status/200", {}, None),
    ("GET", "/status/204", {}, None),
    ("GET", "/status/304", {}, None),
    ("GET", "/status/418", {}, None),
    ("GET", "/stream?word=%C3%A9", {}, None),
    ("HEAD", "/stream", {}, None),
    ("GET", "/stream-with-length", {}, None),
    ("GET", "/file", {}, None),
    ("HEAD", "/file", {}, None),
    ("GET", "/file", {"Range": "bytes=10-99"}, None),
    ("GET", "/file", {"Range": "bytes=999999999-"}, None),
    ("GET", "/download", {}, None),
    ("GET", "/download", {"If-None-Match": '"0123"'}, None),
    ("GET", "/etag", {}, None),
    ("GET", "/etag", {"If-None-Match": '"abc"'}, None),
    ("GET", "/several-fields", {}, None),
    ("GET", "/own-reason", {}, None),
    ("GET", "/broken", {}, None),
    ("GET", "/broken-by-value", {}, None),
    ("GET", "/large", {}, None),
    ("GET", "/missing/%3Cscript%3E", {}, None),
    ("DELETE", "/greet/Ada", {}, None),
    ("GET", "/shop/", {}, None),
    ("GET", "/shop", {}, None),
    ("GET", "/shop/article/7", {}, None),
    ("GET", "/shop/article/101", {}, None),
    ("GET", "/shop/article/x", {}, None),
]


class ThroughTestClient:
    """The same requests through the test client of Flask, with the server's address."""

    def __init__(self, app, server):
        app.testing = False
        self._base_url = server.url
        self._client = app.test_client(use_cookies=False)

    def request(self, method, target, fields, content):
        length = {"Content-Length": "0"} if method in ("POST", "PUT") and not content else {}
        with self._client.open(
            target,
            method=method,
            base_url=self._base_url,
            headers={"Accept-Encoding": "identity", **length, **fields},
            data=content or None,
        ) as response:
            return response.status, list(response.headers), response.get_data()


def normalised(answer):
    """The parts that two correct responses share."""
    status, fields, content = answer
    kept = [
        (name.lower(), without_time(value) if name.lower() == "set-cookie" else value)
        for name, value in fields
        if name.lower() not in IGNORED
    ]
    return {"status": status, "fields": sorted(kept), "content": content}


def without_time(cookie):
    """Remove the time from a Set-Cookie: that of the session, its signature, and the expiry."""
    cookie = re.sub(r"(session=\.?[\w-]+)\.[\w-]+\.[\w-]+", r"\1", cookie)
    return re.sub(r"Expires=(?!Thu, 01 Jan 1970)[^;]+", "Expires=later", cookie)


@pytest.fixture(scope="module")
def both(serve_module, load_app):
    """Two ways to two equal applications."""
    create_app = load_app("flask_site.py").create_app
    server = serve_module(create_app())
    through_server = ThroughServer(server.port, 10)
    yield through_server, ThroughTestClient(create_app(), server)
    through_server.close()


@pytest.mark.parametrize(
    "request_", REQUESTS, ids=[f"{number}: {r[0]} {r[1]}" for number, r in enumerate(REQUESTS)]
)
def test_flask_answers_as_through_its_test_client(both, request_):
    through_server, through_client = both
    expected = normalised(through_client.request(*request_))
    assert normalised(through_server.request(*request_)) == expected


class Browser:
    """Keeps cookies like a browser, for either way of its requests."""

    def __init__(self, way):
        self._way = way
        self._cookies = {}

    def request(self, method, target, fields=(), content=None):
        fields = dict(fields)
        if self._cookies:
            fields["Cookie"] = "; ".join(f"{k}={v}" for k, v in self._cookies.items())
        answer = self._way.request(method, target, fields, content)
        for name, value in answer[1]:
            if name.lower() == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    self._cookies[key] = morsel.value
                    if morsel["max-age"] == "0" or "1970" in morsel["expires"]:
                        del self._cookies[key]
        return answer


def test_a_visit_with_a_session_and_flashes_and_logout_is_the_same_both_ways(both):
    visit = [
        ("GET", "/me"),
        ("POST", "/login", FORM, b"user=Grace"),
        ("GET", "/"),
        ("GET", "/"),
        ("GET", "/me"),
        ("GET", "/me"),
        ("GET", "/cookies"),
        ("GET", "/logout"),
        ("GET", "/me"),
    ]
    server, client = (Browser(way) for way in both)
    statuses, contents = [], []
    for step in visit:
        answer = server.request(*step)
        assert normalised(answer) == normalised(client.request(*step)), step
        statuses.append(int(answer[0][:3]))
        contents.append(answer[2])
    assert statuses == [401, 302, 200, 200, 200, 200, 200, 302 + 1, 401]
    assert b"welcome, Grace" in contents[2]
    assert b"welcome" not in contents[3]
    assert [json.loads(content)["visits"] for content in contents[4:6]] == [1, 2]


def test_a_flask_application_runs_by_its_factory_from_the_command(picowsgi):
    command = picowsgi("tests/integration/apps/flask_site.py:create_app()")
    port = int(command.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/greet/Ada")
    assert connection.getresponse().read() == b"Hello Ada"
    connection.request("GET", "/broken")
    assert connection.getresponse().read()
    assert command.stop() == 0
    connection.close()
    assert "ZeroDivisionError: as the test wants it" in command.log, (
        "expected Flask to log its errors"
    )
