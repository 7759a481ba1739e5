"""Trusted proxies: what they say about their clients reaches the application and the access log."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection

import pytest

from picowsgi import Mount, Server
from picowsgi.errors import BindError, ConfigError
from support import TIMEOUT, connect, exchange

KEYS = (
    *("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTPS", "HTTP_HOST", "SERVER_NAME"),
    *("SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "picowsgi.peer", "picowsgi.peer_port"),
    *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PREFIX"),
    *("HTTP_FORWARDED", "HTTP_COOKIE", "REQUEST_URI"),
)
PRIVATE = ("10.0.0.0/8", "127.0.0.1")


def log_to(file, line):
    """Options for an access log of one loop, whose lines are then in the order of the responses."""
    return {"access_log": "on", "access_log_file": str(file), "access_log_format": line, "loops": 1}


def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ[key] for key in KEYS if key in environ}).encode()]


def request(fields="", target="/", host="h", content=b"", version="1.1"):
    length = f"Content-Length: {len(content)}\r\n" if content else ""
    method = "POST" if content else "GET"
    head = f"{method} {target} HTTP/{version}\r\nHost: {host}\r\n{length}{fields}\r\n"
    return head.encode("latin-1") + content


def seen(response):
    assert response.status == 200, response.content
    return json.loads(response.content)


def ask(server, *arguments, **options):
    [response] = exchange(server, request(*arguments, **options))
    return seen(response)


def x(**values):
    """Return a line for each header: `x(for_="192.0.2.1", proto="https")`."""
    return "".join(
        f"X-Forwarded-{name.strip('_').capitalize()}: {value}\r\n" for name, value in values.items()
    )


def from_elsewhere(server, data):
    """Send from an address of this machine that is not trusted by default; return the answer."""
    with socket.socket() as client:
        client.settimeout(TIMEOUT)
        client.bind(("127.0.0.2", 0))
        client.connect(("127.0.0.1", server.port))
        client.sendall(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return json.loads(body)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (x(for_="192.0.2.1"), {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": ""}),
        (x(for_="192.0.2.1:81"), {"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "81"}),
        (x(for_="[2001:DB8::1]:81"), {"REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": "81"}),
        (x(for_="2001:db8::1"), {"REMOTE_ADDR": "2001:db8::1"}),
        (x(for_="203.0.113.1, 192.0.2.1, 10.1.2.3"), {"REMOTE_ADDR": "192.0.2.1"}),
        (x(for_="203.0.113.1") + x(for_="192.0.2.1") + x(for_="10.9.9.9"), {
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_X_FORWARDED_FOR": "203.0.113.1,192.0.2.1,10.9.9.9",
        }),
        (x(for_="10.0.0.1, 10.0.0.2"), {"REMOTE_ADDR": "10.0.0.1"}),
        (x(for_="192.0.2.1, unknown"), {"REMOTE_ADDR": ""}),
        (x(proto="https"), {"wsgi.url_scheme": "https", "HTTPS": "on", "SERVER_PORT": "443"}),
        (x(proto="http"), {"wsgi.url_scheme": "http", "SERVER_PORT": "80"}),
        (x(host="example.com"), {
            "HTTP_HOST": "example.com", "SERVER_NAME": "example.com", "SERVER_PORT": "80",
        }),
        (x(host="example.com:8080"), {
            "HTTP_HOST": "example.com:8080", "SERVER_NAME": "example.com", "SERVER_PORT": "8080",
        }),
        (x(port="8443", proto="https"), {"HTTP_HOST": "h:8443", "SERVER_PORT": "8443"}),
        (x(port="443", proto="https"), {"HTTP_HOST": "h", "SERVER_PORT": "443"}),
        (x(prefix="/app"), {"SCRIPT_NAME": "/app", "PATH_INFO": "/"}),
        ("Forwarded: for=192.0.2.1;proto=https;host=example.com\r\n", {
            "REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https", "HTTP_HOST": "example.com",
        }),
        ('Forwarded: for=203.0.113.1, for="[2001:db8::1]:81", for=10.0.0.1\r\n', {
            "REMOTE_ADDR": "2001:db8::1", "REMOTE_PORT": "81",
        }),
        ("Forwarded: for=unknown\r\n", {"REMOTE_ADDR": "", "REMOTE_PORT": ""}),
        ("Forwarded: for=_hidden\r\n", {"REMOTE_ADDR": ""}),
        ('Forwarded: host="a\\.example:81"\r\n', {"HTTP_HOST": "a.example:81"}),
        ("Forwarded: for=192.0.2.1\r\n" + x(for_="192.0.2.1", proto="https"), {
            "REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https",
        }),
    ],
)  # fmt: skip
def test_a_header_of_a_trusted_proxy_sets_its_keys(serve, fields, expected):
    server = serve(application, forwarded_allow_ips=PRIVATE)
    for version in ("1.1", "1.0"):
        found = ask(server, fields, version=version)
        assert {key: found.get(key) for key in expected} == expected
        assert found["picowsgi.peer"] == "127.0.0.1"
        assert found["picowsgi.peer_port"].isdigit()
        assert ("HTTPS" in found) == (found["wsgi.url_scheme"] == "https")


def test_without_such_a_header_the_environ_is_as_before(serve):
    server = serve(application)
    found = ask(server)
    assert found["REMOTE_ADDR"] == "127.0.0.1"
    assert found["REMOTE_PORT"].isdigit()
    assert (found["wsgi.url_scheme"], found["SERVER_PORT"]) == ("http", str(server.port))
    assert not {"HTTPS", "picowsgi.peer", "picowsgi.peer_port"} & {*found}


@pytest.mark.parametrize(
    "fields",
    [
        x(for_="nonsense"),
        x(for_="192.0.2.1, 1.2.3"),
        x(for_="192.0.2.1:99999"),
        x(proto="https, http"),
        x(proto="https") + x(proto="http"),
        x(proto="gopher"),
        x(host="a, b"),
        x(host="a b"),
        x(port="x"),
        x(host="a:1", port="2"),
        x(prefix="//evil.example"),
        x(prefix="/a/../b"),
        "Forwarded: for=1.2.3\r\n",
        'Forwarded: for="192.0.2.1\r\n',
        "Forwarded: for=192.0.2.1;for=192.0.2.2\r\n",
        "Forwarded: for=192.0.2.1\r\n" + x(for_="192.0.2.2"),
        "Forwarded: proto=http\r\n" + x(proto="https"),
        "Forwarded: host=a\r\n" + x(host="b"),
    ],
)
def test_malformed_and_contradictory_headers_are_refused_and_logged(serve, tmp_path, fields):
    file = tmp_path / "log"
    server = serve(application, **log_to(file, "%(h)s %(r)s %(s)s"))
    with connect(server) as client:
        client.send(request() + request(fields, "/refused") + request(target="/never"))
        assert client.read_response().status == 200
        response = client.read_response()
        assert (response.status, response.tokens("Connection")) == (400, ["close"])
        assert b"X-Forwarded" in response.content
        client.read_nothing_more()
    server.stop()
    assert file.read_text().splitlines() == [
        "127.0.0.1 GET / HTTP/1.1 200",
        "127.0.0.1 GET /refused HTTP/1.1 400",
    ]


FORGED = x(for_="192.0.2.1", proto="https", prefix="/p") + "Forwarded: for=192.0.2.1\r\n"
FORGED_KEYS = {
    *("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"),
    "HTTP_X_FORWARDED_PREFIX",
}


def test_another_peer_sets_nothing(serve):
    for found in (
        from_elsewhere(serve(application), request(FORGED)),
        from_elsewhere(serve(application, forwarded_allow_ips="127.0.0.1"), request(FORGED)),
    ):
        assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("127.0.0.2", "http")
        assert found["SCRIPT_NAME"] == ""
        assert "picowsgi.peer" not in found


def test_headers_of_another_peer_pass_by_default_and_are_removed_with_the_option(serve):
    assert from_elsewhere(serve(application), request(FORGED)).keys() >= FORGED_KEYS
    # Malformed ones are not read, either.
    malformed = from_elsewhere(serve(application), request(x(for_="nonsense")))
    assert malformed["HTTP_X_FORWARDED_FOR"] == "nonsense"
    for allowed in ("127.0.0.1", "none", "192.0.2.0/24, unix", ["::1"]):
        server = serve(application, forwarded_allow_ips=allowed)
        assert not FORGED_KEYS & {*from_elsewhere(server, request(FORGED + "Cookie: c\r\n"))}
    assert ask(serve(application, forwarded_allow_ips="*"), FORGED).keys() >= FORGED_KEYS


def test_removed_headers_stay_removed_on_a_connection(serve):
    server = serve(application, forwarded_allow_ips="none")
    with connect(server) as client:
        for number in range(40):
            fields = x(for_=f"192.0.2.{number % 3}") + f"Cookie: {number // 7}\r\n"
            client.send(request(fields, f"/{number // 5}"))
            found = seen(client.read_response())
            assert found["REMOTE_ADDR"] == "127.0.0.1"
            assert "HTTP_X_FORWARDED_FOR" not in found
            assert (found["HTTP_COOKIE"], found["PATH_INFO"]) == (
                f"{number // 7}",
                f"/{number // 5}",
            )


@pytest.mark.parametrize(
    ("allowed", "trusted"),
    [
        (None, {"127.0.0.1"}),
        ("none", set()),
        ("unix", set()),
        ("127.0.0.2", {"127.0.0.2"}),
        ("127.0.0.0/31", {"127.0.0.1"}),
        ("127.0.0.0/30", {"127.0.0.1", "127.0.0.2"}),
        (["10.0.0.1", "::ffff:127.0.0.2"], {"127.0.0.2"}),
        ("*", {"127.0.0.1", "127.0.0.2"}),
    ],
)
def test_networks_decide_who_is_trusted(serve, allowed, trusted):
    options = {} if allowed is None else {"forwarded_allow_ips": allowed}
    server = serve(application, **options)
    fields = x(for_="192.0.2.9")
    assert (ask(server, fields)["REMOTE_ADDR"] == "192.0.2.9") == ("127.0.0.1" in trusted)
    found = from_elsewhere(server, request(fields))
    assert (found["REMOTE_ADDR"] == "192.0.2.9") == ("127.0.0.2" in trusted)


@pytest.mark.parametrize(("bind", "address"), [("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")])
def test_peers_of_ipv6_sockets_are_trusted(bind, address):
    try:
        server = Server(application, bind=bind)
    except BindError:
        pytest.skip("there is no IPv6 here")
    with server:
        try:
            client = socket.create_connection((address, server.port), TIMEOUT)
        except ConnectionRefusedError:
            pytest.skip("sockets of [::] take no IPv4 here")
        with client:
            client.sendall(request(x(for_="192.0.2.9") + "Connection: close\r\n"))
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found["REMOTE_ADDR"] == "192.0.2.9"
    assert found["picowsgi.peer"].endswith(address)


@pytest.mark.parametrize(("allowed", "client"), [(None, "192.0.2.9"), ("127.0.0.1", "")])
def test_the_peer_of_a_unix_socket_is_trusted_by_default(tmp_path, monkeypatch, allowed, client):
    monkeypatch.chdir(tmp_path)
    options = {} if allowed is None else {"forwarded_allow_ips": allowed}
    with (
        Server(application, bind="unix:s", **options),
        closing(HTTPConnection("localhost", timeout=TIMEOUT)) as connection,
    ):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect("s")
        connection.request("GET", "/", headers={"X-Forwarded-For": "192.0.2.9"})
        found = json.loads(connection.getresponse().read())
    assert found["REMOTE_ADDR"] == client
    assert found.get("picowsgi.peer") == ("" if client else None)


def test_the_request_id_of_a_trusted_peer_is_used(serve):
    def show_id(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(environ["picowsgi.request_id"]).encode()]

    data = request("X-Request-ID: mine\r\n")
    server = serve(show_id, request_id=True, forwarded_allow_ips="127.0.0.2")
    assert from_elsewhere(server, data) == "mine"
    [response] = exchange(server, data)
    assert json.loads(response.content) != "mine"


# One connection of a proxy has the requests of many clients.


def clients_of_a_proxy():
    """Yield a request, and what the application has to see of it."""
    schemes = ("https", "http", None)
    for number in range(120):
        client = f"192.0.2.{number // 2 % 7}"  # each head twice
        scheme = schemes[number // 10 % 3]
        fields = x(for_=f"203.0.113.{number % 2}, {client}")
        expected = {"REMOTE_ADDR": client, "REMOTE_PORT": "", "wsgi.url_scheme": scheme or "http"}
        if scheme is not None:
            fields += x(proto=scheme)
        if number // 30 % 2:
            fields += x(prefix="/p")
        if number % 5 == 0:
            fields += f"Cookie: c{number}\r\n"
        target = f"/p/{number // 4}"
        expected["SCRIPT_NAME"] = "/p" if number // 30 % 2 else ""
        expected["PATH_INFO"] = target.removeprefix(expected["SCRIPT_NAME"])
        expected["HTTP_COOKIE"] = f"c{number}" if number % 5 == 0 else None
        expected["HTTPS"] = "on" if scheme == "https" else None
        if number % 11 == 10:  # a health check of the proxy itself
            fields, scheme = "", None
            expected = {
                "REMOTE_ADDR": "127.0.0.1",
                "wsgi.url_scheme": "http",
                "SCRIPT_NAME": "",
                "PATH_INFO": target,
                "picowsgi.peer": None,
                "HTTP_COOKIE": None,
                "HTTPS": None,
            }
        content = b"content" if number % 13 == 0 else b""
        yield request(fields, target, content=content), expected


def check(response, expected):
    found = seen(response)
    assert {key: found.get(key) for key in expected} == expected


def test_each_request_of_a_connection_has_its_own_client(serve):
    with connect(serve(application)) as client:
        for data, expected in clients_of_a_proxy():
            client.send(data)
            check(client.read_response(), expected)


def test_each_pipelined_request_has_its_own_client(serve, tmp_path):
    file = tmp_path / "log"
    server = serve(application, **log_to(file, "%(h)s %(R)s"))
    requests = list(clients_of_a_proxy())
    with connect(server) as client:
        client.send(b"".join(data for data, _ in requests))
        for _, expected in requests:
            check(client.read_response(), expected)
    server.stop()
    assert file.read_text().splitlines() == [
        f"{expected['REMOTE_ADDR']} {data.split()[1].decode()}" for data, expected in requests
    ]


def test_a_repeated_head_keeps_its_client_and_another_connection_gets_none_of_it(serve):
    server = serve(application)
    fields = x(for_="192.0.2.1", proto="https", host="a.example")
    with connect(server) as first, connect(server) as second:
        for number in range(30):
            first.send(request(fields, f"/{number // 10}"))
            second.send(request(target=f"/{number // 10}"))
            found = seen(first.read_response())
            assert (found["REMOTE_ADDR"], found["HTTP_HOST"]) == ("192.0.2.1", "a.example")
            found = seen(second.read_response())
            assert (found["REMOTE_ADDR"], found["HTTP_HOST"]) == ("127.0.0.1", "h")


def test_a_host_that_changes_below_a_forwarded_one_changes_nothing(serve):
    with connect(serve(application)) as client:
        for number in range(20):
            client.send(request(x(host="a.example"), host=f"inner{number // 2 % 3}"))
            assert seen(client.read_response())["HTTP_HOST"] == "a.example"


# Logs


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("common", "192.0.2.1 - - ["),
        ("combined", "192.0.2.1 - - ["),
        ("json", '"remote_addr":"192.0.2.1"'),
        ("<%(h)s>", "<192.0.2.1>"),
    ],
)
def test_the_access_log_names_the_client(serve, tmp_path, form, shown):
    file = tmp_path / "log"
    server = serve(
        application,
        access_log="on",
        access_log_file=str(file),
        access_log_format=form,
        max_body_size=10,
        loops=1,
    )
    fields = x(for_="192.0.2.1")
    with connect(server) as client:
        for target in ("/", "/", "/", "/other", "/other"):
            client.send(request(fields, target))
            client.read_response()
    with connect(server) as client:  # refused after its head
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            + fields.encode()
            + b"\r\nx\r\n"
        )
        assert client.read_response().status == 400
    server.stop()
    lines = file.read_text().splitlines()
    assert len(lines) == 6
    assert all(shown in line for line in lines), lines


def test_an_unknown_client_is_a_dash_in_the_access_log(serve, tmp_path):
    file = tmp_path / "log"
    options = {"access_log": "on", "access_log_file": str(file), "access_log_format": "%(h)s"}
    server = serve(application, **options)
    ask(server, x(for_="unknown"))
    server.stop()
    assert file.read_text() == "-\n"


# --root-path


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [
        ("/app/x", "/app", "/x"),
        ("/app", "/app", ""),
        ("/app/", "/app", "/"),
        ("/x", "/app", "/x"),
        ("/", "/app", "/"),
        ("/apple", "/app", "/apple"),
        ("/%61pp/x?q", "/app", "/x"),
        ("/app/app/x", "/app", "/app/x"),
    ],
)
def test_the_root_path_is_moved_from_the_path_if_it_is_there(serve, target, script, path):
    with connect(serve(application, root_path="/app")) as client:
        for _ in range(3):
            for fields in ("", x(for_="192.0.2.1")):
                client.send(request(fields, target))
                found = seen(client.read_response())
                assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script, path)
                assert found["REQUEST_URI"] == target


def test_the_prefix_of_a_proxy_replaces_the_root_path(serve):
    server = serve(application, root_path="/app")
    found = ask(server, x(prefix="/other"), "/other/x")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/other", "/x")
    found = ask(server, x(prefix="/"), "/app/x")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("", "/app/x")


def test_a_root_path_outside_of_ascii_matches_its_utf_8_bytes(serve):
    found = ask(serve(application, root_path="/caf\xe9"), target="/caf%C3%A9/x")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/caf\xc3\xa9", "/x")


@pytest.mark.parametrize("target", ["/app/api/x", "/api/x"])
def test_mounts_are_below_the_root_path(serve, target):
    mount = Mount({"/api": application}, default=application)
    found = ask(serve(mount, root_path="/app"), target=target)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/app/api", "/x")


@pytest.mark.parametrize("path", ["app", "/app/", "/", "/a/../b", "/a%20b", "/a?b"])
def test_what_is_no_root_path_is_refused(serve, path):
    with pytest.raises(ConfigError, match=r"root_path: expected a path such as /api"):
        serve(application, root_path=path)


# The options


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' is an address in the network 10.0.0.0/8"),
        ("127.0.0.1,proxy.example", "'proxy.example' is none of them"),
        ("10.0.0.0/33", "'10.0.0.0/33' is none of them"),
        ("fe80::1%lo", "'fe80::1%lo' has a zone"),
        ("1.2.3", "'1.2.3' is none of them"),
    ],
)
def test_a_bad_item_is_one_clear_error_at_the_start(value, why):
    run = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--forwarded-allow-ips", value],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert run.returncode == 2
    assert "--forwarded-allow-ips: expected IP addresses, networks such as" in run.stderr
    assert why in run.stderr
    assert "Traceback" not in run.stderr


def test_all_places_have_the_options(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    keys = ('REMOTE_ADDR', 'SCRIPT_NAME', 'PATH_INFO')\n"
        "    return [' '.join(environ[key] for key in keys).encode()]\n"
    )
    data = request(x(for_="192.0.2.1, 10.0.0.1"), "/app/x")
    config = 'forwarded_allow_ips = ["127.0.0.1", "10.0.0.0/8"]\nroot_path = "/app"\n'
    (tmp_path / "options.toml").write_text(config)
    environ = {
        "PICOWSGI_FORWARDED_ALLOW_IPS": "127.0.0.1,10.0.0.0/8",
        "PICOWSGI_ROOT_PATH": "/app",
    }
    line = ("--forwarded-allow-ips", "127.0.0.1, 10.0.0.0/8", "--root-path", "/app")
    for options, more in ((line, {}), ((), environ), (("--config", "options.toml"), {})):
        command = picowsgi(*options, "app:app", directory=tmp_path, environ=more)
        [response] = exchange(command, data)
        assert response.content == b"192.0.2.1 /app /x"
        assert command.stop() == 0
