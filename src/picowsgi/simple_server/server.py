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

from __future__ import annotations

import errno
import os
import socket
import socketserver
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from email.message import Message
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from wsgiref import simple_server
from wsgiref.simple_server import demo_app

from picowsgi import core
from picowsgi.config.load import load_settings
from picowsgi.errors import ConfigError
from picowsgi.log import get_logger
from picowsgi.system.descriptors import occupy_standard
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import prepare
from picowsgi.threads.incidents import log_incidents
from picowsgi.threads.pool import ThreadPool
from picowsgi.wsgi.environ import SharedState, base_environ
from picowsgi.wsgi.gateway import EXTENSIONS
from picowsgi.wsgi.stepping import SteppingGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from picowsgi.config.settings import Settings

__all__ = ["WSGIRequestHandler", "WSGIServer", "demo_app", "make_server"]

_thread = threading.local()  # `serving`: the server of this thread's current request, or None

_LONGEST_WAIT = 60_000  # milliseconds; signals and wake() end a wait sooner
_GRACE = 1.0  # seconds for requests that have arrived when shutdown is called


class WSGIRequestHandler(simple_server.WSGIRequestHandler):
    """Handle one request: `get_environ` makes its environ, and `log_request` logs it.

    The server makes a handler for each request. Override the two methods, or the methods that they
    call, such as `log_message` and `get_stderr`.

    Args:
        request: the environ of the request (PEP 3333). wsgiref passes the connection here.
        client_address: the address and the port of the client.
        server: the server that has received the request.

    Attributes:
        client_address: the address and the port of the client.
        server: the server that has received the request.
        command: the method, such as `GET`.
        path: the target of the request, as the client sent it.
        request_version: the version, as `HTTP/1.1`.
        requestline: the request line (RFC 9112 section 3).
    """

    server_version = "picowsgi"

    def __init__(
        self, request: WSGIEnvironment, client_address: tuple[str, int], server: WSGIServer
    ) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        self.command = request["REQUEST_METHOD"]
        self.path = request["REQUEST_URI"]
        self.request_version = request["SERVER_PROTOCOL"]
        self.requestline = f"{self.command} {self.path} {self.request_version}"
        self._environ = request

    @cached_property
    def headers(self) -> Message:  # type: ignore[override]
        """The headers of the request (RFC 9110 section 6.3); names match in any case."""
        message = Message()
        for key, value in self._environ.items():
            if key.startswith("HTTP_") or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
                message[key.removeprefix("HTTP_").replace("_", "-").title()] = value
        return message

    def get_environ(self) -> WSGIEnvironment:
        """Return the environ for the application (PEP 3333, "environ Variables")."""
        return {**self._environ, "SERVER_SOFTWARE": self.server_version}


