"""A worker for gunicorn: its processes, signals, configuration and reload, over picowsgi's core.

    gunicorn --worker-class picowsgi.contrib.gunicorn.Worker mysite:app

These settings of gunicorn have the same effect as for its own workers: `threads`,
`worker_connections`, `keepalive`, `graceful_timeout`, `max_requests`, `limit_request_*`,
`header_map`, `sendfile`, `secure_scheme_headers` with `forwarded_allow_ips`, the hooks of a
request, and `SCRIPT_NAME` in the environment. `forwarded_allow_ips` is also picowsgi's option of
this name. With `proxy_protocol` every connection must begin with a PROXY header, in version 1 or 2.
Then `proxy_allow_ips` must have the same value as `forwarded_allow_ips`. The limits of lines and
fields are one limit for the whole head. gunicorn has no settings for the limits of bodies and the
timeouts of clients: they come from `PICOWSGI_<NAME>` and `[tool.picowsgi]`.

As with gunicorn's threads, `timeout` is for a worker that sends no heartbeat.
`PICOWSGI_TIMEOUT_REQUEST` is the limit for one request. gunicorn writes both logs. They do not have
the requests that the core refuses. Without an access log or a hook, a request does not run any code
of gunicorn.

Never serves TLS: gunicorn does not start with a setting that has no equivalent here.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar
from wsgiref.util import FileWrapper

from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger
from gunicorn.workers import base

from picowsgi import core
from picowsgi.app.mount import Mount
from picowsgi.config.load import load_settings
from picowsgi.errors import PatchedError
from picowsgi.log import get_logger
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.processes import is_running
from picowsgi.system.signals import DefaultInChildren
from picowsgi.system.sockets import prepare
from picowsgi.threads.pool import ThreadPool
from picowsgi.wsgi.gateway import Gateway
from picowsgi.wsgi.stepping import SteppingGateway

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from picowsgi.config.settings import Settings
    from picowsgi.wsgi.environ import SharedState

_PROXY = "a proxy in front does that"
_UNSAFE = "what is not valid HTTP is always refused"
#: Settings without an equivalent, by name, with the reason.
_REFUSED = {
    "certfile": f"TLS is not served; {_PROXY}",
    "keyfile": f"TLS is not served; {_PROXY}",
    "protocol": "only http is spoken",
    "http2_cleartext": f"HTTP/2 is not served; {_PROXY}",
    "permit_obsolete_folding": _UNSAFE,
    "permit_unconventional_http_version": _UNSAFE,
    "strip_header_spaces": _UNSAFE,
    "casefold_http_method": "methods are passed on as they are",
}
_UNDERSCORE = {"drop": "drop", "refuse": "refuse", "dangerous": "allow"}
#: gunicorn's default, with which no header is removed.
_FORWARDED_ALLOW_IPS = {"127.0.0.1", "::1"}
_HEAD_MOST = 4 << 20
_COUNT = 0.2  # seconds between two checks of the number of requests


class Worker(base.Worker):  # type: ignore[misc]
    """gunicorn's worker. Its main thread serves no request: it sends heartbeats."""

    #: The connections of the workers, and the workers, in the process that forks them.
    _balance: ClassVar[core.Balance | None] = None
    _forked: ClassVar[list[Worker]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if Worker._balance is None:
            Worker._balance = core.Balance()
        for worker in Worker._forked[:]:
            pid = worker.pid if isinstance(worker.pid, int) else 0  # 0: it was never forked
            if not is_running(pid):  # a killed worker could not remove itself from the balance
                Worker._balance.forget(pid)
                Worker._forked.remove(worker)
        Worker._forked.append(self)

    @classmethod
    def check_config(cls, cfg: Any, _log: Any) -> None:
        """Refuse settings without an effect. Raises RuntimeError, which gunicorn reports.

        Args:
            cfg: gunicorn's settings.
            _log: gunicorn's logger.

        Raises:
            RuntimeError: a setting has no equivalent, or an option of picowsgi is wrong.
        """
        for name, why in _REFUSED.items():
            setting = cfg.settings.get(name)
            if setting is not None and setting.get() not in (setting.default, None, False):
                raise RuntimeError(f"picowsgi's worker cannot use {name}: {why}")
        settings = settings_of(cfg)
        if settings.metrics:
            raise RuntimeError(
                f"{settings.sources['metrics']}: picowsgi's worker cannot serve metrics, because "
                "gunicorn's processes share no counters; use gunicorn's --statsd-host, or the "
                "command picowsgi"
            )

    def load_wsgi(self) -> None:
        """Load the application. If it has patched the standard library, gunicorn ends.

        Raises:
            AppImportError: the application cannot be imported, or has patched a module.
        """
        try:
            refuse_patched()
            super().load_wsgi()
            refuse_patched()
        except PatchedError as error:
            raise AppImportError(str(error)) from None

    def run(self) -> None:
        """Serve until a signal, gunicorn's reload or `max_requests` ends it."""
        core.share_heap()
        #: Processes that the application forks must not have gunicorn's signal handlers.
        self._in_children = DefaultInChildren(self.SIGNALS, self._close_in_child)
        _log_through(self.log)
        sockets = [listener.sock for listener in self.sockets]
        for sock in sockets:
            prepare(sock)
        serving = ThreadPool(
            self._application(),
            sockets,
            settings_of(self.cfg),
            multiprocess=self.cfg.workers > 1,
            balance=Worker._balance,
            environ={} if self.cfg.sendfile is not False else {"wsgi.file_wrapper": FileWrapper},
            make_gateway=self._gateway(),
        )
        serving.on_end = self._wake
        self.notify()  # gunicorn checks heartbeats from the first one on
        serving.start()
        serving.stop(others_accept=self._watch(serving))
        while not serving.join(self._wait_time()):
            self.notify()
        if serving.error is not None:
            raise RuntimeError("a serving thread has failed") from serving.error

    def _watch(self, serving: ThreadPool) -> bool:
        """Wait until the worker has to stop. Return True if another worker replaces it."""
        while self.alive and serving.error is None:
            self.notify()
            self.nr = serving.requests
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                return False
            if self.nr >= self.max_requests:
                self.log.info("Autorestarting worker after current request.")
                return True
            # Python writes the number of each signal to the pipe (signal.set_wakeup_fd).
            ready, _, _ = select.select([self.PIPE[0]], [], [], self._wait_time())
            if ready:
                os.read(self.PIPE[0], 4096)
        return False

    def _close_in_child(self) -> None:
        for descriptor in self.PIPE:
            os.close(descriptor)

    def _wait_time(self) -> float:
        """Return the seconds until the next heartbeat, or the next check of `max_requests`."""
        seconds = _COUNT if self.cfg.max_requests else 1.0
        return min(seconds, self.timeout) if self.timeout else seconds

    def _wake(self) -> None:
        with suppress(OSError):  # a full pipe wakes the main thread too
            os.write(self.PIPE[1], b"\0")

    def _application(self) -> WSGIApplication:
        application = self.wsgi
        script_name = os.environ.get("SCRIPT_NAME", "")
        if script_name:
            application = Mount({script_name: application})
        return Forwarded(application, self.cfg)

    def _gateway(self) -> Callable[..., Gateway]:
        flags = 0 if self.cfg.keepalive else core.CLOSE
        if flags or _wants_access(self.log) or _has_hooks(self.cfg):
            return partial(_HookedGateway, self, flags)
        return Gateway


class Forwarded:
    """Sets `wsgi.url_scheme` by gunicorn's `secure_scheme_headers`, for a proxy it trusts.

    The core uses `X-Forwarded-Proto` itself. This class is for the other headers.
    """

    def __init__(self, application: WSGIApplication, cfg: Any) -> None:
        self._application = application
        self._secure = {
            "HTTP_" + name.upper().replace("-", "_"): value
            for name, value in cfg.secure_scheme_headers.items()
        }
        trusted = cfg.forwarded_allow_ips
        #: A PROXY header names the sender of the headers.
        self._sender = "REMOTE_ADDR" if _wants_proxy_protocol(cfg) else "picowsgi.peer"
        self._trusts_all = "*" in trusted
        self._networks = [ipaddress.ip_network(each) for each in trusted if each != "*"]
        self._trusts = lru_cache(1024)(self._is_trusted)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, /
    ) -> Iterable[bytes]:
        given = [environ[key] == value for key, value in self._secure.items() if key in environ]
        if given and self._trusts(environ.get(self._sender, environ["REMOTE_ADDR"])):
            environ["wsgi.url_scheme"] = "https" if all(given) else "http"
            if not all(given):
                environ.pop("HTTPS", None)
        return self._application(environ, start_response)

    def _is_trusted(self, address: str) -> bool:
        if self._trusts_all or not address:  # a client of a unix socket has no address
            return True
        return any(ipaddress.ip_address(address) in network for network in self._networks)


