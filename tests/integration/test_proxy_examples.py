"""The configurations of HAProxy, nginx and Caddy in examples/ serve a site of several instances.

The tests change addresses and paths, and nothing else.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.processes import PROCESS_TIMEOUT, eventually, write_app
from support.proxies import (
    APP,
    CONTENT,
    POSTED,
    Clients,
    Instance,
    Program,
    connect_to,
    free_port,
    wait_for_all,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("one", "two", "three")
PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light", "caddy": "caddy"}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs a client at 127.0.0.2"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]

FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "http",
    "X_Forwarded_For": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=http",
    "X-Request-ID": "forged",
}


def program(name):
    found = shutil.which(name, path=PROGRAMS)
    if found is None:
        pytest.skip(f"needs {name}: apt-get install {PACKAGES[name]}")
    return found


def command_in_readme(name, unix=False):
    """Return the options of picowsgi in the README of an example."""
    lines = (EXAMPLES / name / "README.md").read_text().splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    picowsgi ")]
    (words,) = (words for words in commands if ("unix" in " ".join(words)) == unix)
    return words[1:-1]


def changed(words, **values):
    """Return these words with other values after the options: `bind="127.0.0.1:8000"`."""
    found = list(words)
    for name, value in values.items():
        found[found.index(f"--{name.replace('_', '-')}") + 1] = value
    return found


def replaced(text, *pairs):
    """Return a configuration with other addresses and paths, each of which it must have once."""
    for old, new in pairs:
        assert text.count(old) == 1, f"expected {old!r} once, got it {text.count(old)} times"
        text = text.replace(old, new)
    return text


class Site:
    """Instances, the proxy in front of them, and its addresses."""

    def __init__(self, directory, sockets, stack):
        self.directory = directory
        self.sockets = sockets
        self.stack = stack
        self.http, self.https = free_port(), free_port()
        self.context = None
        write_app(directory, APP)

    def start(self, name, unix=False):
        options = command_in_readme(name, unix)
        self.instances = []
        for one in NAMES[: 2 if unix else 3]:
            if unix:
                place = {"unix": self.sockets / f"{one}.sock"}
                own = changed(options, bind=f"unix:{place['unix']}")
                if os.getuid() != 0:
                    own = changed(own, unix_socket_group=str(os.getgid()))
            else:
                place = {"port": free_port()}
                own = changed(
                    options, bind=f"127.0.0.1:{place['port']}", forwarded_allow_ips="127.0.0.1"
                )
            self.instances.append(Instance(one, self.directory, own, **place))
            self.stack.callback(self.instances[-1].end)
        wait_for_all(self.instances)
        certificate = START[name](self, EXAMPLES / name)
        eventually(certificate.exists, "the certificate")
        self.context = ssl.create_default_context(cafile=certificate)
        eventually(self.has_certificate, "a TLS connection to the proxy")
        return self

    def run(self, *command, **environ):
        self.proxy = Program(command, self.directory / "proxy.log", **environ)
        self.stack.callback(self.proxy.end)
        self.proxy.wait_for_port(self.https)

    def has_certificate(self):  # Caddy makes it while it listens
        try:
            connection = self.connect()
            connection.connect()
            connection.close()
        except ssl.SSLError:
            return False
        return True

    def connect(self):
        return connect_to(self.https, self.context)

    def ask(self, method, target, body=None, headers=None, connection=None):
        """Return the status, the instance and the body."""
        connection = connection or self.connect()
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return response.status, response.getheader("Instance"), response.read()
        finally:
            connection.close()

    def environ(self, headers=None, connection=None):
        status, _, body = self.ask("GET", "/environ", None, headers, connection)
        assert status == 200, f"expected 200, got {status}: {self.proxy.log}"
        return json.loads(body)

    def make_certificate(self):
        """Make a certificate for localhost; return its file and that of its key."""
        certificate, key = self.directory / "site.crt", self.directory / "site.key"
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                ),
                *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
            timeout=PROCESS_TIMEOUT,
        )
        return certificate, key


def start_haproxy(site, example):
    certificate, key = site.make_certificate()
    pem = site.directory / "site.pem"
    pem.write_text(certificate.read_text() + key.read_text())
    environ = {
        f"INSTANCE_{number}": one.address for number, one in enumerate(site.instances, start=1)
    }
    if os.getuid() != 0:
        environ["SITE_USER"] = pwd.getpwuid(os.getuid()).pw_name
    site.run(
        *(program("haproxy"), "-db", "-f", example / "haproxy.cfg"),
        SITE_HTTP=f"127.0.0.1:{site.http}",
        SITE_HTTPS=f"127.0.0.1:{site.https}",
        SITE_PEM=str(pem),
        SITE_SOCKET=str(site.directory / "admin.sock"),
        **environ,
    )
    return certificate


def start_nginx(site, example):
    certificate, key = site.make_certificate()
    text = (example / "nginx.conf").read_text()
    if site.instances[0].unix:  # the lines for one host are comments
        text = "\n".join(
            line.replace("# server unix:", "server unix:")
            for line in text.splitlines()
            if "server 10.0.0." not in line
        )
        addresses = [
            (f"unix:/run/site/{number}.sock max", f"{one.address} max")
            for number, one in enumerate(site.instances, start=1)
        ]
        text = replaced(text, ("unix:/run/site/1.sock:", ""))  # in the comment before them
    else:
        addresses = [
            (f"10.0.0.1{number}:8000", one.address)
            for number, one in enumerate(site.instances, start=1)
        ]
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {site.directory}/{name};" for name in places)
    text = replaced(
        text,
        *addresses,
        ("listen 80;", f"listen 127.0.0.1:{site.http};"),
        ("listen 443 ", f"listen 127.0.0.1:{site.https} "),
        ("/run/nginx.pid", f"{site.directory}/nginx.pid"),
        ("/var/log/nginx/error.log", f"{site.directory}/error.log"),
        ("/var/log/nginx/access.log", f"{site.directory}/access.log"),
        ("/etc/ssl/site.pem", str(certificate)),
        ("/etc/ssl/site.key", str(key)),
        ("http {", f"http {{ {temporary}"),
    )
    config = site.directory / "nginx.conf"
    config.write_text(text)
    site.run(program("nginx"), "-p", site.directory, "-c", config, "-g", "daemon off;")
    return certificate


def start_caddy(site, example):
    data = site.directory / "data"
    site.run(
        *(program("caddy"), "run", "--config", example / "Caddyfile", "--adapter", "caddyfile"),
        SITE_HTTP_PORT=str(site.http),
        SITE_HTTPS_PORT=str(site.https),
        SITE_ADMIN=f"unix/{site.sockets}/admin.sock",
        SITE_NAME="localhost",
        SITE_INSTANCES=" ".join(one.address for one in site.instances),
        HOME=str(site.directory),
        XDG_DATA_HOME=str(data),
        XDG_CONFIG_HOME=str(site.directory / "config"),
    )
    return data / "caddy/pki/authorities/local/root.crt"


START = {"haproxy": start_haproxy, "nginx": start_nginx, "caddy": start_caddy}


@pytest.fixture
def prepared(tmp_path):
    # The proxy changes to a user that cannot enter tmp_path, and the path of a socket is short.
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        Path(place).chmod(0o755)
        yield Site(tmp_path, Path(place), stack)


@pytest.fixture(params=["haproxy", "nginx", "nginx unix", "caddy"])
def site(request, prepared):
    name, _, kind = request.param.partition(" ")
    program(name)
    if kind and os.getuid() == 0:
        grp.getgrnam("www-data")
    return prepared.start(name, kind == "unix")


CHECKED = ("haproxy", "caddy")  # they send health checks


def is_checked(site):
    return any(name in str(site.proxy.process.args[0]) for name in CHECKED)


def test_the_application_knows_the_client_and_a_client_forges_nothing(site):
    honest = site.environ()
    expected = {
        "REMOTE_ADDR": "127.0.0.2",
        "SCRIPT_NAME": "",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "SERVER_NAME": "localhost",
    }
    assert {name: honest.get(name) for name in expected} == expected
    for _ in range(4):
        forged = site.environ(FORGED)
        assert forged.pop("picowsgi.request_id") not in ("forged", honest["picowsgi.request_id"])
        # These differ between two honest requests, too.
        for name in ("REMOTE_PORT", "HTTP_X_REQUEST_ID", "picowsgi.peer_port"):
            forged.pop(name, None)
        assert "forged" not in forged.values()
        differing = {name for name, value in forged.items() if honest.get(name) != value}
        assert not differing, f"expected no effect of forged headers, got {differing}"
        assert set(forged) <= set(honest)


@pytest.mark.parametrize("site", START, indirect=True)  # no other host connects to a unix socket
def test_a_host_that_is_not_the_proxy_forges_nothing_at_an_instance(site):
    one = site.instances[0]
    found = site.environ(FORGED, connect_to(one.port, source="127.0.0.3"))
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("127.0.0.3", "http")
    assert "evil.example" not in json.dumps(found)
    assert "203.0.113.9" not in json.dumps(found)
    assert found["picowsgi.request_id"] != "forged"


def test_http_redirects_to_https(site):
    connection = connect_to(site.http)
    try:
        connection.request("POST", "/a?b=c", b"", {"Host": "localhost"})
        response = connection.getresponse()
        assert response.status == 308
        location = response.getheader("Location").replace(f":{site.https}", "")
        assert location == "https://localhost/a?b=c"
    finally:
        connection.close()


def test_a_large_upload_arrives_whole(site):
    body = bytes(range(256)) * (4 << 16)  # 64 MiB
    digest = hashlib.sha256(body).hexdigest().encode()
    assert site.ask("POST", "/", body)[::2] == (200, digest)
    pieces = (body[at : at + (1 << 20)] for at in range(0, len(body), 1 << 20))
    assert site.ask("POST", "/", pieces)[::2] == (200, digest)  # in chunks


def test_each_piece_of_a_stream_is_passed_on_at_once(site):
    connection = site.connect()
    try:
        connection.request("GET", "/stream")
        response = connection.getresponse()
        # The application makes no other piece before the client has this one.
        assert response.read(5) == b"first"
        (site.directory / "release").touch()
        assert response.read() == b"z" * 5_000_000
    finally:
        connection.close()


def test_an_instance_that_stops_under_load_loses_no_request(site):
    stopped = site.instances[0]
    with Clients(site.connect) as clients:
        eventually(
            lambda: min(clients.served[one.name] for one in site.instances) > 20,
            f"all instances to serve ({clients.failed[:3]})",
        )
        stopped.process.terminate()
        if is_checked(site):
            eventually(lambda: clients.without(stopped.name) > 100, "the proxy to notice the stop")
            assert stopped.process.poll() is None, "expected that before the instance ends"
        stopped.wait()
        clients.wait_for_more()
        before = clients.served[stopped.name]
        stopped.start()
        eventually(
            lambda: clients.served[stopped.name] > before + 20, "the proxy to find the instance"
        )
    clients.check()


def test_after_the_death_of_an_instance_the_others_serve_at_once(site):
    for _ in range(12):  # so that the proxy has idle connections to all
        site.ask("GET", "/")
    dead = site.instances[1]
    dead.end()
    lost = 0
    for _ in range(10):
        assert site.ask("GET", "/")[::2] == (200, CONTENT)
        status, name, _ = site.ask("POST", "/", POSTED)
        if status == 502:  # sent on the idle connection before the proxy saw its end
            lost += 1
            continue
        assert (status, name == dead.name) == (200, False)
    assert lost <= 1, "expected the other instances to get the requests"


@pytest.mark.parametrize("name", START)
def test_the_readme_is_short(name):
    assert len((EXAMPLES / name / "README.md").read_text().splitlines()) <= 15
