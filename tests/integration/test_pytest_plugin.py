"""The fixture `wsgi_server` in the project of another author."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

APP = """
import threading
import urllib.error
import urllib.request

import pytest

def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

def bad(environ, start_response):
    raise ValueError("on purpose")

def get(server):
    try:
        with urllib.request.urlopen(server.url, timeout=10) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.status
"""


@pytest.fixture
def project(tmp_path):
    """Run pytest with warnings as errors on tests after APP. Return its outcome and output."""

    def run(tests, *options, configuration=""):
        (tmp_path / "test_it.py").write_text(APP + tests)
        (tmp_path / "pyproject.toml").write_text(configuration)
        # rerunfailures has a thread of its own.
        plain = ["-p", "no:cacheprovider", "-p", "no:rerunfailures"]
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "pytest", *plain, *options],
            env={name: os.environ[name] for name in os.environ if name != "PYTEST_ADDOPTS"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
        )
        return ended.returncode, ended.stdout

    return run


def test_servers_answer_during_a_test_and_stop_after_it(project):
    status, output = project("""
kept = []

def test_two_servers(wsgi_server):
    one, two = wsgi_server(hello), wsgi_server(hello, threads=2, host="localhost")
    assert one.port != two.port
    assert get(one) == get(two) == b"hello"
    assert two.settings.threads == 2
    kept.extend([one, two])

def test_they_are_stopped():
    assert len(kept) == 2
    for server in kept:
        with pytest.raises(urllib.error.URLError):
            get(server)
    assert threading.active_count() == 1

def test_an_address_of_its_own(wsgi_server, tmp_path):
    server = wsgi_server(hello, bind=[f"unix:{tmp_path}/socket"])
    assert (tmp_path / "socket").is_socket()
""")
    assert status == 0, output
    assert "3 passed" in output


def test_all_servers_stop_when_a_test_fails(project):
    status, output = project("""
kept = []

def test_fails(wsgi_server):
    kept.append(wsgi_server(hello))
    kept.append(wsgi_server(hello))
    raise AssertionError("on purpose")

def test_they_are_stopped():
    assert len(kept) == 2
    assert threading.active_count() == 1
""")
    assert status == 1
    assert "1 failed, 1 passed" in output


def test_an_exception_in_the_application_is_shown_with_the_test(project):
    status, output = project("""
def test_fails(wsgi_server):
    assert get(wsgi_server(bad)) == b"hello"

def test_looks_into_the_log(wsgi_server, caplog):
    assert get(wsgi_server(bad)) == 500
    assert "ValueError: on purpose" in caplog.text
    assert caplog.records[0].name == "picowsgi"
""")
    assert status == 1
    assert "1 failed, 1 passed" in output
    assert "Captured log call" in output
    assert 'raise ValueError("on purpose")' in output


def test_the_options_of_the_project_do_not_move_the_server(project):
    status, output = project(
        """
def test_port(wsgi_server):
    server = wsgi_server(hello)
    assert get(server) == b"hello"
    assert server.port != 1
    assert server.settings.threads == 3
""",
        configuration="[tool.picowsgi]\nthreads = 3\nport = 1\n",
    )
    assert status == 0, output


def test_parallel_workers_can_use_the_fixture(project):
    tests = """
@pytest.mark.parametrize("number", range(8))
def test_serves(wsgi_server, number):
    assert get(wsgi_server(hello)) == b"hello"
"""
    status, output = project(tests, "-n", "2")
    assert status == 0, output
    assert "8 passed" in output


def test_a_project_that_does_not_use_the_fixture_imports_nothing(project):
    status, output = project("""
import sys

def test_modules():
    ours = {name for name in sys.modules if name.split(".")[0] in ("picowsgi", "cffi", "click")}
    if sys.implementation.name == "pypy":  # its own library is made with cffi
        ours = {name for name in ours if name.split(".")[0] != "cffi"}
    assert ours == {"picowsgi", "picowsgi.pytest_plugin"}
""")
    assert status == 0, output
