"""picowsgi.cgi: an application behind the CGI of lighttpd, and in an environment made by hand."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request

import pytest

from picowsgi import cgi
from support import RawClient, wait_until

LIGHTTPD = shutil.which("lighttpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
LARGE = bytes(range(256)) * (16 << 10)  # 4 MiB

APP = """
import hashlib, io, sys
import picowsgi.cgi
from wsgiref.validate import validator

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("on purpose")
    if path == "/late":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return late()
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if path == "/digest":
        digest = hashlib.sha256()
        while data := environ["wsgi.input"].read(65536):
            digest.update(data)
        content = digest.hexdigest().encode()
    elif path == "/large":
        content = bytes(range(256)) * (16 << 10)
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    else:
        print("for the log")
        content = repr(sorted(i for i in environ.items() if i[0] in SHOWN)).encode()
    start_response("202 Accepted", [("Content-Type", "text/plain"), ("X-Own", "\\xe9")])
    return [content]

def late():
    yield b"begun"
    raise ValueError("too late")

SHOWN = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_X_SOME",
         "wsgi.run_once", "wsgi.multithread", "wsgi.multiprocess", "wsgi.url_scheme"]
picowsgi.cgi.run(validator(app) if "--validate" in sys.argv else app)
"""


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def run(app, content=b"", **variables):
    """Run it with these variables in the environment; return its output."""
    output = io.BytesIO()
    cgi.run(app, environ=variables, stdin=io.BytesIO(content), stdout=output)
    head, _, body = output.getvalue().partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), body


# --- behind a web server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """lighttpd with the application at /app.cgi; it has a `port` and a log."""
    assert LIGHTTPD, "expected lighttpd; install it with: apt-get install lighttpd"
    directory = tmp_path_factory.mktemp("cgi")
    script = directory / "app.cgi"
    script.write_text(f"#!{sys.executable}\n{APP}")
    script.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "lighttpd.conf").write_text(
        textwrap.dedent(f"""
            server.modules = ("mod_cgi")
            server.document-root = "{directory}"
            server.bind = "127.0.0.1"
            server.port = {port}
            server.errorlog = "{directory}/log"
            server.breakagelog = "{directory}/scripts"
            server.upload-dirs = ("{directory}")
            cgi.assign = (".cgi" => "")
        """)
    )
    process = subprocess.Popen([LIGHTTPD, "-D", "-f", directory / "lighttpd.conf"])

    class Site:
        url = f"http://127.0.0.1:{port}/app.cgi"
        log = directory / "scripts"

    Site.port = port

    def listens():
        assert process.poll() is None, "expected lighttpd to run"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, "lighttpd to listen")
        yield Site
    finally:
        process.terminate()
        process.wait(10)


def ask(site, target, data=None, headers=None, method=None):
    request = urllib.request.Request(site.url + target, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.status, dict(error.headers), error.read()


def test_a_request_reaches_the_application_as_pep_3333_requires(site):
    status, headers, content = ask(site, "/a%20%C3%A9?q=%20", headers={"X-Some": "value"})
    assert status == 202
    assert headers["Content-Length"] == str(len(content))
    assert eval(content) == [
        ("HTTP_X_SOME", "value"),
        ("PATH_INFO", "/a Ã©"),
        ("QUERY_STRING", "q=%20"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/app.cgi"),
        ("wsgi.multiprocess", True),
        ("wsgi.multithread", False),
        ("wsgi.run_once", True),
        ("wsgi.url_scheme", "http"),
    ]
    wait_until(lambda: "for the log" in site.log.read_text(), "printed text to be in the log")


def test_content_of_any_bytes_passes_in_both_directions(site):
    assert ask(site, "/large")[2] == LARGE
    assert ask(site, "/digest", LARGE)[2].decode() == hashlib.sha256(LARGE).hexdigest()
    assert ask(site, "/digest", b"")[2].decode() == hashlib.sha256().hexdigest()


def test_cgi_sends_a_file(site):
    status, _, content = ask(site, "/file")
    assert status == 200
    assert APP.encode() in content


def test_head_requests_and_some_statuses_get_no_content(site):
    status, headers, content = ask(site, "/large", method="HEAD")
    assert (status, headers["Content-Length"], content) == (202, str(len(LARGE)), b"")
    assert ask(site, "/none")[::2] == (204, b"")


def test_an_error_is_a_500_and_a_traceback_in_the_log_of_the_web_server(site):
    status, _, content = ask(site, "/fail")
    assert status == 500
    assert b"on purpose" not in content
    wait_until(lambda: "ValueError: on purpose" in site.log.read_text(), "the traceback")
    assert "error in the application: GET /app.cgi/fail" in site.log.read_text()


def test_an_error_after_the_head_cuts_the_content(site):
    assert ask(site, "/late")[::2] == (200, b"begun")
    wait_until(lambda: "ValueError: too late" in site.log.read_text(), "the traceback")


def test_a_client_that_disconnects_causes_no_error(site):
    with RawClient(site.port) as client:
        client.send(b"GET /app.cgi/large HTTP/1.1\r\nHost: a\r\n\r\n")
        client.wait_for_bytes()
        client.reset()
    assert ask(site, "/none")[0] == 204


# --- in an environment made by hand -------------------------------------------------------------


def test_a_valid_application_passes_the_validator(tmp_path):
    script = tmp_path / "app.py"
    script.write_text(APP)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "SERVER_NAME": "a", "SERVER_PORT": "80"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", script, "--validate"],
        env={**environ, "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout.startswith(b"Status: 202 Accepted\r\n"), ended.stderr.decode()


def test_the_response_begins_with_the_status():
    head, content = run(hello, REQUEST_METHOD="GET")
    assert head == ["Status: 200 OK", "Content-Type: text/plain", "Content-Length: 5"]
    assert content == b"hello"


@pytest.mark.parametrize("length", ["", "x", "-1", "0", None])
def test_without_a_length_there_is_no_content_to_read(length):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    variables = {} if length is None else {"CONTENT_LENGTH": length}
    assert run(app, b"not of this request", REQUEST_METHOD="POST", **variables)[1] == b""


def test_the_application_can_read_no_more_than_the_content():
    seen = []

    def app(environ, start_response):
        content = environ["wsgi.input"]
        seen.append((content.readline(), content.read(2), content.readlines(), content.read()))
        return hello(environ, start_response)

    run(app, b"a\nbcd\nef and more", REQUEST_METHOD="POST", CONTENT_LENGTH="8")
    assert seen == [(b"a\n", b"bc", [b"d\n", b"ef"], b"")]


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({}, "http"),
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
    ],
)
def test_the_web_server_reports_https(variables, scheme):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    assert run(app, **variables)[1] == scheme.encode()


def test_bytes_of_the_environment_become_characters():
    seen = []

    def app(environ, start_response):
        seen.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    run(app, PATH_INFO=os.fsdecode(b"/\xff\xc3\xa9"))
    assert seen == ["/\xff\xc3\xa9"]


def test_an_invalid_response_is_a_500(caplog):
    def app(environ, start_response):
        start_response("200 OK", [("X-A", "a\r\nX-B: b")])
        return [b""]

    head, _ = run(app, PATH_INFO="/p")
    assert head[0] == "Status: 500 Internal Server Error"
    assert not any("X-B" in line for line in head)
    assert "GET /p" in caplog.text


@pytest.mark.parametrize("length", [0, 3])
def test_content_beyond_its_length_is_not_sent(length):
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", str(length))])
        write(b"abc"[:length])
        write(b"more")
        return []

    head, content = run(app)
    assert f"Content-Length: {length}" in head
    assert content == b"abc"[:length]


def test_a_head_without_content_has_no_length():
    def app(environ, start_response):
        start_response("200 OK", [])
        return []

    assert run(app, REQUEST_METHOD="HEAD") == (["Status: 200 OK"], b"")
    assert run(app, REQUEST_METHOD="GET") == (["Status: 200 OK", "Content-Length: 0"], b"")


# --- a web server that does not open the streams, or disconnects ---------------------------------

SCRIPT = """
import sys
import picowsgi.cgi

