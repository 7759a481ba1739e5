"""The servers: for each, the command that starts it, and the reasons for its options.

Each server has one process that serves, its compiled parts if it has them, a backlog of 1024 and no
access log. Never starts a server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["picowsgi", "peer", "limit"]


@dataclass(frozen=True)
class Server:
    """How one server is installed and started.

    - `command` may contain `{python}` and `{bin}` (the Python of the venv and its folder),
      `{cache}` (the folder of compiled programs), `{module}`, `{attribute}`, `{port}`, `{threads}`
      and `{scratch}` (an empty folder for this start).
    - `files` are written into the scratch folder before. They may contain the same names.
    - `requires` lists the packages for pip. The report shows the version of the first one. A limit
      may need a `program` instead.
    - A `limit` runs no application. It answers only the scenario hello.
    - `pypy`: this server runs on PyPy, even if the others do not.
    - `concurrency` says how the server runs requests at the same time, if it does not use the
      threads of the scenario.
    """

    name: str
    command: tuple[str, ...]
    why: str
    requires: tuple[str, ...] = ()
    kind: Kind = "peer"
    program: str = ""
    pypy: bool = False
    concurrency: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def facts(self, version: str) -> dict[str, Any]:
        """Return the facts that a results file has about this server."""
        return {
            "kind": self.kind,
            "version": version,
            "command": list(self.command),
            "why": self.why,
            "concurrency": self.concurrency,
        }


# The beginning of a program for `python -c`.
_APP = "from {module} import {attribute} as app\n"


def _program(code: str) -> tuple[str, ...]:
    return ("{python}", "-c", _APP + code)


def _gunicorn(worker: str, *options: str) -> tuple[str, ...]:
    return (
        "{bin}/gunicorn",
        "--bind",
        "127.0.0.1:{port}",
        "--workers",
        "1",
        "--backlog",
        "1024",
        "--keep-alive",
        "60",
        "--worker-connections",
        "16384",
        "--worker-class",
        worker,
        *options,
        "{module}:{attribute}",
    )


def _picowsgi(threads: str) -> tuple[str, ...]:
    return (
        "{bin}/picowsgi",
        "--port",
        "{port}",
        "--threads",
        threads,
        "--no-access-log",
        "--max-connections",
        "16384",
        "--timeout-keep-alive",
        "60",
        "{module}:{attribute}",
    )


_NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {scratch}/pid;
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 1000000000; tcp_nodelay on;
    client_body_temp_path {scratch}; proxy_temp_path {scratch}; fastcgi_temp_path {scratch};
    uwsgi_temp_path {scratch}; scgi_temp_path {scratch}; default_type text/plain;
    server {{ listen 127.0.0.1:{port} backlog=1024; return 200 "Hello, world!\\n"; }}
}}
"""

