"""A server with wsgiref's interface: its socket, and the time from `make_server` to `server_close`.

Never looks at a request, which is the task of `handler`.
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
from functools import partial
from typing import TYPE_CHECKING
from wsgiref import simple_server

from picowsgi import core
from picowsgi.config.load import load_settings
from picowsgi.errors import ConfigError
from picowsgi.simple_server.handler import (
    HandlerGateway,
    WSGIRequestHandler,
    call_nothing,
    check_handler,
    refuse_uncalled,
    serves,
)
from picowsgi.system.descriptors import occupy_standard
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import prepare
from picowsgi.threads.pool import ThreadPool
from picowsgi.wsgi.environ import SharedState, base_environ
from picowsgi.wsgi.gateway import EXTENSIONS, keep_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from picowsgi.config.settings import Settings

_LONGEST_WAIT = 60_000  # milliseconds; signals and wake() end a wait sooner
_GRACE = 1.0  # seconds for requests that have arrived when shutdown is called


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
        refuse_uncalled(type(self), WSGIServer, _NOT_CALLED_OF_SERVERS)
        check_handler(RequestHandlerClass)
        refuse_patched()
        occupy_standard()
        self._settings = _settings()
        self._core: core.CoreServer | None = None
        self._opening = threading.Lock()  # held while a thread makes the core
        self._shared: SharedState | None = None
        #: The `base_environ` that the environs of all requests begin with.
        self._served_environ: WSGIEnvironment = {}
        self._process = os.getpid()
        self._shutdown_wanted = False
        self._wakes: Callable[[], object] = lambda: None
        self._returned = threading.Event()
        self._returned.set()
        self._server_thread = 0
        super().__init__(server_address, RequestHandlerClass, bind_and_activate)

    def server_bind(self) -> None:
        """Bind the socket, and set `server_name`, `server_port` and `base_environ`.

        wsgiref looks up the host's full name here, which takes seconds if no name server answers.
        This server takes the name that needs no look-up: `localhost`, the name of the machine, or
        the address.
        """
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _name_of(self.socket)
        self.setup_environ()

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
        is_own = self._server_thread == threading.get_ident() or serves(self)
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
            self._core = self._shared = None
            self._wakes = lambda: None
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
        self._served_environ = dict(self.base_environ)
        pool = ThreadPool(
            call_nothing,
            [self.socket],
            self._settings,
            environ=self._served_environ,
            make_gateway=partial(HandlerGateway, self, None, self._settings),
        )
        woken = threading.Event()
        self._wakes = pool.on_end = woken.set
        try:
            pool.start()  # Ctrl-C may come while it starts the threads
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
    def _gateway(self) -> Iterator[HandlerGateway]:
        """Yield a gateway that serves in this thread, for the time of one call."""
        server = self._open_core()
        self._wakes = server.wake
        self._served_environ = dict(self.base_environ)
        common = {
            **EXTENSIONS,
            "wsgi.multithread": self._has_threads,
            "wsgi.multiprocess": False,
            **self._served_environ,
        }
        bases = [base_environ(self.socket, common)]
        thread = core.CoreThread(server, 0)
        with keep_current():  # a request may call `handle_request`
            gateway = HandlerGateway(
                self, server, self._settings, call_nothing, thread, bases, self._shared
            )
            try:
                yield gateway
            except BaseException:
                # The traceback keeps the CoreThread alive. Without this call the CoreThread would
                # keep the loop, and other threads wait for the loop.
                gateway.settle(0)
                raise
            finally:
                gateway.end()


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


def _check_socket(sock: socket.socket) -> None:
    if hasattr(sock, "do_handshake"):
        raise TypeError("the socket is wrapped for TLS, which picowsgi leaves to a proxy in front")
    timeout = sock.gettimeout()
    prepare(sock)
    if timeout:
        sock.settimeout(timeout)  # handle_request uses it as its timeout


def _name_of(sock: socket.socket) -> tuple[str, int]:
    """Return the name and the port that stand for the address of a listening socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "localhost", 80  # as base_environ has it
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return socket.gethostname(), port
    return "localhost" if host in ("127.0.0.1", "::1") else host, port


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