class _HookedGateway(SteppingGateway):
    """Calls gunicorn's hooks around each request, and logs the request by gunicorn."""

    def __init__(
        self,
        worker: Worker,
        flags: int,
        application: WSGIApplication,
        thread: core.CoreThread,
        bases: list[WSGIEnvironment],
        shared: SharedState,
        *,
        debug: bool = False,
    ) -> None:
        super().__init__(application, thread, bases, shared, flags, debug=debug)
        self._worker = worker

    def serve(self, environ: WSGIEnvironment) -> int:
        worker = self._worker
        begin = datetime.now()  # noqa: DTZ005 (only the difference counts)
        request = _describe_request(environ)
        _call(worker.cfg.pre_request, worker, request)
        number = super().serve(environ)
        response = SimpleNamespace(
            status=self.status,
            status_code=int(self.status[:3]),
            headers=self.headers,
            sent=self.sent,
        )
        duration = datetime.now() - begin  # noqa: DTZ005
        _call(worker.log.access, response, request, environ, duration)
        _call(worker.cfg.post_request, worker, request, environ, response)
        return number


def settings_of(cfg: Any) -> Settings:
    """Return picowsgi's options for gunicorn's settings.

    Args:
        cfg: gunicorn's settings.

    Returns:
        The options. The environment and `pyproject.toml` give those without a setting of gunicorn.

    Raises:
        RuntimeError: an option of picowsgi is wrong.
    """
    options: dict[str, object] = {
        "workers": min(cfg.workers or 1, 1024),
        "threads": cfg.threads,
        "max_connections": cfg.worker_connections,
        "timeout_graceful": cfg.graceful_timeout,
        "timeout_keep_alive": cfg.keepalive or None,
        "max_fields": min(cfg.limit_request_fields, 1024),
        "access_log": "off",
    }
    if set(cfg.forwarded_allow_ips) != _FORWARDED_ALLOW_IPS:
        # gunicorn trusts the clients of unix sockets in any case.
        options["forwarded_allow_ips"] = [*cfg.forwarded_allow_ips, "unix"]
    if _wants_proxy_protocol(cfg):
        if set(cfg.proxy_allow_ips) != set(cfg.forwarded_allow_ips):
            raise RuntimeError(
                "picowsgi's worker has one list of trusted proxies: set proxy_allow_ips "
                f"({_join(cfg.proxy_allow_ips)}) and forwarded_allow_ips "
                f"({_join(cfg.forwarded_allow_ips)}) to the same value"
            )
        options["proxy_protocol"] = True
    header_map = getattr(cfg, "header_map", None)
    if header_map is not None:
        options["underscore_fields"] = _UNDERSCORE[header_map]
    limits = [cfg.settings[name] for name in ("limit_request_line", "limit_request_field_size")]
    if any(setting.get() != setting.default for setting in limits):
        line, field = (setting.get() or _HEAD_MOST for setting in limits)
        size = line + cfg.limit_request_fields * field
        options["max_head_size"] = max(256, min(size, _HEAD_MOST))
    try:
        return load_settings(options)
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def _wants_proxy_protocol(cfg: Any) -> bool:
    # A flag, or from gunicorn 24.1 on "off", "v1", "v2" or "auto".
    return cfg.proxy_protocol not in (False, None, "off")


