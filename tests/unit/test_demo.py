"""The demonstration page, called as an application and served."""

from __future__ import annotations

import http.client
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator
from xml.etree import ElementTree as ET

import pytest

import picowsgi
from picowsgi import DOCUMENTATION
from picowsgi.app.pages.demo import application
from picowsgi.app.pages.logo import ADDRESS, SVG
from support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from picowsgi import Server


class Answer:
    """The response of the application to one request, under `wsgiref.validate`."""

    def __init__(self, path: str = "/", method: str = "GET", content: bytes = b"", **more: str):
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(content)),
            "wsgi.input": BytesIO(content),
            **more,
        }
        setup_testing_defaults(environ)
        items = validator(application)(environ, self._start_response)
        try:
            self.content = b"".join(items)
        finally:
            items.close()  # type: ignore[attr-defined]  # the validator's always has it
        self.text = self.content.decode("utf-8")

    def _start_response(self, status: str, headers: Any, _exc_info: Any = None) -> Any:
        self.status = status
        self.headers = dict(headers)
        return lambda data: None


class Page(HTMLParser):
    """Checks that every element is closed, and keeps the texts and the addresses."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_names_the_version_and_shows_the_environ() -> None:
    answer = Answer(HTTP_X_COLOUR="green", QUERY_STRING="a=1")
    assert answer.status == "200 OK"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    text = Page(answer.text).text
    assert picowsgi.__version__ in text
    assert "picowsgi module:application" in text
    assert "HTTP_X_COLOURgreen" in text
    assert "QUERY_STRINGa=1" in text
    assert "wsgi.version(1, 0)" in text


def test_the_page_shows_the_logo_which_is_a_small_drawing_with_a_title() -> None:
    answer = Answer()
    assert SVG in answer.text
    assert f'<link rel="icon" href="{ADDRESS}">' in answer.text
    drawing = ET.fromstring(SVG)
    assert drawing.findtext("{http://www.w3.org/2000/svg}title") == "picowsgi"
    assert len(SVG) < 1000


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_a_page_loads_nothing_from_elsewhere(path: str) -> None:
    answer = Answer(path)
    assert set(Page(answer.text).links) <= {ADDRESS, "environ.json", "/", DOCUMENTATION}
    assert not re.search(r"url\(|@import|<script", answer.text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            "<script>alert('\"&')</script>",
            "&lt;script&gt;alert(&#x27;&quot;&amp;&#x27;)&lt;/script",
        ),
        ("\xc3\xa9\x1b[31m", "\\xc3\\xa9\\x1b[31m"),
    ],
)
def test_data_from_the_client_is_escaped(value: str, shown: str) -> None:
    answer = Answer(HTTP_X_EVIL=value)
    assert shown in answer.text
    assert value not in answer.text
    Page(answer.text)


@pytest.mark.parametrize("path", ["/nowhere", "/environ.json/", "//", "/<b>\x00\xff"])
def test_another_path_is_not_found(path: str) -> None:
    answer = Answer(path)
    assert answer.status == "404 Not Found"
    assert "<b>" not in answer.text
    assert "There is nothing at" in Page(answer.text).text


@pytest.mark.parametrize("path", ["/", "/environ.json", "/nowhere"])
def test_head_has_the_fields_of_get_and_no_content(path: str) -> None:
    get, head = Answer(path, HTTP_X="1"), Answer(path, "HEAD", HTTP_X="1")
    assert head.content == b""
    assert head.status == get.status
    assert set(head.headers) == set(get.headers)
    # The page shows REQUEST_METHOD, and a name that is one letter longer.
    longer = len("HEAD") - len("GET") if path != "/nowhere" else 0
    assert int(head.headers["Content-Length"]) == int(get.headers["Content-Length"]) + longer


def test_the_environ_is_available_as_json() -> None:
    answer = Answer("/environ.json", HTTP_X='\xe9"<')
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    environ = json.loads(answer.text)
    assert environ["HTTP_X"] == '\xe9"<'
    assert environ["REQUEST_METHOD"] == "GET"
    assert all(isinstance(value, str) for value in environ.values())


def test_posted_content_is_shown_escaped_with_its_length() -> None:
    answer = Answer("/", "POST", b"<b>\x00'\xff")
    assert answer.status == "200 OK"
    text = Page(answer.text).text
    assert "6 bytes:" in text
    assert "<b>\\x00'\\xff" in text
    assert "<b>" not in answer.text


def test_the_first_bytes_of_long_content_are_shown() -> None:
    answer = Answer("/", "POST", b"a" * 1024 + b"Z" * 200_000)
    assert "201024 bytes, the first 1024:" in answer.text
    assert "a" * 1024 in answer.text
    assert "Z" * 10 not in answer.text


def test_a_post_without_content_shows_its_empty_content() -> None:
    assert "0 bytes:" in Answer("/", "POST").text
    assert "0 bytes:" in Answer("/", "POST", CONTENT_LENGTH="").text


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [("/", "DELETE", "GET, HEAD, POST"), ("/environ.json", "POST", "GET, HEAD")],
)
def test_another_method_is_refused_with_the_allowed_methods(
    path: str, method: str, allowed: str
) -> None:
    answer = Answer(path, method)
    assert answer.status == "405 Method Not Allowed"
    assert answer.headers["Allow"] == allowed
    assert method in Page(answer.text).text


def test_the_command_serves_the_page(serve: Callable[..., Server]) -> None:
    server = serve(application)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    received = b""
    try:
        for method, path, content in [
            ("GET", "/", None),
            ("HEAD", "/", None),
            ("POST", "/", b"some content"),
            ("GET", "/environ.json", None),
        ]:
            connection.request(method, path, body=content)
            response = connection.getresponse()
            received = response.read()
            assert response.status == 200
            if method != "HEAD":
                assert len(received) == int(response.headers["Content-Length"])
            if content:
                assert b"12 bytes:" in received
    finally:
        connection.close()
    environ = json.loads(received)
    assert environ["SERVER_PORT"] == str(server.port)
    assert environ["SERVER_SOFTWARE"].startswith("picowsgi")
