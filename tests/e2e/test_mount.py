"""Several applications in one server: `picowsgi.Mount` and `--mount`."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request

import pytest

import picowsgi
from picowsgi.errors import ConfigError
from support import INTERRUPTS, exchange

APPS = """
def answer(name):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ["|".join([name, environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode("latin-1")]
    return app

root, api, newer = map(answer, ["root", "api", "newer"])
"""


def answer(name):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ["|".join([name, environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode("latin-1")]

    return app


def ask(server, target):
    request = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target.encode("latin-1")
    [response] = exchange(server, request)
    return response.content.decode() if response.status == 200 else response.status


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/api", "api|/api|"),
        ("/api/", "api|/api|/"),
        ("/api//x", "api|/api|//x"),
        ("/apinews", "root||/apinews"),
        ("/", "root||/"),
        ("//api", "root||//api"),
        ("/API", "root||/API"),
        ("/api/v2", "newer|/api/v2|"),
        ("/api/v2/x/y?q", "newer|/api/v2|/x/y"),
        ("/api/v20", "api|/api|/v20"),
        ("/%61pi/x", "api|/api|/x"),
        ("/api%2Fv2", "newer|/api/v2|"),
        ("/api/%2561", "api|/api|/%61"),
        ("/caf%C3%A9/x", "café|/café|/x"),
    ],
)
def test_the_longest_prefix_that_ends_at_a_segment_wins(target, wanted, serve):
    mount = picowsgi.Mount(
        {"/api": answer("api"), "/api/v2": answer("newer"), "/café": answer("cafÃ©")},
        default=answer("root"),
    )
    assert ask(serve(mount), target) == wanted.encode().decode("utf-8")


def test_without_a_default_other_paths_are_not_found(serve):
    server = serve(picowsgi.Mount({"/api": answer("api")}))
    assert ask(server, "/api/x") == "api|/api|/x"
    assert ask(server, "/") == 404
    assert ask(serve(picowsgi.Mount({})), "/") == 404


def test_mounts_can_be_nested(serve):
    inner = picowsgi.Mount({"/b": answer("b")}, answer("a"))
    server = serve(picowsgi.Mount({"/a": inner}))
    assert ask(server, "/a/b/c") == "b|/a/b|/c"
    assert ask(server, "/a/c") == "a|/a|/c"


def test_a_mount_changes_no_other_key_of_the_environ():
    before = {
        "SCRIPT_NAME": "/s",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "q",
        "REQUEST_URI": "/a/b?q",
    }
    environ = dict(before)
    picowsgi.Mount({"/a": lambda environ, start_response: []})(environ, None)
    assert environ == {**before, "SCRIPT_NAME": "/s/a", "PATH_INFO": "/b"}


@pytest.mark.parametrize("prefix", ["", "/", "a", "/a/", "/a//b", "/..", "/a?b", "/%61", "/a\n"])
def test_a_bad_prefix_is_refused(prefix):
    with pytest.raises(ConfigError, match="prefix"):
        picowsgi.Mount({prefix: answer("x")})


def test_the_api_has_mounts_as_options(serve, tmp_path, monkeypatch):
    (tmp_path / "mounted_apps.py").write_text(APPS)
    monkeypatch.syspath_prepend(tmp_path)
    server = serve(answer("root"), mount=["/api=mounted_apps:api"])
    assert ask(server, "/api/x") == "api|/api|/x"
    assert ask(server, "/x") == "root||/x"


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--workers", "2", "--preload")])
def test_the_command_has_mounts_as_options(more, picowsgi, tmp_path):
    (tmp_path / "apps.py").write_text(APPS)
    mounts = ("--mount", "/api=apps:api", "--mount", "/api/v2=apps:newer")
    server = picowsgi(*mounts, "apps:root", *more, directory=tmp_path)
    assert ask(server, "/api/x") == "api|/api|/x"
    assert ask(server, "/api/v2/x") == "newer|/api/v2|/x"
    assert ask(server, "/x") == "root||/x"
    assert "serving apps:root /api=apps:api /api/v2=apps:newer on " in server.log


def test_without_an_app_the_command_serves_the_mounts_alone(picowsgi, tmp_path):
    (tmp_path / "apps.py").write_text(APPS)
    server = picowsgi(directory=tmp_path, environ={"PICOWSGI_MOUNT": "/a=apps:api,/b=apps:newer"})
    assert ask(server, "/a") == "api|/a|"
    assert ask(server, "/b") == "newer|/b|"
    assert ask(server, "/") == 404


def refusal_of(*options, directory):
    """The exit status of the command, and its messages."""
    ended = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--port", "0", *options],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--reload",)])
def test_a_repeated_prefix_is_refused_before_any_import(more, tmp_path):
    (tmp_path / "apps.py").write_text("raise ZeroDivisionError")
    mounts = ("--mount", "/api=apps:api", "--mount", "/api=apps:root")
    status, complaint = refusal_of(*mounts, *more, directory=tmp_path)
    assert status == 2, complaint
    assert complaint == "picowsgi: error: option mount: the prefix /api is given twice\n"


@pytest.mark.parametrize(
    ("mounts", "status", "complaint"),
    [
        (["api=apps:api"], 2, "--mount: expected PREFIX=APP, such as /api=mysite:api"),
        (["/api"], 2, "--mount: expected PREFIX=APP"),
        (["/api="], 2, "--mount: expected PREFIX=APP"),
        (["/api=apps:none"], 1, "none"),
    ],
)
def test_the_command_refuses_a_bad_mount(mounts, status, complaint, tmp_path):
    (tmp_path / "apps.py").write_text(APPS)
    options = [part for mount in mounts for part in ("--mount", mount)]
    ended, text = refusal_of(*options, directory=tmp_path)
    assert ended == status, text
    assert complaint in text
    assert "Traceback" not in text


@INTERRUPTS
def test_a_mounted_request_can_be_interrupted(serve, caplog):
    def slow(environ, start_response):
        until = time.monotonic() + 10
        while time.monotonic() < until:
            pass
        return []

    server = serve(picowsgi.Mount({"/slow": slow}), timeout_request=0.3, threads=2)
    with pytest.raises(urllib.error.HTTPError, match="500") as raised:
        urllib.request.urlopen(f"{server.url}/slow", timeout=8)
    raised.value.close()
    assert "RequestTimeoutError" in caplog.text
