"""The PROXY protocol of a real HAProxy, and of a real nginx that forwards TCP."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.processes import PROCESS_TIMEOUT, eventually

HAPROXY = shutil.which("haproxy")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy: apt-get install haproxy")

APP = """
import json

KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme", "PATH_INFO",
        "picowsgi.peer", "HTTP_X_FORWARDED_FOR")

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ[key] for key in KEYS if key in environ}).encode()]
"""

HAPROXY_CONFIG = """
global
    stats socket {directory}/stats.sock level admin
defaults
    mode {mode}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    retries 0
frontend site
    bind {front}
    default_backend instances
backend instances
    {more}
    server app {back} {server}
"""

# `error_log` is in the folder of the test, and so are the files that nginx makes at its start.
NGINX_CONFIG = """
{load}
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
stream {{
    server {{
        listen {front};
        proxy_pass {back};
        proxy_protocol on;
    }}
}}
"""


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def free_port(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        return listening.getsockname()[1]


def stream_module():
    """Return the line that loads nginx's module for TCP, or an empty one if nginx contains it.

    None: there is no such module.
    """
    if NGINX is None:
        return None
    flags = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr.split()
    if "--with-stream" in flags:
        return ""
    folders = [flag.partition("=")[2] for flag in flags if flag.startswith("--modules-path=")]
    for folder in (*folders, "/usr/lib/nginx/modules"):
        module = Path(folder) / "ngx_stream_module.so"
        if module.exists():
            return f"load_module {module};"
    return None


class Client:
    """A client of the proxy, with one connection."""

    def __init__(self, place, source=None):
        if isinstance(place, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PROCESS_TIMEOUT)
            self.socket.connect(str(place))
        else:
            address = None if source is None else (source, 0)
            self.socket = socket.create_connection(place, PROCESS_TIMEOUT, address)
        self._connection = http.client.HTTPConnection("site.example", timeout=PROCESS_TIMEOUT)
        self._connection.sock = self.socket

    def ask(self, target="/", headers=None):
        """Return what the application sees of a request."""
        self._connection.request("GET", target, headers=headers or {})
        response = self._connection.getresponse()
        assert response.status == 200
        return json.loads(response.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()


class Place:
    """An address to listen on, in the forms of each program."""

    def __init__(self, kind, path):
        self.path = path
        if kind == "unix":
            self.for_client = path
            self.picowsgi, self.haproxy, self.nginx = f"unix:{path}", f"unix@{path}", f"unix:{path}"
        else:
            host, shown = ("127.0.0.1", "127.0.0.1") if kind == "v4" else ("::1", "[::1]")
            self.for_client = (host, free_port(host))
            self.picowsgi = self.haproxy = self.nginx = f"{shown}:{self.for_client[1]}"

    def listens(self):
        is_unix = isinstance(self.for_client, Path)
        family = (
            socket.AF_UNIX
            if is_unix
            else socket.AF_INET6
            if ":" in self.for_client[0]
            else socket.AF_INET
        )
        with socket.socket(family) as client:
            return client.connect_ex(str(self.for_client) if is_unix else self.for_client) == 0


KINDS = [
    "v4",
    pytest.param("v6", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")),
    "unix",
]


@pytest.fixture
def behind(command, tmp_path):
    """Start picowsgi, and return its place and a function that starts a program.

    `behind("v4", *options)`
    """
    with ExitStack() as stack:

        def start_program(*arguments):
            process = subprocess.Popen(
                arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, PROCESS_TIMEOUT)
            stack.callback(process.terminate)

        def start(kind, *options):
            (tmp_path / "app.py").write_text(APP)
            place = Place(kind, tmp_path / "back.sock")
            server = command(
                *("-m", "picowsgi", "--bind", place.picowsgi, "--proxy-protocol"),
                *("--access-log", "--access-log-format", "%(h)s %(R)s", *options, "app:app"),
                directory=tmp_path,
                stdout=True,
                listens=False,
            )
            server.wait_for_log("serving")
            return server, place, start_program

        yield start


@pytest.fixture
def behind_haproxy(behind, tmp_path):
    """Put HAProxy before picowsgi: `behind_haproxy("v4", "v6", "send-proxy")`."""

    def start(front_kind, back_kind, server, *options, mode="tcp", more=""):
        command, back, start_program = behind(back_kind, *options)
        front = Place(front_kind, tmp_path / "front.sock")
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            HAPROXY_CONFIG.format(
                directory=tmp_path,
                mode=mode,
                front=front.haproxy,
                back=back.haproxy,
                server=server.format(port=back.for_client[1] if back_kind != "unix" else 0),
                more=more,
            )
        )
        start_program(HAPROXY, "-db", "-f", str(config))
        eventually(front.listens, "HAProxy to listen")
        return command, front

    return start


@pytest.fixture
def behind_nginx(behind, tmp_path):
    """Put an nginx that forwards TCP before picowsgi: `behind_nginx("v4", "v6")`."""
    load = stream_module()
    if load is None:
        pytest.skip("needs nginx's stream module: apt-get install nginx-light libnginx-mod-stream")

    def start(front_kind, back_kind, *options):
        command, back, start_program = behind(back_kind, *options)
        front = Place(front_kind, tmp_path / "front.sock")
        config = tmp_path / "nginx.conf"
        config.write_text(
            NGINX_CONFIG.format(load=load, directory=tmp_path, front=front.nginx, back=back.nginx)
        )
        start_program(NGINX, "-p", str(tmp_path), "-c", str(config))
        eventually(front.listens, "nginx to listen")
        return command, front

    return start


def check_client(found, client, front):
    """Check that a request has the addresses of the connection between client and proxy."""
    address, port = client.socket.getsockname()[:2]
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == (address, str(port))
    host, site_port = front.for_client
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == (host, str(site_port))
    assert "picowsgi.peer" in found


VERSIONS = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"]


@needs_haproxy
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("back", KINDS)
@pytest.mark.parametrize("front", KINDS[:2])
def test_haproxy_names_its_client(behind_haproxy, front, back, version):
    _, front = behind_haproxy(front, back, version)
    with Client(front.for_client) as client:
        for number in range(5):
            check_client(client.ask(f"/{number // 2}"), client, front)


@needs_haproxy
@pytest.mark.parametrize("version", VERSIONS)
def test_haproxy_on_a_unix_socket_has_no_address_of_its_client(behind_haproxy, version):
    _, front = behind_haproxy("unix", "v4", version)
    with Client(front.for_client) as client:
        assert client.ask()["REMOTE_ADDR"] in ("", "127.0.0.1")


@needs_haproxy
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_haproxy_forges_nothing(behind_haproxy, version):
    options = ("--forwarded-allow-ips", "127.0.0.1")
    server, front = behind_haproxy("v4", "v4", version, *options)
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with Client(front.for_client, "127.0.0.2") as client:
        for headers in (forged, {}, forged, forged):
            found = client.ask("/forged", headers)
            check_client(found, client, front)
            assert found["wsgi.url_scheme"] == "http"
            assert "HTTP_X_FORWARDED_FOR" not in found
    server.wait_for_log("127.0.0.2 /forged\n", 4)


@needs_haproxy
@pytest.mark.parametrize("version", VERSIONS)
def test_each_client_of_haproxy_has_its_address_when_it_speaks_http(behind_haproxy, version):
    more = "http-reuse always"
    _, front = behind_haproxy("v4", "v4", version, mode="http", more=more)
    with Client(front.for_client, "127.0.0.2") as one, Client(front.for_client, "127.0.0.3") as two:
        for _ in range(6):
            check_client(one.ask(), one, front)
            check_client(two.ask(), two, front)


def state(directory):
    """Return the state of the server for HAProxy: UP, DOWN, ..."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(directory / "stats.sock"))
        except OSError:  # HAProxy makes it after it listens
            return ""
        asking.sendall(b"show stat\n")
        with asking.makefile() as lines:
            rows = [line.split(",") for line in lines]
    [found] = [row[17] for row in rows if row[:2] == ["instances", "app"]]
    return found