_ALL = (
    Server(
        "picowsgi",
        _picowsgi("16"),
        "its defaults: 16 threads at most, in every scenario",
        kind="picowsgi",
    ),
    Server(
        "picowsgi_1",
        _picowsgi("1"),
        "with one thread: shows the cost of the other threads",
        kind="picowsgi",
        concurrency="one thread",
    ),
    Server(
        "picowsgi_pypy",
        _picowsgi("16"),
        "its defaults, on PyPy, whose compiler needs some seconds of load before it is done",
        kind="picowsgi",
        pypy=True,
    ),
    Server(
        "fastpysgi",
        _program(
            "import fastpysgi\n"
            "fastpysgi.server.backlog = 1024\n"
            "fastpysgi.server.hook_sigint = 0\n"
            "fastpysgi.run(app, '127.0.0.1', {port}, loglevel=0)\n"
        ),
        "it has only one thread; its own C loop (libuv); no log; otherwise its defaults",
        ("fastpysgi",),
        concurrency="one thread",
    ),
    Server(
        "bjoern",
        _program("import bjoern\nbjoern.run(app, '127.0.0.1', {port}, listen_backlog=1024)\n"),
        "it has only one thread, and no other options",
        ("bjoern",),
        concurrency="one thread",
    ),
    Server(
        "fastwsgi",
        _program(
            "import fastwsgi\n"
            "fastwsgi.server.backlog = 1024\n"
            "fastwsgi.server.tcp_nodelay = 1\n"
            "fastwsgi.run(app, '127.0.0.1', {port}, loglevel=0)\n"
        ),
        "it has only one thread; without tcp_nodelay it waits for delayed acknowledgements",
        # It imports pkg_resources, which newer versions of setuptools do not have.
        ("fastwsgi", "setuptools<81"),
        concurrency="one thread",
    ),
    Server(
        "granian",
        (
            *("{bin}/granian", "--interface", "wsgi", "--http", "1", "--no-ws"),
            *("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--runtime-mode", "st"),
            *("--runtime-threads", "1", "--blocking-threads", "{threads}", "--backlog", "16384"),
            *("--no-access-log", "--log-level", "error", "{module}:{attribute}"),
        ),
        "one Rust thread for the network; threads for Python only if the application waits; "
        "the backlog also limits open requests, so it is 16384",
        ("granian",),
    ),
    Server(
        "uwsgi",
        (
            *("{bin}/uwsgi", "--http", "127.0.0.1:{port}", "--http-keepalive"),
            *("--http-auto-chunked", "--http-chunked-input", "--master", "--processes", "1"),
            *("--threads", "{threads}", "--listen", "1024", "--disable-logging", "--log-4xx"),
            *("--log-5xx", "--max-fd", "20000", "--socket-timeout", "60", "--http-timeout", "60"),
            *("--buffer-size", "65536", "--die-on-term", "--single-interpreter"),
            *("--need-app", "--module", "{module}:{attribute}"),
        ),
        "its HTTP router in front of one worker, because the worker itself can keep only one "
        "connection alive",
        ("uWSGI",),
    ),
    Server(
        "gunicorn_sync",
        _gunicorn("sync", "--http-parser", "python"),
        "its default worker: one connection at a time, closed after each response",
        ("gunicorn",),
        concurrency="one thread",
    ),
    Server(
        "gunicorn_gthread",
        _gunicorn("gthread", "--threads", "{threads}", "--http-parser", "python"),
        "keeps connections alive; more threads only if the application waits",
        ("gunicorn",),
    ),
    Server(
        "gunicorn_gevent",
        _gunicorn("gevent", "--http-parser", "python"),
        "keeps connections alive; one thread, which changes to another greenlet at each wait",
        ("gunicorn", "gevent"),
        concurrency="one thread, greenlets",
    ),
    Server(
        "gunicorn_h1c",
        _gunicorn("gthread", "--threads", "{threads}", "--http-parser", "fast"),
        "gthread with gunicorn's own C parser",
        ("gunicorn", "gunicorn_h1c"),
    ),
    Server(
        "waitress",
        (
            *("{bin}/waitress-serve", "--listen", "127.0.0.1:{port}", "--threads", "{threads}"),
            *("--backlog", "1024", "--connection-limit", "16384", "--asyncore-use-poll"),
            "{module}:{attribute}",
        ),
        "poll instead of select, which fails above 1024 descriptors; more threads only if the "
        "application waits",
        ("waitress",),
    ),
    Server(
        "cheroot",
        _program(
            "from cheroot.wsgi import Server\n"
            "server = Server(('127.0.0.1', {port}), app, numthreads={threads}, max={threads},\n"
            "                request_queue_size=1024, timeout=60)\n"
            "server.keep_alive_conn_limit = 16384\n"
            "server.safe_start()\n"
        ),
        "keeps more than 10 connections alive; more threads only if the application waits",
        ("cheroot",),
    ),
    Server(
        "gevent",
        (
            "{python}",
            "-c",
            "from gevent import monkey\n"
            "monkey.patch_all()\n" + _APP + "import socket\n"
            "from gevent.pywsgi import WSGIServer\n"
            "listener = socket.create_server(('127.0.0.1', {port}), backlog=1024)\n"
            "listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
            "WSGIServer(listener, app, log=None).serve_forever()\n",
        ),
        "patched, so that it changes to another greenlet at each wait; connections inherit "
        "TCP_NODELAY, without which it waits for delayed acknowledgements; no request log",
        ("gevent",),
        concurrency="one thread, greenlets",
    ),
    Server(
        "werkzeug",
        _program(
            "from werkzeug.serving import WSGIRequestHandler, make_server\n"
            "class Silent(WSGIRequestHandler):\n"
            "    def log_request(self, *_):\n"
            "        pass\n"
            "make_server('127.0.0.1', {port}, app, threaded=True,\n"
            "            request_handler=Silent).serve_forever()\n"
        ),
        "Flask's development server: a thread for each connection; it closes connections; no log",
        ("werkzeug",),
        concurrency="a thread for each connection",
    ),
    Server(
        "wsgiref",
        _program(
            "from wsgiref.simple_server import WSGIRequestHandler, WSGIServer\n"
            "class Silent(WSGIRequestHandler):\n"
            "    def log_message(self, *_):\n"
            "        pass\n"
            "class Server(WSGIServer):\n"
            "    request_queue_size = 1024\n"
            "server = Server(('127.0.0.1', {port}), Silent)\n"
            "server.set_app(app)\n"
            "server.serve_forever()\n"
        ),
        "Python's own: HTTP/1.0, one connection at a time; backlog 1024 instead of 5, or clients "
        "are refused",
        concurrency="one thread",
    ),
    Server(
        "nginx",
        ("nginx", "-p", "{scratch}", "-c", "{scratch}/nginx.conf"),
        "a limit: `return 200`, one process",
        kind="limit",
        program="nginx",
        files={"nginx.conf": _NGINX},
    ),
    Server(
        "core",
        ("{cache}/core_alone", "{port}"),
        "a limit: the C core of picowsgi without Python, answering a constant",
        kind="limit",
    ),
)

SERVERS: dict[str, Server] = {server.name: server for server in _ALL}
