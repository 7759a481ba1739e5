"""The commands of Flask and Django have the options that name the client of a proxy."""

from __future__ import annotations

from support import connect, exchange
from support.proxy_header import v1

CLIENT, SITE = ("192.0.2.1", 4711), ("198.51.100.2", 443)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_the_commands_of_frameworks_believe_trusted_proxies(flask, runserver):
    data = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n"
    server = flask(PICOWSGI_FORWARDED_ALLOW_IPS="127.0.0.1")
    exchange(server, data)
    server.wait_for_log("192.0.2.9 - - [")
    server = flask(PICOWSGI_FORWARDED_ALLOW_IPS="unix")
    exchange(server, data)
    server.wait_for_log("127.0.0.1 - - [")
    server = runserver("--noreload", listens=False, PICOWSGI_FORWARDED_ALLOW_IPS="nonsense")
    assert server.wait() == 1
    assert "CommandError: PICOWSGI_FORWARDED_ALLOW_IPS in the environment: expected" in server.log


def test_the_commands_of_frameworks_read_the_header_of_the_proxy_protocol(flask, runserver):
    for start in (flask, lambda **environ: runserver("--noreload", **environ)):
        server = start(PICOWSGI_PROXY_PROTOCOL="on")
        exchange(server, v1(CLIENT, SITE) + GET)
        server.wait_for_log('"GET / HTTP/1.1"')
        if start is flask:
            server.wait_for_log("192.0.2.1 - - [")
        with connect(server) as client:
            client.send(GET)
            client.end()
        server.wait_for_log("it does not begin with a PROXY header")
