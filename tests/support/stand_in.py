"""Servers of picowsgi.simple_server for the tests, and their clients."""

from __future__ import annotations

import http.client
import socketserver
import threading
from contextlib import contextmanager

from picowsgi.simple_server import WSGIRequestHandler, WSGIServer, make_server
from support.client import TIMEOUT, RawClient

LARGE = b"0123456789abcdef" * (1 << 19)  # 8 MiB: more than the system takes at once


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    pass


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def server_for(app, **options):
    return make_server("127.0.0.1", 0, app, **{"handler_class": Quiet, **options})


@contextmanager
def running(app, **options):
    """A server whose serve_forever runs in a thread until shutdown."""
    with server_for(app, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "expected shutdown to end serve_forever"


@contextmanager
def client_of(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=TIMEOUT)
    try:
        yield connection
    finally:
        connection.close()


def get(server, path="/", method="GET", **options):
    with client_of(server) as connection:
        connection.request(method, path, **options)
        response = connection.getresponse()
        return response.status, response.read()


def asked(server, path="/"):
    """A client that has sent its request and reads later."""
    client = RawClient(server.server_port)
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client
