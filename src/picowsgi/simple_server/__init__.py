"""Replace `wsgiref.simple_server`: a program for it runs after a change of its import.

    from picowsgi.simple_server import make_server

    with make_server("", 8000, application) as server:
        server.serve_forever()

As in wsgiref, the thread that calls `serve_forever` or `handle_request` calls the application, for
one request at a time. With `socketserver.ThreadingMixIn` among the server's bases, other threads do
so. The core handles the connections: keep-alive, HTTP/1.1 (RFC 9112), strictness, limits and
timeouts. Their options come from `PICOWSGI_<NAME>` and `[tool.picowsgi]`.

Never ignores an overridden method in silence. The core replaces the methods that handle a
connection, such as `get_request` of a server or `handle` of a request handler, and to override one
is a TypeError. The environ has no copy of `os.environ`, and a proxy in front has to add TLS.
"""

from wsgiref.simple_server import demo_app

from picowsgi.simple_server.handler import WSGIRequestHandler
from picowsgi.simple_server.server import WSGIServer, make_server

__all__ = ["WSGIRequestHandler", "WSGIServer", "demo_app", "make_server"]
