"""--proxy-protocol: the client that a PROXY header names reaches the application and its log."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from contextlib import closing
from http.client import HTTPConnection

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from picowsgi import Server
from picowsgi.errors import BindError
from support import TIMEOUT, connect, exchange, wait_until
from support.proxy_header import LOCAL, SIGNATURE, UNKNOWN, tlv, v1, v2, v2_unix

CLIENT, SITE = ("192.0.2.1", 4711), ("198.51.100.2", 443)
CLIENT_6, SITE_6 = ("2001:db8::1", 4711), ("2001:db8::2", 443)
KEYS = (
    *("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme", "HTTP_HOST"),
    *("picowsgi.peer", "picowsgi.peer_port", "HTTP_X_FORWARDED_FOR", "PATH_INFO", "SCRIPT_NAME"),
    "picowsgi.request_id",
)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ[key] for key in KEYS if key in environ}).encode()]


def request(fields="", target="/", method="GET"):
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def seen(response):
    assert response.status == 200, response.content
    return json.loads(response.content)


def ask(server, header, data=GET):
    [response] = exchange(server, header + data)
    return seen(response)


def names(found, source, destination):
    """Check the client and the server of a request."""
    client = found["REMOTE_ADDR"], found["REMOTE_PORT"]
    assert client == (source[0], str(source[1])), f"expected the client {source}, got {found}"
    site = found["SERVER_NAME"], found["SERVER_PORT"]
    assert site == (destination[0], str(destination[1])), f"expected {destination}, got {found}"


@pytest.fixture(scope="module")
def behind(serve_module):
    """A server whose trusted proxies are on this machine."""
    return serve_module(application, proxy_protocol=True)


# --- the header ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "source", "destination"),
    [
        (v1(CLIENT, SITE), CLIENT, SITE),
        (v1(CLIENT_6, SITE_6), CLIENT_6, SITE_6),
        (v2(CLIENT, SITE), CLIENT, SITE),
        (v2(CLIENT_6, SITE_6), CLIENT_6, SITE_6),
        (v2(CLIENT, SITE, transport=2), CLIENT, SITE),
        (v2(CLIENT, SITE, tlv(0x01, b"http/1.1") + tlv(0x20, b"\1" * 300)), CLIENT, SITE),
        (v2(CLIENT, SITE, tlv(0x04, bytes(4065))), CLIENT, SITE),
    ],
)
def test_the_header_names_the_client_and_the_site(behind, header, source, destination):
    found = ask(behind, header)
    names(found, source, destination)
    assert found["picowsgi.peer"] == "127.0.0.1"
    assert found["picowsgi.peer_port"].isdigit()
    assert (found["wsgi.url_scheme"], found["HTTP_HOST"]) == ("http", "h")


@pytest.mark.parametrize(
    "header",
    [
        LOCAL,
        UNKNOWN,
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        SIGNATURE + b"\x21\0\0\0",
        v2(CLIENT, SITE).replace(b"\x21\x11", b"\x20\x11"),
    ],
)
def test_a_header_without_a_client_leaves_the_address_of_the_socket(behind, header):
    with connect(behind) as client:
        client.send(header + GET)
        found = seen(client.read_response())
        names(found, ("127.0.0.1", client.local_port), ("127.0.0.1", behind.port))
        assert "picowsgi.peer" not in found


def test_a_client_of_a_unix_socket_has_no_address(behind):
    found = ask(behind, v2_unix())
    names(found, ("", ""), ("127.0.0.1", behind.port))
    assert found["picowsgi.peer"] == "127.0.0.1"


addresses = st.one_of(
    st.tuples(*[st.ip_addresses(v=4)] * 2), st.tuples(*[st.ip_addresses(v=6)] * 2)
)
ports = st.tuples(*[st.integers(0, 65535)] * 2)


@examples(deadline=None, max_examples=60)
@given(addresses, ports, st.binary(max_size=600), st.data())
def test_any_addresses_arrive_and_any_split_gives_the_same(behind, ends, numbers, tlvs, data):
    (source, destination) = zip(map(str, ends), numbers, strict=True)
    for header in (v1(source, destination), v2(source, destination, tlvs)):
        cut = data.draw(st.integers(1, len(header) - 1))
        with connect(behind) as client:
            client.send(header[:cut])
            client.send(header[cut:] + GET)
            found = seen(client.read_response())
        for key, address in (("REMOTE_ADDR", source[0]), ("SERVER_NAME", destination[0])):
            assert ipaddress.ip_address(found[key]) == ipaddress.ip_address(address)
        assert (found["REMOTE_PORT"], found["SERVER_PORT"]) == tuple(map(str, numbers))


@pytest.mark.parametrize("header", [v1(CLIENT, SITE), v2(CLIENT_6, SITE_6, tlv(1, b"x"))])
def test_a_client_that_sends_one_byte_at_a_time_is_served(behind, header):
    with connect(behind) as client:
        for byte in header + GET:
            client.send(bytes([byte]))
        assert seen(client.read_response())["REMOTE_PORT"] == "4711"


@pytest.mark.parametrize("header", [v1(CLIENT, SITE), v2(CLIENT, SITE)])
def test_all_requests_of_a_connection_have_its_client(behind, header):
    with connect(behind) as client:
        # One header, and requests in the same segment and later ones.
        client.send(header + GET + request(target="/a") + request("Cookie: c\r\n"))
        for _ in range(3):
            names(seen(client.read_response()), CLIENT, SITE)
        for number in range(30):
            fields = f"Cookie: {number // 3}\r\n" if number % 5 else ""
            client.send(request(fields, f"/{number // 4}"))
            found = seen(client.read_response())
            names(found, CLIENT, SITE)
            assert found["PATH_INFO"] == f"/{number // 4}"
        client.send(header + GET)  # a second header is no request
        assert client.read_response().status == 400


def test_two_connections_of_a_proxy_have_their_own_clients(behind):
    with connect(behind) as first, connect(behind) as second:
        first.send(v1(CLIENT, SITE))
        second.send(v2(CLIENT_6, SITE_6))
        for _ in range(6):
            for client, source, destination in ((first, CLIENT, SITE), (second, CLIENT_6, SITE_6)):
                client.send(GET)
                names(seen(client.read_response()), source, destination)


def test_content_after_the_header_belongs_to_its_request(behind):
    post = request("Content-Length: 5\r\n", method="POST")
    chunked = request("Transfer-Encoding: chunked\r\n", method="POST")
    with connect(behind) as client:
        client.send(v1(CLIENT, SITE) + post + b"hello" + chunked + b"2\r\nhi\r\n0\r\n\r\n" + GET)
        for _ in range(3):
            names(seen(client.read_response()), CLIENT, SITE)


def test_without_the_option_a_header_is_a_malformed_request(serve):
    server = serve(application)
    for header in (v1(CLIENT, SITE), v2(CLIENT, SITE)):
        [response] = exchange(server, header + GET)
        assert response.status == 400


# --- sockets ------------------------------------------------------------------------------------


def test_a_proxy_on_a_unix_socket_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        Server(application, bind="unix:s", proxy_protocol=True) as server,
        closing(HTTPConnection("localhost", timeout=TIMEOUT)) as connection,
    ):
        assert server.url.startswith("unix:")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect("s")
        connection.sock.sendall(v2(CLIENT, SITE))
        for _ in range(4):
            connection.request("GET", "/")
            found = json.loads(connection.getresponse().read())
            names(found, CLIENT, SITE)
            assert (found["picowsgi.peer"], found["picowsgi.peer_port"]) == ("", "")


def test_a_unix_socket_that_is_not_trusted_is_closed_and_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    options = {"proxy_protocol": True, "forwarded_allow_ips": "127.0.0.1"}
    with Server(application, bind="unix:s", **options), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect("s")
        assert client.recv(1) == b""
        assert wait_for_line(caplog).endswith(f"{NOT_TRUSTED}, from a unix socket")


@pytest.mark.parametrize(("bind", "address"), [("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")])
def test_a_proxy_connects_over_ipv6(bind, address):
    try:
        server = Server(application, bind=bind, proxy_protocol=True)
    except BindError:
        pytest.skip("there is no IPv6 here")
    with server:
        try:
            client = socket.create_connection((address, server.port), TIMEOUT)
        except ConnectionRefusedError:
            pytest.skip("sockets of [::] take no IPv4 here")
        with client:
            client.sendall(v1(CLIENT, SITE) + request("Connection: close\r\n"))
            answer = b"".join(iter(lambda: client.recv(4096), b""))
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    names(found, CLIENT, SITE)
    assert found["picowsgi.peer"].endswith(address)


# --- trust --------------------------------------------------------------------------------------

FORGED = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /p\r\n"


@pytest.mark.parametrize("header", [v1(CLIENT, SITE), v2(CLIENT_6, SITE_6)])
@pytest.mark.parametrize("allowed", [None, "127.0.0.1"])
def test_a_client_behind_the_proxy_forges_nothing(serve, header, allowed):
    options = {} if allowed is None else {"forwarded_allow_ips": allowed}
    server = serve(application, proxy_protocol=True, request_id=True, **options)
    data = request(FORGED + "X-Request-ID: mine\r\n")
    with connect(server) as client:
        client.send(header)
        for _ in range(4):
            client.send(data)
            found = seen(client.read_response())
            assert found["REMOTE_ADDR"] in (CLIENT[0], CLIENT_6[0])
            assert (found["wsgi.url_scheme"], found["SCRIPT_NAME"]) == ("http", "")
            assert found["picowsgi.request_id"] != "mine"
            # As for any other peer: the option removes the headers.
            assert ("HTTP_X_FORWARDED_FOR" in found) == (allowed is None)


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN, v1(("10.1.2.3", 80), SITE)])
def test_a_proxy_behind_the_proxy_may_forward_its_client(serve, header):
    server = serve(
        application,
        proxy_protocol=True,
        request_id=True,
        forwarded_allow_ips="127.0.0.1,10.0.0.0/8",
    )
    fields = "X-Forwarded-For: 203.0.113.8, 203.0.113.9, 10.9.9.9\r\nX-Forwarded-Proto: https\r\n"
    with connect(server) as client:
        client.send(header)
        for number in range(4):
            client.send(request(fields + f"X-Request-ID: {number}\r\n"))
            found = seen(client.read_response())
            assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("203.0.113.9", "https")
            assert found["SERVER_PORT"] == "443"
            assert found["picowsgi.peer"] == "127.0.0.1"
            assert found["picowsgi.request_id"] == str(number)
            client.send(request("X-Forwarded-Port: 8443\r\n"))
            assert seen(client.read_response())["SERVER_PORT"] == "8443"


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]


def wait_for_line(caplog):
    """Return the one expected line of the error log."""
    wait_until(lambda: lines(caplog), "a line in the error log")
    assert len(lines(caplog)) == 1, f"expected one line, got {lines(caplog)}"
    return lines(caplog)[0]


NOT_TRUSTED = "its peer is not in --forwarded-allow-ips (--proxy-protocol)"


@pytest.mark.parametrize("data", [v1(CLIENT, SITE) + GET, v2(CLIENT, SITE) + GET, GET])
def test_a_peer_that_is_not_trusted_is_closed_and_reported(serve, caplog, data):
    server = serve(application, proxy_protocol=True, forwarded_allow_ips="10.0.0.0/8,unix")
    with connect(server) as client:
        client.send(data)
        client.end()
        assert client.received == b""
        assert wait_for_line(caplog) == (
            f"a connection is closed, because {NOT_TRUSTED}, "
            f"from 127.0.0.1 port {client.local_port}"
        )


def test_closed_connections_are_counted(serve, caplog):
    server = serve(application, proxy_protocol=True, forwarded_allow_ips="none")
    for _ in range(5):
        with connect(server) as client:
            client.end()
    assert wait_for_line(caplog).startswith("a connection is closed")  # not five lines
    server.stop()
    [_, line] = lines(caplog)
    assert line == (
        "connections closed because of their PROXY header, or because their peer is not in "
        "--forwarded-allow-ips (--proxy-protocol): 5"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GET, "it does not begin with a PROXY header (--proxy-protocol): GET / HTTP/1.1, from"),
        (b"\x16\x03\x01\x02", "it does not begin with a PROXY header (--proxy-protocol): \\x16"),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n" + GET,
            "its PROXY header is malformed (--proxy-protocol): PROXY TCP4 192.0.2.1 192.0.2.2 1, ",
        ),
        (b"PROXY UNKNOWN" + b"x" * 200, "its PROXY header is malformed"),
        (SIGNATURE + b"\x11\x11\0\x0c" + GET, "its PROXY header is malformed"),
        (SIGNATURE + b"\x21\x41\0\x0c" + GET, "its PROXY header is malformed"),
        (SIGNATURE + b"\x21\x11\0\x0b" + GET, "its PROXY header is malformed"),
        (SIGNATURE + b"\x21\x11\x0f\xf1" + GET, "its PROXY header is longer than 4096 bytes"),
        (LOCAL[:-2] + b"\xff\xff" + GET, "its PROXY header is longer than 4096 bytes"),
    ],
)
def test_a_proxy_that_sends_no_valid_header_is_closed_and_reported(serve, caplog, data, why):
    server = serve(application, proxy_protocol=True)
    with connect(server) as client:
        client.send(data)
        client.end()
        assert client.received == b""
        assert f"a connection is closed, because {why}" in wait_for_line(caplog)


@pytest.mark.parametrize("sent", [b"", v1(CLIENT, SITE)[:20], v2(CLIENT, SITE)[:20]])
def test_a_header_that_does_not_come_in_time_is_reported(serve, caplog, sent):
    server = serve(application, proxy_protocol=True, timeout_head=0.2)
    with connect(server) as client:
        client.send(sent)
        client.read_nothing_more()
    assert (
        "a connection is closed, because its PROXY header has not arrived within 0.2 s "
        "of --timeout-head (--proxy-protocol)"
    ) in wait_for_line(caplog)


@pytest.mark.parametrize("way", ["close", "reset", "half_close"])
@pytest.mark.parametrize("sent", [b"", v1(CLIENT, SITE)[:20], v2(CLIENT, SITE)[:20]])
def test_a_client_that_gives_up_is_not_reported(serve, caplog, sent, way):
    server = serve(application, proxy_protocol=True)
    with connect(server) as client:
        client.send(sent)
        getattr(client, way)()
        if way == "half_close":
            client.read_nothing_more()
    names(ask(server, v1(CLIENT, SITE)), CLIENT, SITE)
    server.stop()
    assert not lines(caplog)


def test_a_client_that_half_closes_after_its_request_gets_the_response(behind):
    with connect(behind) as client:
        client.send(v2(CLIENT, SITE) + GET)
        client.half_close()
        names(seen(client.read_response()), CLIENT, SITE)
        client.read_nothing_more()


def test_health_checks_of_the_proxy_are_answered(serve):
    server = serve(application, proxy_protocol=True, health="/up")
    for header in (LOCAL, UNKNOWN, v1(CLIENT, SITE)):
        [response] = exchange(server, header + request(target="/up"))
        assert (response.status, response.content) == (200, b"ok\n")


# --- the access log, and the end ----------------------------------------------------------------


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
        proxy_protocol=True,
        access_log="on",
        access_log_file=str(file),
        access_log_format=form,
        loops=1,
    )
    with connect(server) as client:
        client.send(v1(CLIENT, SITE))
        for target in ("/", "/", "/", "/other", "/other"):
            client.send(request(target=target))
            client.read_response()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.read_response().status == 400
    server.stop()
    found = file.read_text().splitlines()
    assert len(found) == 6
    assert all(shown in line for line in found), found


def test_a_stop_serves_a_connection_whose_header_has_begun(serve):
    server = serve(application, proxy_protocol=True, timeout_drain=TIMEOUT)
    header = v1(CLIENT, SITE)
    with connect(server) as client, connect(server) as other:
        client.send(header[:20])
        other.send(header + GET)  # the server has been round its loop since
        other.read_response()
        server.request_stop()
        client.send(header[20:] + GET)
        names(seen(client.read_response()), CLIENT, SITE)
        other.close()
        server.stop()
