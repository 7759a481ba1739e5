"""A Django site gives the same responses over picowsgi as to its own test client.

Django keeps its settings in globals of the process, so neither side runs in the process of the
tests: the site runs under the command, the test client in a process that reads requests as lines.
Each has a database of its own, and both begin as equal copies.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.through_server import ThroughServer

APPS = Path(__file__).resolve().parent / "apps"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# Fields of the connection, or of the server itself.
IGNORED = {"date", "server", "connection", "keep-alive", "transfer-encoding"}

# Pages that must not be cached have the time in this field.
MOMENTS = {"expires"}

# These values are random. Everything around them has to be equal.
TOKENS = re.compile(r"((?:csrftoken|sessionid)=)\w+|(csrfmiddlewaretoken\" value=\")\w+")


class ThroughTestClient:
    """The same requests through Django's test client, in a process that began with a fresh copy."""

    def __init__(self, environ, port):
        self._host = f"127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "django_site.client"],
            cwd=APPS,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def request(self, method, target, fields, content):
        fields = {"Host": self._host, "Accept-Encoding": "identity", **fields}
        line = [method, target, fields, base64.b64encode(content or b"").decode()]
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["fields"], base64.b64decode(answer["content"])

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


class Browser:
    """Keeps cookies and the last CSRF token like a browser, for either way of its requests."""

    def __init__(self, way):
        self._way = way
        self.cookies = {}
        self.token = ""

    def request(self, method, target, fields=(), content=b""):
        fields = dict(fields)
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        answer = self._way.request(method, target, fields, content)
        for name, value in answer[1]:
            if name.lower() == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    self.cookies[key] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[key]
        if found := re.search(rb'csrfmiddlewaretoken" value="(\w+)"', answer[2]):
            self.token = found[1].decode()
        return answer

    def submit(self, target, **form):
        form["csrfmiddlewaretoken"] = self.token
        origin = {"Referer": "http://127.0.0.1/"}
        return self.request("POST", target, {**FORM, **origin}, urlencode(form).encode())


class Both:
    """Two equal browsers, one for the server and one for the test client."""

    def __init__(self, server, client):
        self.server, self.client = Browser(server), Browser(client)

    def request(self, *step):
        return self._same(self.server.request(*step), self.client.request(*step))

    def submit(self, target, **form):
        return self._same(self.server.submit(target, **form), self.client.submit(target, **form))

    def _same(self, through_server, through_client):
        """Compare the two responses; return the server's status and content."""
        assert normalised(through_server) == normalised(through_client)
        return int(through_server[0][:3]), through_server[2].decode("utf-8", "replace")


def normalised(answer):
    """The parts that two correct responses share."""
    status, fields, content = answer
    # RFC 9110, section 8.6: no Content-Length with 204, although Django sends "0" there.
    ignored = IGNORED | {"content-length"} if status.startswith("204") else IGNORED
    kept = [
        (name.lower(), "" if name.lower() in MOMENTS else without_randomness(value))
        for name, value in fields
        if name.lower() not in ignored
    ]
    text = TOKENS.sub(r"\1\2random", content.decode("latin-1"))
    if "random" in text:
        # The ETag is a digest of the content, so it is as random as the token in it.
        kept = [(name, value) for name, value in kept if name != "etag"]
    return {"status": status, "fields": sorted(kept), "content": text}