class Items:
    def __init__(self, items):
        self.items = iter(items)

    def __iter__(self):
        return self.items

    def close(self):
        with open("closed", "a") as file:
            file.write("closed")

def app(environ, start_response):
    print("printed")
    environ["wsgi.errors"].write("to the log")
    content = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/whole":
        return [b"x" * 100]
    return Items([b"x" * 100_000] * 100)

picowsgi.cgi.run(app)
sys.exit(7)
"""


@pytest.fixture
def shell(tmp_path):
    """`shell(redirections, **variables)` runs the script and returns what it has written."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def run_(redirections, **variables):
        return subprocess.run(
            ["sh", "-c", f"exec {sys.executable} script.py {redirections}"],
            cwd=tmp_path,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    return run_


@pytest.mark.parametrize("path", ["/whole", "/parts"])
@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_without_standard_output_the_application_runs_and_prints_nothing(shell, path, closed):
    done = shell(closed, PATH_INFO=path)
    assert done.returncode == 7
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


def test_without_standard_input_a_request_without_content_is_answered(shell):
    done = shell("<&-", PATH_INFO="/whole")
    assert done.returncode == 7
    assert done.stdout.startswith(b"Status: 200 OK\r\n")
    assert b"Traceback" not in done.stderr


def test_without_standard_input_the_application_reads_no_content(shell):
    done = shell("<&-", PATH_INFO="/whole", REQUEST_METHOD="POST", CONTENT_LENGTH="5")
    assert done.returncode == 7
    assert done.stdout.startswith(b"Status: 500 ")
    assert b"standard input is closed" in done.stderr


@pytest.mark.parametrize("path", ["/whole", "/parts"])
def test_a_web_server_that_does_not_read_leaves_no_traceback(tmp_path, path):
    (tmp_path / "script.py").write_text(SCRIPT)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PATH_INFO": path},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 7
    assert done.stderr.replace(b"to the log", b"") == b"printed\n"
    assert (tmp_path / "closed").exists() == (path == "/parts")


@pytest.mark.parametrize("path", ["/whole", "/parts"])
def test_a_full_output_is_one_line_in_the_log(shell, path):
    done = shell(">/dev/full", PATH_INFO=path)
    assert done.returncode == 7
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"the response cannot be written: ") == 1
    assert b"No space left on device" in done.stderr


def test_a_closed_stream_gets_nothing():
    output = io.BytesIO()
    output.close()
    cgi.run(hello, environ={}, stdin=io.BytesIO(), stdout=output)


def test_an_error_of_the_server_is_a_500(monkeypatch, caplog):
    def make(*_arguments):
        raise MemoryError

    monkeypatch.setattr(cgi, "_make_environ", make)
    head, body = run(hello)
    assert head[0] == "Status: 500 Internal Server Error"
    assert body == b"Internal Server Error\n"
    assert "an internal error ended a request" in caplog.text
