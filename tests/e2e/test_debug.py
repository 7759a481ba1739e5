"""Clients see no details of an error, or with --debug its traceback."""

import logging
import re

import pytest

from picowsgi.app import middleware
from support import exchange

SECRET = "the text of the error <b>\x1b[31m"


class Unshowable:
    def __repr__(self):
        raise AssertionError("shown")


def application(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter(["no bytes"])
    environ["an.object"] = Unshowable()
    raise RuntimeError(SECRET)


def ask(server, path="/a?b=<i>", accept="text/html,*/*"):
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nX-Field: <u>\r\n\r\n"
    (response,) = exchange(server, request.encode())
    assert response.status == 500
    return response


@pytest.fixture
def without_werkzeug(monkeypatch):
    monkeypatch.setattr(middleware, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_werkzeug")
def test_with_debug_the_page_shows_the_traceback_and_the_request(serve):
    response = ask(serve(application, debug=True))
    assert response.value("Content-Type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.value("Content-Security-Policy")
    page = response.content.decode()
    assert "GET /a?b=&lt;i&gt;" in page
    assert "raise RuntimeError(SECRET)" in page
    assert "RuntimeError: the text of the error &lt;b&gt;\\x1b[31m" in page
    assert "HTTP_X_FIELD" in page
    assert "&lt;u&gt;" in page
    assert "an.object" not in page
    assert "gateway.py" not in page
    for unescaped in ("<b>", "<i>", "<u>", "\x1b"):
        assert unescaped not in page


@pytest.mark.usefixtures("without_werkzeug")
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_a_client_that_does_not_ask_for_html_gets_text(serve, accept):
    response = ask(serve(application, debug=True), accept=accept)
    assert response.value("Content-Type") == "text/plain; charset=utf-8"
    text = response.content.decode()
    assert text.startswith(
        "Internal Server Error: GET /a?b=<i>\n\nTraceback (most recent call last):\n"
    )
    assert text.endswith("RuntimeError: the text of the error <b>\\x1b[31m\n")


def test_the_page_also_shows_an_invalid_response_of_the_application(serve):
    assert "bytes" in ask(serve(application, debug=True), "/late", "text/plain").content.decode()


def test_without_debug_the_response_shows_no_details(serve):
    for accept in ("text/html", "*/*"):
        response = ask(serve(application), accept=accept)
        assert response.content == b"Internal Server Error\n"


def test_the_debugger_of_werkzeug_evaluates_code_for_a_client_that_knows_the_pin(serve, caplog):
    caplog.set_level(logging.INFO, "picowsgi")
    server = serve(application, debug=True)
    (pin,) = re.findall(r"the debugger's PIN is ([\d-]+)", caplog.text)
    page = ask(server).content.decode()
    secret = re.search(r'SECRET = "(\w+)"', page)[1]
    frame = re.search(r'id="frame-(\d+)"', page)[1]

    def command(text, fields=""):
        request = (
            f"GET /?__debugger__=yes&s={secret}&{text} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n"
        )
        (response,) = exchange(server, request.encode())
        return response

    assert command(f"cmd=6*7&frm={frame}").status == 500
    assert b'"auth": false' in command("cmd=pinauth&pin=000-000-000").content
    entered = command(f"cmd=pinauth&pin={pin}")
    assert b'"auth": true' in entered.content
    cookie = entered.value("Set-Cookie").partition(";")[0]
    evaluated = command(f"cmd=6*7&frm={frame}", f"Cookie: {cookie}\r\n")
    assert evaluated.status == 200
    assert b"42" in evaluated.content


def test_flask_passes_its_errors_to_the_debugger(picowsgi, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from flask import Flask\n"
        "app = Flask(__name__)\n"
        "@app.get('/')\n"
        "def index():\n"
        "    raise RuntimeError('as the test wants it')\n"
    )
    server = picowsgi("--debug", "broken:app", directory=tmp_path)
    page = ask(server, "/").content
    assert b"Werkzeug Debugger" in page
    assert b"as the test wants it" in page
    server.wait_for_log("the debugger's PIN is ")