def _join(allowed: Iterable[str]) -> str:
    return ",".join(sorted(allowed)) or "none"


def _describe_request(environ: WSGIEnvironment) -> SimpleNamespace:
    """Return a request object with the attributes that gunicorn's hooks and loggers use."""
    major, _, minor = environ["SERVER_PROTOCOL"].partition("/")[2].partition(".")
    return SimpleNamespace(
        method=environ["REQUEST_METHOD"],
        uri=environ["REQUEST_URI"],
        path=environ["PATH_INFO"],
        query=environ["QUERY_STRING"],
        version=(int(major), int(minor)),
        remote_addr=(environ["REMOTE_ADDR"], environ["REMOTE_PORT"]),
        headers=[
            (key.removeprefix("HTTP_").replace("_", "-"), value)
            for key, value in environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ],
    )


def _call(hook: Callable[..., object], *arguments: object) -> None:
    try:
        hook(*arguments)
    except Exception as error:
        get_logger().error("error in %s", getattr(hook, "__name__", hook), exc_info=error)


def _wants_access(log: Any) -> bool:
    return getattr(log, "access_log_enabled", True) or type(log).access is not Logger.access


def _has_hooks(cfg: Any) -> bool:
    return cfg.loglevel.lower() == "debug" or any(
        (getattr(cfg, name).__module__, getattr(cfg, name).__name__) != ("gunicorn.config", name)
        for name in ("pre_request", "post_request")
    )


class _Forward(logging.Handler):
    """Passes records on to the current handlers of another logger."""

    def __init__(self, to: logging.Logger) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        if not self._to.disabled:
            # A newer Python's `handle` ignores a record while the thread handles another one.
            self._to.callHandlers(record)


def _log_through(log: Any) -> None:
    to = getattr(log, "error_log", None)
    if to is not None:
        logger = get_logger().logger
        logger.handlers = [_Forward(to)]
        logger.propagate = False
        logger.setLevel(to.getEffectiveLevel())
