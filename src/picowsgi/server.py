"""Start a server from Python: `serve` blocks, `Server` serves in a background thread.

Never parses a command line: the options are keywords, checked by the one table of options.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from picowsgi.app import middleware
from picowsgi.app.importer import load_application
from picowsgi.app.mount import mount
from picowsgi.config.load import load_settings
from picowsgi.config.settings import Settings
from picowsgi.errors import ConfigError
from picowsgi.log import get_logger
from picowsgi.process.metrics import Metrics, open_metrics
from picowsgi.process.run import run
from picowsgi.system.browser import open_page
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import (
    close_backlog,
    close_sockets,
    find_permissions,
    open_sockets,
    url_of,
)
from picowsgi.threads import loop
from picowsgi.threads.pool import ThreadPool

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Server:
    """Serve a WSGI application (PEP 3333) in a background thread, for tests and notebooks.

    The sockets listen as soon as the object exists. The server answers requests between `start` and
    `stop`, and `with` calls both:

        with picowsgi.Server(application, port=0) as server:
            urllib.request.urlopen(server.url)

    The server has no worker processes and installs no signal handlers. It does not change the limit
    of descriptors, as `serve` does for `max_connections`. While no descriptor is free, new
    connections wait.

    Args:
        application: a WSGI application.
        **options: the options of the command line as keywords, such as `port=0` for any free port.
            Sizes are bytes or a text such as `"10M"`, times are seconds or a text such as `"2.5s"`.
            The environment and `pyproject.toml` give the options that are missing.

    Raises:
        ConfigError: an option is unknown, or has a wrong value.
        BindError: the server cannot listen on an address.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.

    Attributes:
        settings: the options with their checked values.
        sockets: the listening sockets, in the order of the addresses.
    """

    def __init__(self, application: WSGIApplication, **options: Any) -> None:
        settings = _load_settings(options)
        if "timeout_drain" not in settings.sources:
            # No other server takes over idle connections, and `stop` would wait for them.
            settings = replace(settings, timeout_drain=0.0)
        self._open(application, settings)

    @classmethod
    def from_settings(cls, application: WSGIApplication, settings: Settings) -> Server:
        """Return a server with complete settings.

        Args:
            application: a WSGI application.
            settings: the options. Their values are checked already.

        Raises:
            BindError: the server cannot listen on an address.
            ConfigError: an option needs a package or a directory that does not exist.
            PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        """
        server = cls.__new__(cls)
        server._open(application, settings)
        return server

    def _open(self, application: WSGIApplication, settings: Settings) -> None:
        refuse_patched()
        middleware.check(settings)
        self.settings = settings
        self._left_threads = False
        self._process = os.getpid()
        application = _with_mounts(application, settings)
        permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group)
        self.sockets: list[socket.socket] = open_sockets(
            settings.binds(), settings.backlog, permissions
        )
        self._metrics: Metrics | None = None
        try:
            middleware.warn(settings, self.sockets)
            loop.warn(settings)
            wrapped = middleware.wrap(application, settings, self.sockets)
            middleware.log_pin()
            self._metrics = open_metrics(settings, permissions)
            self._pool: ThreadPool | None = ThreadPool(
                wrapped,
                self.sockets,
                settings,
                metrics=None if self._metrics is None else self._metrics.memory,
            )
        except BaseException:
            if self._metrics is not None:
                self._metrics.close()
            close_sockets(self.sockets)
            raise
        self._urls = [url_of(sock) for sock in self.sockets]
        self._metrics_url = "" if self._metrics is None else self._metrics.url
        name = self.sockets[0].getsockname()
        self._port = name[1] if isinstance(name, tuple) else 0

    @property
    def url(self) -> str:
        """The address of the first socket, as `http://127.0.0.1:8000` or `unix:PATH`."""
        return self._urls[0]

    @property
    def port(self) -> int:
        """The port of the first socket; 0 for a unix socket."""
        return self._port

    @property
    def metrics_url(self) -> str:
        """The address of the metrics, as `http://127.0.0.1:9100/metrics` or `unix:PATH`.

        It is empty without the option `metrics`.
        """
        return self._metrics_url

    def start(self) -> None:
        """Begin to serve, and return. If the server runs already, this does nothing.

        Raises:
            RuntimeError: the server has been stopped.
        """
        if self._pool is None:
            raise RuntimeError("the server has been stopped; make another one")
        if self._pool.started:
            return
        if self._metrics is not None:
            self._metrics.start(self.settings)
        self._pool.start()
        if self.settings.open:
            open_page(self.sockets)

    def request_stop(self, *, now: bool = False, others_accept: bool = False) -> None:
        """Begin a graceful shutdown, and return without waiting for its end.

        A signal handler may call this, as often as signals come: while the server drains, another
        call changes nothing. `join` waits for the end.

        Args:
            now: cut open requests and stop at once.
            others_accept: another process accepts from the same sockets, so connections that wait
                there are left to it.
        """
        pool = self._pool
        if pool is None:
            return
        if now:
            pool.stop_now()
        else:
            self._drain(pool, others_accept=others_accept)

    def cut_streams(self) -> None:
        """Cut off responses that stream, now and until the end, for a developer who does not wait.

        Call it before `request_stop` or `stop`. A response streams if it has begun and does not end
        within a tenth of a second. Its connection is closed at once, and the end of the server does
        not wait for its thread.
        """
        if self._pool is not None:
            self._pool.cut_streams(hurry=True)

    @property
    def open_requests(self) -> int:
        """The number of requests that the server has not answered, without those it has cut off."""
        return 0 if self._pool is None else self._pool.open_requests

    @property
    def left_threads(self) -> bool:
        """Whether the server has stopped although threads are still in the application."""
        return self._left_threads

    def _drain(self, pool: ThreadPool, *, others_accept: bool = False) -> None:
        if os.getpid() == self._process:
            # The core has its own duplicates, and serves the clients that have connected by now.
            close_backlog(self.sockets)
            close_sockets(self.sockets)
        pool.stop(others_accept=others_accept)

    def reopen_logs(self) -> None:
        """Open the access log file again, after a rotation has renamed it."""
        if self._pool is not None:
            self._pool.reopen_logs()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped.

        Args:
            timeout: seconds; None: no limit.

        Returns:
            True when the server has stopped, and False when `timeout` is over.
        """
        return self._pool is None or self._pool.join(timeout)

    def stop(self) -> None:
        """Close the sockets, answer open requests, and wait until the server has stopped.

        Open requests have `timeout_graceful` seconds. Another call does nothing. In a forked child
        of the process that made the server, this does not affect the server.

        Raises:
            RuntimeError: the serving thread has failed.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            self._drain(pool)
            if pool.started:
                pool.join()
            else:
                pool.close()
            self._left_threads = pool.gave_up
            if self._metrics is not None:
                self._metrics.close()
            if pool.error is not None:
                raise RuntimeError("the serving thread has failed") from pool.error

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def serve(application: WSGIApplication, **options: Any) -> None:
    """Serve a WSGI application (PEP 3333) until SIGINT or SIGTERM.

    The function raises the soft limit of descriptors (RLIMIT_NOFILE) for `max_connections`, up to
    the hard limit. If that is too low, it lowers `max_connections` and logs a warning.

    With `workers` above 1, `preload`, `max_requests` or `max_worker_rss`, forked processes serve,
    and SIGHUP replaces them. In another thread than the main one, the function handles no signals
    and does not return.

    Args:
        application: a WSGI application.
        **options: the options of the command line as keywords, as for `Server`; no `reload`.

    Raises:
        ConfigError: an option is unknown, or has a wrong value.
        BindError: the server cannot listen on an address.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        RuntimeError: the server has stopped because of an error, which is in the log.
    """
    serve_with(application, _load_settings(options))


def serve_with(application: WSGIApplication, settings: Settings) -> None:
    """Serve an application with complete settings, as `serve` does."""
    if run(lambda: _with_mounts(application, settings), settings, _announce) != 0:
        raise RuntimeError("serving has failed; the log says why")


def _load_settings(options: dict[str, Any]) -> Settings:
    settings = load_settings(options)
    if settings.reload:
        raise ConfigError(
            f"{settings.sources['reload']}: an application object cannot be loaded again; "
            "have it imported by the command: picowsgi --reload MODULE:ATTRIBUTE"
        )
    return settings


def _with_mounts(application: WSGIApplication, settings: Settings) -> WSGIApplication:
    if settings.mount:
        load = partial(load_application, directories=settings.app_dir)
        return mount(settings.mount, load, application)
    return application


def _announce(sockets: list[socket.socket]) -> None:
    get_logger().info("serving on %s", " and ".join(map(url_of, sockets)))