class WSGIServer(simple_server.WSGIServer):
    """Serve WSGI with wsgiref's interface, and the core's connections.

    Args:
        server_address: the host and the port to listen on.
        RequestHandlerClass: a subclass of `WSGIRequestHandler`.
        bind_and_activate: listen at once. False: the caller calls `server_bind` and
            `server_activate`.

    Raises:
        OSError: the address is not available.
        TypeError: a class overrides a method that the core replaces, or derives from another class
            than those of this module.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        ConfigError: an option in the environment or in `pyproject.toml` is wrong.
    """

    request_queue_size = 1024

    def __init__(
        self,
        server_address: tuple[str, int],
        RequestHandlerClass: Callable[..., WSGIRequestHandler],  # noqa: N803 (wsgiref's name)
        bind_and_activate: bool = True,
    ) -> None:
        if isinstance(self, getattr(socketserver, "ForkingMixIn", ())):
            raise TypeError("a server that forks for each request: use workers, or ThreadingMixIn")
        _refuse_uncalled(type(self), WSGIServer, _NOT_CALLED_OF_SERVERS)
        _check_handler(RequestHandlerClass)
        refuse_patched()
        occupy_standard()
        self._settings = _settings()
        self._core: core.CoreServer | None = None
        self._opening = threading.Lock()  # held while a thread makes the core
        self._shared: SharedState | None = None
        self._process = os.getpid()
        self._shutdown_wanted = False
        self._wakes: Callable[[], object] = lambda: None
        self._returned = threading.Event()
        self._returned.set()
        self._server_thread = 0
        super().__init__(server_address, RequestHandlerClass, bind_and_activate)

    # ---------------------------------------------------------------- serving

    def serve_forever(self, poll_interval: float | None = 0.5) -> None:
        """Serve until another thread calls `shutdown`. You may call this again afterwards.

        Args:
            poll_interval: seconds between two calls of `service_actions`; None: no limit.

        Raises:
            RuntimeError: a serving thread has failed (with `ThreadingMixIn`).
        """
        self._returned.clear()
        self._server_thread = threading.get_ident()
        try:
            if not self._shutdown_wanted:
                serve = self._serve_by_threads if self._has_threads else self._serve_here
                serve(poll_interval)
        finally:
            self._shutdown_wanted = False
            self._wakes = lambda: None
            self._server_thread = 0
            self._returned.set()

    def shutdown(self) -> None:
        """Stop `serve_forever`, and wait until it returns. Any thread may call this.

        If `serve_forever` does not run, its next call returns at once. If the application calls
        this in a request, it does not wait.
        """
        self._shutdown_wanted = True
        self._wakes()
        is_own = self._server_thread == threading.get_ident() or _serves(self)
        if not is_own and os.getpid() == self._process:
            self._returned.wait()

    def handle_request(self) -> None:
        """Serve the next request that reaches the application, and send all of its response.

        If no request comes for `timeout` seconds, or for the timeout of the socket, the method
        calls `handle_timeout` and returns.
        """
        timeouts = [self.socket.gettimeout() or None, self.timeout]
        seconds = min((each for each in timeouts if each is not None), default=None)
        until = None if seconds is None else time.monotonic() + seconds
        with self._gateway() as gateway:
            while not gateway.step(_milliseconds_until(until)):
                if self._core is None:  # the application has closed the server
                    return
                if until is not None and time.monotonic() >= until:
                    gateway.settle(0)
                    self.handle_timeout()
                    return
            while not gateway.settle(_LONGEST_WAIT):
                pass

    def server_close(self) -> None:
        """Close the socket and all connections."""
        server = self._core
        if server is not None:
            server.stop(core.END)
            if not self._server_thread:
                with self._gateway() as gateway:
                    gateway.step(0)  # ends open connections, and logs the cut responses
            self._core = None
        super().server_close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when `handle_request` has something to do.

        It is not the listening socket's (see `socket`), because a request may also come on an open
        connection.

        Returns:
            The descriptor; -1 after `server_close`.

        Raises:
            OSError: the poller is poll(2), which has no descriptor.
        """
        if self.socket.fileno() < 0:
            return -1
        descriptor = self._open_core().fileno()
        if descriptor < 0:
            raise OSError(errno.ENOTSUP, "expected a poller with a descriptor, epoll or kqueue")
        return descriptor

    @property
    def _has_threads(self) -> bool:
        return isinstance(self, socketserver.ThreadingMixIn)

    def _serve_here(self, poll_interval: float | None) -> None:
        wait = _LONGEST_WAIT if poll_interval is None else int(poll_interval * 1000)
        with self._gateway() as gateway:
            while not self._shutdown_wanted and self._core is not None:
                gateway.step(wait)
                self.service_actions()
            until = time.monotonic() + _GRACE
            while time.monotonic() < until and gateway.step(0):
                pass
            until = time.monotonic() + self._settings.timeout_graceful
            while not gateway.settle(_milliseconds_until(until)) and time.monotonic() < until:
                pass

    def _serve_by_threads(self, poll_interval: float | None) -> None:
        _check_socket(self.socket)
        pool = ThreadPool(
            _call_nothing,
            [self.socket],
            self._settings,
            environ=self.base_environ,
            make_gateway=partial(_HandlerGateway, self),
        )
        woken = threading.Event()
        self._wakes = pool.on_end = woken.set
        pool.start()
        try:
            while not self._shutdown_wanted and self.socket.fileno() >= 0 and pool.error is None:
                woken.wait(poll_interval)
                self.service_actions()
        finally:
            pool.stop(others_accept=True)  # the socket stays open for another serve_forever
            pool.join()
        if pool.error is not None:
            raise RuntimeError("a serving thread has failed") from pool.error

    def _open_core(self) -> core.CoreServer:
        with self._opening:  # several threads may call this first
            if self._core is None:
                _check_socket(self.socket)
                opened = core.CoreServer([self.socket], self._settings)
                self._shared = SharedState(opened)
                self._core = opened
        os.set_blocking(self.socket.fileno(), False)
        return self._core

    @contextmanager
    def _gateway(self) -> Iterator[_HandlerGateway]:
        """Yield a gateway that serves in this thread, for the time of one call."""
        server = self._open_core()
        self._wakes = server.wake
        common = {
            **EXTENSIONS,
            "wsgi.multithread": self._has_threads,
            "wsgi.multiprocess": False,
            **self.base_environ,
        }
        bases = [base_environ(self.socket, common)]
        thread = core.CoreThread(server, 0)
        gateway = _HandlerGateway(self, _call_nothing, thread, bases, self._shared)
        try:
            yield gateway
        except BaseException:
            # The traceback keeps the CoreThread alive. Without this call the CoreThread would keep
            # the loop, and other threads wait for the loop.
            gateway.settle(0)
            raise


def _serves(server: WSGIServer) -> bool:
    """Return whether this thread runs a request of the server."""
    return getattr(_thread, "serving", None) is server


def make_server(
    host: str,
    port: int,
    app: WSGIApplication,
    server_class: type[WSGIServer] = WSGIServer,
    handler_class: Callable[..., WSGIRequestHandler] = WSGIRequestHandler,
) -> WSGIServer:
    """Return a server that listens, as `wsgiref.simple_server.make_server` does.

    Args:
        host: the address to listen on; empty: all IPv4 addresses.
        port: the port to listen on; 0: any free port.
        app: a WSGI application (PEP 3333).
        server_class: a subclass of `WSGIServer`.
        handler_class: a subclass of `WSGIRequestHandler`.

    Raises:
        OSError: the address is not available.
        TypeError: a class overrides a method that the core replaces, or derives from another class
            than those of this module.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        ConfigError: an option in the environment or in `pyproject.toml` is wrong.
    """
    if not issubclass(server_class, WSGIServer):
        raise TypeError(
            f"{server_class.__name__} must derive from picowsgi.simple_server.WSGIServer"
        )
    server = server_class((host, port), handler_class)
    server.set_app(app)
    return server


class _HandlerGateway(SteppingGateway):
    """Runs requests through the application of the server, each with a request handler."""

    def __init__(self, server: WSGIServer, *arguments: Any, debug: bool = False) -> None:
        super().__init__(*arguments, debug=debug)
        self._server = server
        self._core_server = server._core
        self._handler: WSGIRequestHandler | None = None
        self._interrupt: KeyboardInterrupt | None = None
        self.application = self._call

    def step(self, milliseconds: int) -> bool:
        served = super().step(milliseconds)
        self._log_incidents()
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:  # Ctrl-C in a request is raised in the caller, after the request
            raise interrupt
        return served

    def settle(self, milliseconds: int) -> bool:
        settled = super().settle(milliseconds)
        self._log_incidents()
        return settled

    def _log_incidents(self) -> None:
        if self._core_server is not None:  # None with ThreadingMixIn, where the watcher logs them
            log_incidents(self._core_server, self._server._settings)

    def serve(self, environ: WSGIEnvironment) -> int:
        self._handler = None
        outer, _thread.serving = getattr(_thread, "serving", None), self._server
        try:
            number = super().serve(environ)
        finally:
            _thread.serving = outer
        try:
            if self._handler is not None:
                self._handler.log_request(self.status[:3], self.sent)
        except Exception as error:
            get_logger().error("error in log_request", exc_info=error)
        return number

    def _call(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        client = environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"] or 0)
        make: Any = self._server.RequestHandlerClass
        handler: WSGIRequestHandler = make(environ, client, self._server)
        self._handler = handler
        called_with = handler.get_environ()
        if type(handler).get_stderr is not WSGIRequestHandler.get_stderr:
            called_with["wsgi.errors"] = handler.get_stderr()
        application: Any = self._server.get_app()
        return application(called_with, start_response)

    def _note(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._interrupt = error


# The core never calls handle_error either, but it is not in this list. Most programs override it to
# ignore clients that have disconnected, and the core never reports these.
_NOT_CALLED_OF_SERVERS = (
    "get_request",
    "verify_request",
    "process_request",
    "finish_request",
    "shutdown_request",
    "close_request",
)
_NOT_CALLED_OF_HANDLERS = (
    "setup",
    "handle",
    "finish",
    "handle_one_request",
    "parse_request",
    "send_error",
)


def _refuse_uncalled(given: type, ours: type, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(given, name) not in (getattr(ours, name), _MIXED_IN.get(name)):
            raise TypeError(
                f"{given.__name__} overrides {name}, which is not called: the core replaces it"
            )


#: The server has serving threads instead of this method of ThreadingMixIn.
_MIXED_IN = {"process_request": socketserver.ThreadingMixIn.process_request}


def _check_handler(handler: Callable[..., WSGIRequestHandler]) -> None:
    if not isinstance(handler, type):
        return
    if not issubclass(handler, WSGIRequestHandler):
        raise TypeError(
            f"{handler.__name__} must derive from picowsgi.simple_server.WSGIRequestHandler"
        )
    _refuse_uncalled(handler, WSGIRequestHandler, _NOT_CALLED_OF_HANDLERS)


def _check_socket(sock: socket.socket) -> None:
    if hasattr(sock, "do_handshake"):
        raise TypeError("the socket is wrapped for TLS, which picowsgi leaves to a proxy in front")
    timeout = sock.gettimeout()
    prepare(sock)
    if timeout:
        sock.settimeout(timeout)  # handle_request uses it as its timeout


def _settings() -> Settings:
    """Return the options, with fixed values for those that do not apply to this server."""
    settings = load_settings()
    if settings.metrics:
        raise ConfigError(
            f"{settings.sources['metrics']}: this server has no metrics; use picowsgi.Server"
        )
    return replace(settings, access_log="off", timeout_request=0.0, workers=1, root_path="")


def _milliseconds_until(until: float | None) -> int:
    if until is None:
        return _LONGEST_WAIT
    return min(max(int((until - time.monotonic()) * 1000) + 1, 0), _LONGEST_WAIT)


def _call_nothing(_environ: WSGIEnvironment, _start_response: StartResponse) -> list[bytes]:
    raise AssertionError("_HandlerGateway calls the server's own application")