HTTP_CHECK = "option httpchk\n    http-check send meth GET uri /up ver HTTP/1.1 hdr Host a"


@needs_haproxy
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("back", "check"),
    [("v4", "check port {port} check-send-proxy"), ("v4", "check"), ("unix", "check")],
)
def test_health_checks_of_haproxy_send_the_header_too(
    behind_haproxy, tmp_path, back, check, version
):
    server, front = behind_haproxy("v4", back, f"{version} {check} inter 50ms", more=HTTP_CHECK)
    server.wait_for_log(" /up\n", 3)
    eventually(lambda: state(tmp_path).startswith("UP"), "HAProxy to find the server up")
    with Client(front.for_client) as client:
        check_client(client.ask(), client, front)
    assert "a connection is closed" not in server.log


@needs_haproxy
def test_health_checks_that_only_connect_are_not_logged(behind_haproxy, tmp_path):
    server, front = behind_haproxy("v4", "v4", "send-proxy check inter 20ms")
    for _ in range(5):
        with Client(front.for_client) as client:
            check_client(client.ask(), client, front)
    eventually(lambda: state(tmp_path).startswith("UP"), "HAProxy to find the server up")
    assert "a connection is closed" not in server.log


@needs_haproxy
def test_health_checks_without_the_header_fail_with_one_clear_line(behind_haproxy, tmp_path):
    # For a port that the configuration names, HAProxy sends the header only on request.
    checked = "send-proxy check port {port} inter 50ms fall 1"
    server, _ = behind_haproxy("v4", "v4", checked, more=HTTP_CHECK)
    eventually(lambda: state(tmp_path) == "DOWN", "HAProxy to find the server down")
    server.wait_for_log(
        "a connection is closed, because it does not begin with a PROXY header (--proxy-protocol): "
        "GET /up HTTP/1.1, from 127.0.0.1"
    )


