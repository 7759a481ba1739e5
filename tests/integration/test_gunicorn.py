"""The worker of picowsgi under a real gunicorn: its processes, signals, settings and logs."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from support import RawClient
from support.processes import (
    APP,
    PROCESS_TIMEOUT,
    Load,
    ask,
    children,
    eventually,
    lives,
    needs_gil,
    write_app,
)
from support.proxy_header import v1, v2

MORE = """
from http import HTTPStatus

def more(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("on purpose")
    if path.startswith("/environ/"):
        start_response("200 OK", [("X-Answer", "yes")])
        return [str(environ.get(path[9:], "none")).encode()]
    if path == "/file":
        start_response("200 OK", [])
        return [environ["wsgi.file_wrapper"].__module__.encode()]
    if path == "/together":
        together.wait(20)
    return app(environ, start_response)

import threading
together = threading.Barrier(4)
"""


@pytest.fixture
def gunicorn(command, tmp_path):
    """Start gunicorn with our worker in a folder with app.py: `gunicorn("--workers", "2")`."""

    def start(*options, app="app:more", config="", environ=None):
        write_app(tmp_path, APP + MORE)
        (tmp_path / "gunicorn.conf.py").write_text(config)
        worker = ("--worker-class", "picowsgi.contrib.gunicorn.Worker", "--no-control-socket")
        binds = () if "--bind" in options else ("--bind", "127.0.0.1:0")
        arguments = ("-m", "gunicorn", *worker, *binds, *options, app)
        started = command(*arguments, directory=tmp_path, environ=environ or {})
        started.wait_for_log("Booting worker")
        return started

    return start


def ask_in_thread(port, path):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(port, path)), daemon=True)
    thread.start()
    return thread, answers


def status_of(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROCESS_TIMEOUT)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def workers(command):
    return children(command.process.pid)


def test_the_worker_serves_and_stops(gunicorn):
    server = gunicorn()
    assert ask(server.port) == "1"
    assert ask(server.port, "/pid") == str(workers(server)[0])
    assert ask(server.port, "/environ/wsgi.multithread") == "False"
    assert ask(server.port, "/environ/wsgi.multiprocess") == "False"
    assert server.stop() == 0


def test_the_worker_uses_the_given_number_of_threads(gunicorn):
    server = gunicorn("--threads", "4")
    assert ask(server.port, "/environ/wsgi.multithread") == "True"
    asked = [ask_in_thread(server.port, "/together") for _ in range(4)]
    for thread, answers in asked:
        thread.join(PROCESS_TIMEOUT)
        assert answers == ["1"]


def test_sighup_replaces_the_workers_under_load_without_a_lost_request(gunicorn, tmp_path):
    server = gunicorn("--workers", "2")
    before = workers(server)
    with Load(server.port) as load:
        write_app(tmp_path, (APP + MORE).replace('"1"', '"2"'))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not any(map(lives, before)), "the old workers to end")
        load.wait_for_more()
    assert ask(server.port) == "2"
    eventually(lambda: len(workers(server)) == 2, "two workers")


def test_sigterm_lets_a_running_request_finish(gunicorn, tmp_path):
    server = gunicorn()
    thread, answers = ask_in_thread(server.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    server.process.terminate()
    server.wait_for_log("Handling signal: term")
    (tmp_path / "release").touch()
    assert server.wait() == 0
    thread.join(PROCESS_TIMEOUT)
    assert answers == ["released"]


def test_a_request_that_runs_beyond_graceful_timeout_is_abandoned(gunicorn, tmp_path):
    server = gunicorn("--graceful-timeout", "1")
    with RawClient(server.port) as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually((tmp_path / "held").exists, "the request to run")
        begin = time.monotonic()
        assert server.stop() == 0
        assert 0.9 < time.monotonic() - begin < PROCESS_TIMEOUT


def test_sigttin_and_sigttou_change_the_number_of_workers(gunicorn):
    server = gunicorn()
    server.process.send_signal(signal.SIGTTIN)
    eventually(lambda: len(workers(server)) == 2, "a second worker")
    with Load(server.port):
        server.process.send_signal(signal.SIGTTOU)
        eventually(lambda: len(workers(server)) == 1, "one worker less")
    assert ask(server.port) == "1"


def test_max_requests_replaces_a_worker_without_a_lost_request(gunicorn):
    server = gunicorn("--max-requests", "300")
    [first] = workers(server)
    with Load(server.port):
        eventually(lambda: not lives(first), "the worker to be replaced")
        eventually(lambda: workers(server), "another worker")
    assert "Autorestarting worker" in server.log
    assert ask(server.port) == "1"


@needs_gil
def test_a_worker_that_sends_no_heartbeat_is_killed(gunicorn):
    server = gunicorn("--timeout", "2")
    [first] = workers(server)
    with RawClient(server.port) as client:
        client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: not lives(first), "the worker to be killed")
    eventually(lambda: workers(server), "another worker")
    assert ask(server.port) == "1"


def test_a_request_may_take_longer_than_the_timeout(gunicorn, tmp_path):
    server = gunicorn("--timeout", "1")
    thread, answers = ask_in_thread(server.port, "/hold")
    eventually((tmp_path / "held").exists, "the request to run")
    thread.join(2.5)
    assert thread.is_alive()
    (tmp_path / "release").touch()
    thread.join(PROCESS_TIMEOUT)
    assert answers == ["released"]
    assert "WORKER TIMEOUT" not in server.log


def test_the_worker_serves_several_addresses_and_a_unix_socket(gunicorn, tmp_path):
    server = gunicorn("--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/socket")
    assert ask(server.port) == "1"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PROCESS_TIMEOUT)
        client.connect(str(tmp_path / "socket"))
        client.sendall(b"GET /environ/REMOTE_ADDR HTTP/1.0\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_both_logs_are_those_of_gunicorn(gunicorn, tmp_path):
    access = tmp_path / "access.log"
    layout = "%(r)s|%(s)s|%(B)s|%({x-some}i)s|%({x-answer}o)s"
    server = gunicorn("--access-logfile", str(access), "--access-logformat", layout)
    status_of(server.port, "/environ/none?q", {"X-Some": "value"})
    assert status_of(server.port, "/fail")[0] == 500
    server.wait_for_log("ValueError: on purpose")
    assert "[ERROR] error in the application: GET /fail" in server.log
    wanted = [
        "GET /environ/none?q HTTP/1.1|200|4|value|yes",
        "GET /fail HTTP/1.1|500|22|-|-",
    ]
    eventually(lambda: access.read_text().splitlines() == wanted, f"the access log {wanted}")


def test_the_hooks_of_a_request_are_called(gunicorn):
    config = """
def pre_request(worker, req):
    worker.log.info("before %s %s %s", req.method, req.path, dict(req.headers)["HOST"])

def post_request(worker, req, environ, resp):
    worker.log.info("after %s %s", environ["PATH_INFO"], resp.status)
    raise ValueError("a bad hook")

def worker_exit(server, worker):
    server.log.info("exit after %s requests", worker.nr)
"""
    server = gunicorn(config=config)
    assert ask(server.port, "/pid") == str(workers(server)[0])
    server.wait_for_log("after /pid 200 OK")
    assert f"before GET /pid 127.0.0.1:{server.port}" in server.log
    server.wait_for_log("ValueError: a bad hook")
    assert server.stop() == 0
    assert "exit after" in server.log


def test_only_trusted_proxies_are_believed_about_https(gunicorn):
    secure = {"X-Forwarded-Proto": "https"}
    server = gunicorn()
    path = "/environ/wsgi.url_scheme"
    assert status_of(server.port, path)[1] == "http"
    assert status_of(server.port, path, secure)[1] == "https"
    assert status_of(server.port, path, {**secure, "X-Forwarded-Ssl": "off"})[1] == "http"
    client = {"X-Forwarded-For": "192.0.2.9"}
    assert status_of(server.port, "/environ/REMOTE_ADDR", client)[1] == "192.0.2.9"
    assert status_of(server.port, path, {**client, "X-Forwarded-Ssl": "on"})[1] == "https"
    other = gunicorn("--forwarded-allow-ips", "192.0.2.1")
    assert status_of(other.port, path, secure)[1] == "http"
    assert status_of(other.port, "/environ/REMOTE_ADDR", client)[1] == "127.0.0.1"
    assert status_of(other.port, "/environ/HTTP_X_FORWARDED_FOR", client)[1] == "none"


def test_a_proxy_header_names_the_client(gunicorn, tmp_path):
    header = v2(("192.0.2.1", 4711), ("198.51.100.2", 443))
    server = gunicorn("--proxy-protocol", "auto", "--access-logfile", "log")
    forged = "X-Forwarded-Ssl: on\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n"
    with RawClient(server.port) as client:
        client.send(header)
        for name, expected in (
            ("REMOTE_ADDR", b"192.0.2.1"),
            ("REMOTE_PORT", b"4711"),
            ("SERVER_PORT", b"443"),
            ("picowsgi.peer", b"127.0.0.1"),
            ("wsgi.url_scheme", b"http"),
        ):
            client.send(f"GET /environ/{name} HTTP/1.1\r\nHost: a\r\n{forged}\r\n".encode())
            assert client.read_response().content == expected
    with RawClient(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.end()
    server.wait_for_log("it does not begin with a PROXY header")
    with RawClient(server.port) as client:  # a proxy behind the proxy
        client.send(v1(("127.0.0.1", 4711), ("198.51.100.2", 443)))
        client.send(
            b"GET /environ/wsgi.url_scheme HTTP/1.1\r\nHost: a\r\nX-Forwarded-Ssl: on\r\n\r\n"
        )
        assert client.read_response().content == b"https"
    assert server.stop() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["192.0.2.1"] * 5 + ["127.0.0.1"]


def test_settings_mean_the_same_as_in_gunicorn(gunicorn):
    server = gunicorn(
        *("--keep-alive", "0", "--limit-request-fields", "3", "--limit-request-line", "100"),
        *("--limit-request-field_size", "100", "--no-sendfile"),
        environ={"SCRIPT_NAME": "/below", "PICOWSGI_MAX_BODY_SIZE": "10"},
    )
    status, answer, headers = status_of(server.port, "/below/environ/SCRIPT_NAME")
    assert (status, answer, headers["Connection"]) == (200, "/below", "close")
    assert status_of(server.port, "/elsewhere")[0] == 404
    assert status_of(server.port, "/below/file")[1] == "wsgiref.util"
    assert status_of(server.port, "/below/", {"A": "1", "B": "1", "C": "1"})[0] == 431
    assert status_of(server.port, "/below/", {"A": "x" * 500})[0] == 431
    with RawClient(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        assert client.read_response().status == 413


def test_a_changed_file_reloads_a_worker(gunicorn, tmp_path):
    server = gunicorn("--reload", "--reload-engine", "poll")
    assert ask(server.port) == "1"

    def is_noticed():
        write_app(tmp_path, (APP + MORE).replace('"1"', '"22"'))  # until the reloader looks
        return "Worker reloading" in server.log

    eventually(is_noticed, "gunicorn to notice the change")

    def is_new():
        try:
            return ask(server.port) == "22"
        except OSError:  # gunicorn's own reload cuts the worker's requests
            return False

    eventually(is_new, "the changed application")


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("certfile = __file__; keyfile = __file__", "cannot use certfile: TLS is not served"),
        (
            "proxy_protocol = True; proxy_allow_ips = '192.0.2.1'",
            "set proxy_allow_ips (192.0.2.1) and forwarded_allow_ips (127.0.0.1,::1) to the same",
        ),
        ("strip_header_spaces = True", "cannot use strip_header_spaces"),
        ("threads = 5000", "option threads: expected a whole number from 1 to 4096, got 5000"),
    ],
)
def test_a_setting_without_an_equivalent_is_refused(config, complaint, tmp_path):
    write_app(tmp_path)
    worker = "picowsgi.contrib.gunicorn.Worker"
    (tmp_path / "gunicorn.conf.py").write_text(
        f"bind = '127.0.0.1:0'; control_socket_disable = True; worker_class = {worker!r}; {config}"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "app:app"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PROCESS_TIMEOUT,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert complaint in ended.stderr


def test_the_connections_of_a_killed_worker_are_forgotten(monkeypatch):
    """Otherwise the others would leave new connections to it without a limit."""
    config = pytest.importorskip("gunicorn.config").Config()
    from picowsgi.contrib.gunicorn import Worker

    forgotten = []

    class Balance:
        def forget(self, pid):
            forgotten.append(pid)

    class Forked:
        def __init__(self, pid):
            self.pid = pid

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lives_on = Forked(os.getpid())
    monkeypatch.setattr(Worker, "_balance", Balance())
    monkeypatch.setattr(Worker, "_forked", [Forked(ended.pid), lives_on])
    made = Worker(1, os.getpid(), [], None, 30, config, None)
    made.tmp.close()
    assert forgotten == [ended.pid]
    assert Worker._forked == [lives_on, made]
