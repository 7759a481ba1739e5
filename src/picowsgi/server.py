"""Serving from code: `serve` blocks, `Server` serves in a background thread.

Never parses a command line; the options are the table's (`picowsgi.config.settings.Settings`).
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from picowsgi.app import middleware
from picowsgi.app.importer import load_application
from picowsgi.app.mount import mount
from picowsgi.config.load import load_settings
from picowsgi.config.settings import Settings
from picowsgi.errors import ConfigError
from picowsgi.log import get_logger
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
    """Serves `application` in a background thread, for tests and notebooks.

    The options are those of the command line, as keywords (`port=0` picks a free port). The
    sockets listen from the moment the object exists; requests are answered between `start` and
    `stop`, which `with` calls.

        with picowsgi.Server(application, port=0) as server:
            urllib.request.urlopen(server.url)

    The process is the program's own: its limit of descriptors stays as it is (`serve` raises it for
    `max_connections`), and while none is free new connections wait.

    Raises ConfigError for an option, BindError for an address, PatchedError where gevent or
    eventlet has patched `threading`, `socket` or `select`.
    """

    def __init__(self, application: WSGIApplication, **options: Any) -> None:
        settings = _load_settings(options)
        if "timeout_drain" not in settings.sources:
            # Nobody takes this server's place, and whoever stops it waits for that.
            settings = replace(settings, timeout_drain=0.0)
        self._open(application, settings)

    @classmethod
    def from_settings(cls, application: WSGIApplication, settings: Settings) -> Server:
        """Return a server with settings that are complete already."""
        server = cls.__new__(cls)
        server._open(application, settings)
        return server

    def _open(self, application: WSGIApplication, settings: Settings) -> None:
        refuse_patched()
        middleware.check(settings)
        self.settings = settings
        self._process = os.getpid()
        application = _with_mounts(application, settings)
        self.sockets: list[socket.socket] = open_sockets(
            settings.binds(),
            settings.backlog,
            find_permissions(settings.unix_socket_mode, settings.unix_socket_group),
        )
        try:
            middleware.warn(settings, self.sockets)
            loop.warn(settings)
            wrapped = middleware.wrap(application, settings, self.sockets)
            self._pool: ThreadPool | None = ThreadPool(wrapped, self.sockets, settings)
        except BaseException:
            close_sockets(self.sockets)
            raise
        self._urls = [url_of(sock) for sock in self.sockets]
        name = self.sockets[0].getsockname()
        self._port = name[1] if isinstance(name, tuple) else 0

    @property
    def url(self) -> str:
        """Where the first socket listens: `http://127.0.0.1:8000`, or `unix:PATH`."""
        return self._urls[0]

    @property
    def port(self) -> int:
        """The port of the first socket; 0 for a unix socket."""
        return self._port

    def start(self) -> None:
        """Begin to serve, and return; of a server that serves it does nothing."""
        if self._pool is None:
            raise RuntimeError("the server has been stopped; make another one")
        if self._pool.started:
            return
        self._pool.start()
        if self.settings.open:
            open_page(self.sockets)

    def request_stop(self, *, now: bool = False) -> None:
        """Begin to drain and stop, without waiting for the end. Safe in a signal handler.

        Once the server drains, another call changes nothing: a signal may come more than once. With
        `now` open requests are cut, and the server stops at once.
        """
        pool = self._pool
        if pool is None:
            return
        if now:
            pool.stop_now()
        else:
            self._drain(pool)

    def _drain(self, pool: ThreadPool) -> None:
        if os.getpid() == self._process:
            # The core has its own duplicates, and serves those that have connected by now.
            close_backlog(self.sockets)
            close_sockets(self.sockets)
        pool.stop()

    def reopen_logs(self) -> None:
        """Open the log files again, as after a rotation."""
        if self._pool is not None:
            self._pool.reopen_logs()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of serving; False when `timeout` seconds were not enough."""
        return self._pool is None or self._pool.join(timeout)

    def stop(self) -> None:
        """Close the sockets, drain and wait for the end. Calling it again does nothing.

        In a forked child of the process that has made the server it does nothing either.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            self._drain(pool)
            if pool.started:
                pool.join()
            else:
                pool.close()
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
    """Serve `application` until SIGINT or SIGTERM; the options are the command's.

    The soft limit of descriptors (RLIMIT_NOFILE) is raised to what `max_connections` needs, as far
    as the hard limit allows; beyond that `max_connections` is lowered, with a warning in the log.

    With `workers` above 1, and the like, it is served by forked processes, and SIGHUP has new ones
    forked. Outside the main thread signals are the program's own affair, and this never returns.
    Raises ConfigError for an option, BindError for an address, PatchedError as Server does.
    """
    settings = _load_settings(options)
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
        return mount(settings.mount, load_application, application)
    return application


def _announce(sockets: list[socket.socket]) -> None:
    get_logger().info("serving on %s", " and ".join(map(url_of, sockets)))