@needs_haproxy
def test_haproxy_without_the_option_and_the_option_without_haproxy(behind_haproxy):
    server, front = behind_haproxy("v4", "v4", "")
    with Client(front.for_client) as client, pytest.raises((OSError, http.client.HTTPException)):
        client.ask()
    server.wait_for_log("it does not begin with a PROXY header")


@pytest.mark.parametrize("back", KINDS)
@pytest.mark.parametrize("front", KINDS[:2])
def test_nginx_names_its_client(behind_nginx, front, back):
    server, front = behind_nginx(front, back)
    with Client(front.for_client) as client:
        for number in range(5):
            check_client(client.ask(f"/{number // 2}"), client, front)
    server.wait_for_log(f"{front.for_client[0]} /", 5)


@pytest.mark.parametrize("back", KINDS)
def test_nginx_does_not_know_the_client_of_its_unix_socket(behind_nginx, back):
    _, front = behind_nginx("unix", back)
    with Client(front.for_client) as client:
        found = client.ask()
        assert found["REMOTE_ADDR"] == {"v4": "127.0.0.1", "v6": "::1", "unix": ""}[back]
        assert "picowsgi.peer" not in found


def test_a_client_of_nginx_forges_nothing(behind_nginx):
    server, front = behind_nginx("v4", "v4", "--forwarded-allow-ips", "127.0.0.1")
    with Client(front.for_client, "127.0.0.2") as client:
        found = client.ask("/forged", {"X-Forwarded-For": "203.0.113.9"})
        check_client(found, client, front)
        assert "HTTP_X_FORWARDED_FOR" not in found
    server.wait_for_log("127.0.0.2 /forged\n")