def without_randomness(value):
    value = TOKENS.sub(r"\1\2random", value)
    # Django signs the cookie of its messages together with the time in seconds.
    value = re.sub(r"(messages=\"?[\w.-]+):\w+:[\w-]+", r"\1:signed", value)
    return re.sub(r"(?i)expires=(?!Thu, 01 Jan 1970)[^;]+", "expires=later", value)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A filled database. Tests copy it."""
    path = tmp_path_factory.mktemp("django") / "filled.sqlite3"
    subprocess.run(
        [sys.executable, "-m", "django_site.client", "fill"],
        cwd=APPS,
        env=environ_with(path),
        check=True,
    )
    return path


def environ_with(database):
    # A time zone for both processes, which does not depend on the machine.
    return {**os.environ, "LIBRARY_DATABASE": str(database), "TZ": "UTC"}


@pytest.fixture
def site(database, tmp_path, picowsgi):
    """The site under picowsgi; the fixture `both` sends requests to it and to the test client."""
    served = shutil.copy(database, tmp_path / "served.sqlite3")
    return picowsgi("django_site.wsgi", directory=APPS, environ=environ_with(served))


@pytest.fixture
def both(database, tmp_path, site):
    port = int(site.url.rpartition(":")[2])
    copy = shutil.copy(database, tmp_path / "client.sqlite3")
    server, client = ThroughServer(port, 30), ThroughTestClient(environ_with(copy), port)
    yield Both(server, client)
    server.close()
    client.close()
    assert site.stop() == 0, site.log


MULTIPART = {"Content-Type": "multipart/form-data; boundary=cut"}
UPLOAD = (
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n" + b"\x00\r\n--cu" * 500_000 + b"\r\n"
    b'--cut\r\nContent-Disposition: form-data; name="note"\r\n\r\nsmall\r\n--cut--\r\n'
)

REQUESTS = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("PUT", "/", FORM, b"a=b"),
    ("GET", "/books.json"),
    ("HEAD", "/books.json"),
    ("GET", "/books.json", {"If-None-Match": '"other"'}),
    ("GET", "/book/1/"),
    ("GET", "/book/2/"),
    ("GET", "/book/1"),
    ("GET", "/book/99/"),
    ("GET", "/book/x/"),
    ("GET", "/export"),
    ("HEAD", "/export"),
    ("POST", "/export", FORM, b"a=b"),
    ("GET", "/file"),
    ("HEAD", "/file"),
    ("GET", "/visits"),
    ("GET", "/visits"),
    ("GET", "/members?x=1"),
    ("GET", "/echo/a/b%2Fc//d%C3%A9?x=1&y=%C3%A9&x=2", {"X-One": "1"}),
    ("POST", "/echo/form", FORM, b"a=1&b=%C3%A9&a=2"),
    ("POST", "/echo/json", {"Content-Type": "application/json"}, b'{"a": [1, null]}'),
    ("POST", "/echo/upload", MULTIPART, UPLOAD),
    ("DELETE", "/echo/x"),
    ("OPTIONS", "/echo/x"),
    ("GET", "/nothing"),
    ("GET", "/broken"),
    ("GET", "/missing"),
    ("POST", "/missing/", FORM, b"a=b"),
    ("GET", "/admin/"),
    ("GET", "/admin/login/"),
    ("GET", "/admin"),
    ("GET", "/", {"Host": "evil.test"}),
]


def test_django_answers_as_through_its_test_client(both):
    for number, step in enumerate(REQUESTS):
        # Browsers keep cookies: /visits gets two requests and has to count.
        status, content = both.request(*step)
        expected = {"/visits": f"visit {number - 15}"}.get(step[1])
        assert expected is None or content == expected, (status, content)


def test_an_unchanged_page_is_not_modified_for_its_etag(both):
    both.request("GET", "/book/1/")
    _, fields, _ = both.server.request("GET", "/book/1/")
    etag = next(value for name, value in fields if name.lower() == "etag")
    assert both.request("GET", "/book/1/", {"If-None-Match": etag}) == (304, "")


def test_a_book_is_added_by_the_form_and_stored_by_the_orm(both):
    new = {"title": "Fiasco", "year": "1986", "writer": "Stanisław Lem"}
    status, _ = both.submit("/", **new)
    assert status == 403, "expected a refusal of a POST without the CSRF cookie"

    both.request("GET", "/")
    status, page = both.submit("/", **{**new, "year": "-3"})
    assert status == 422
    assert "greater than or equal to 0" in page
    status, _ = both.submit("/", **new)
    assert status == 302
    status, page = both.request("GET", "/")
    assert "added Fiasco (1986)" in page
    assert "Fiasco (1986)</a>" in page
    status, page = both.request("GET", "/books.json")
    assert json.loads(page)["authors"][0] == {"name": "Stanisław Lem", "number": 3}


def test_the_librarian_logs_in_to_the_admin_works_there_and_logs_out(both):
    status, page = both.request("GET", "/admin/login/?next=/admin/")
    assert status == 200
    assert "Django administration" in page

    status, page = both.submit("/admin/login/", username="librarian", password="wrong")
    assert status == 200
    assert "Please enter the correct username" in page
    login = {"username": "librarian", "password": "open sesame", "next": "/admin/"}
    status, _ = both.submit("/admin/login/?next=/admin/", **login)
    assert status == 302
    assert "sessionid" in both.server.cookies

    status, page = both.request("GET", "/admin/")
    assert status == 200
    assert "/admin/library/book/" in page
    status, page = both.request("GET", "/admin/library/book/?q=&o=1")
    assert status == 200
    assert "Solaris" in page
    both.request("GET", "/admin/library/author/add/")
    status, _ = both.submit("/admin/library/author/add/", name="Arkady Strugatsky")
    assert status == 302
    status, page = both.request("GET", "/admin/library/author/")
    assert "Arkady Strugatsky" in page
    assert "was added successfully" in page

    status, page = both.request("GET", "/members")
    assert (status, page) == (200, "hello librarian")
    status, _ = both.submit("/admin/logout/")
    assert status == 200
    status, _ = both.request("GET", "/members")
    assert status == 302, "expected the members' page to ask for a login after the logout"
