"""A development server for the command of a framework: it serves until a reloader ends the process.

Never watches a file and never restarts a process: the framework's reloader does.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from picowsgi.app.live_reload import mode
from picowsgi.app.live_reload.channel import Channel
from picowsgi.app.live_reload.middleware import ENDPOINT, LiveReload
from picowsgi.config.load import load_settings
from picowsgi.config.log_config import read_log_config
from picowsgi.contrib import restarts
from picowsgi.log import configure, get_logger
from picowsgi.process import ending
from picowsgi.server import Server
from picowsgi.system import debugger
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import adopt_listener, close_sockets
from picowsgi.system.terminal import DEVELOPER_GRACE, SAME_INTERRUPT, describe_wait

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from _typeshed.wsgi import WSGIApplication

# The variable has the descriptor of the listening socket, for the process that a reloader starts.
_VARIABLE = "PICOWSGI_LISTENER"
_QUIET = 0.4  # seconds until the log says for what the server waits
_VERSION_SIZE = 8  # bytes
_LAST_LINE = 0.5  # seconds to wait for the last line of the log

# A space separates the values. Only the last value may have a space itself.
_FORMAT = "%(s)s %(B)s %(h)s %(H)s %(m)s %(R)s"

# The core escapes quotes and backslashes. Other escapes stay: they are bytes of invalid requests.
_PRINTABLE = re.compile(r"\\x(22|5c)")


class Exchange(NamedTuple):
    """One request and its response, for the log of a development server.

    If the server could not read the request line, the method is `-`, and the target has the bytes
    that came instead, with a backslash escape for all but printable ASCII.

    Attributes:
        status: the status of the response.
        size: the size of its body, in bytes.
        address: the address of the client.
        version: the version of the request, as `HTTP/1.1`.
        method: the method of the request.
        target: the target of the request, as the client sent it.
    """

    status: int
    size: int
    address: str
    version: str
    method: str
    target: str

    @property
    def request_line(self) -> str:
        """The request line, as the client sent it (RFC 9112 section 3)."""
        if self.method == "-":
            return self.target
        return f"{self.method} {self.target} {self.version}"


def keep_listener(sock: socket.socket) -> None:
    """Pass a listening socket to the processes that this one starts, one after the other.

    Between two of these processes, clients wait, and the system refuses no connection. Keep the
    socket open in this process.

    Args:
        sock: a listening socket.
    """
    sock.set_inheritable(True)
    os.environ[_VARIABLE] = str(sock.fileno())


def kept_listener() -> socket.socket | None:
    """Return the listening socket from `keep_listener` in the process that started this one.

    Returns:
        The socket; None if there is none, or at the second call.
    """
    number = os.environ.pop(_VARIABLE, "")
    return adopt_listener(int(number), None) if number else None


class DevelopmentServer:
    """Serve an application on a listening socket, and pass each request to a log.

    Args:
        application: a WSGI application (PEP 3333).
        sock: a listening socket, which the server closes at its end.
        log: a function that gets each request; None: there is no log.
        developing: whether a reloader restarts the process and tracebacks are shown, so that
            `live_reload` is on in a terminal; None: no reloader restarts it, so it is off.
        **options: the options of `picowsgi.Server`.

    Raises:
        ConfigError: an option is unknown, or has a wrong value.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
    """

    def __init__(
        self,
        application: WSGIApplication,
        sock: socket.socket,
        log: Callable[[Exchange], object] | None = None,
        developing: bool | None = None,
        **options: object,
    ) -> None:
        refuse_patched()  # before a thread starts
        self._lines = None if log is None else _Lines(log)
        try:
            settings = load_settings(
                {
                    **options,
                    "bind": f"fd://{sock.fileno()}",
                    "workers": 1,
                    "access_log": "off" if self._lines is None else "on",
                    "access_log_file": "-" if self._lines is None else self._lines.path,
                    "access_log_format": _FORMAT,
                }
            )
            self._grace = DEVELOPER_GRACE
            if "timeout_graceful" in settings.sources:
                self._grace = settings.timeout_graceful
            if not get_logger().hasHandlers():  # the program has configured none
                if settings.log_config:
                    read_log_config(settings.log_config)()
                else:
                    configure(settings.log_level, settings.log_format)
            #: The open pages of live reload; None: it is off.
            self.channel: Channel | None = None
            if developing is not None and mode.is_on(settings, developing=developing):
                self.channel = Channel(secrets.token_hex(_VERSION_SIZE))
                application = LiveReload(application, self.channel)
                if self._lines is not None:
                    self._lines.hidden = ENDPOINT
            settings = replace(settings, live_reload="off")
            self._server = Server.from_settings(application, settings)
            sock.detach()
        finally:
            if self._lines is not None:
                self._lines.begin()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Begin to serve, and return. The exit of the process waits for open requests."""
        with self._lock:
            if not self._stopped:
                atexit.register(self.stop)
                _running.append(self)
                self._server.start()

    def note_change(self) -> None:
        """Let open pages load again: a file has changed that needs no restart."""
        if self.channel is not None:
            self.channel.change(secrets.token_hex(_VERSION_SIZE))

    def wait(self) -> None:
        """Wait until the server has stopped."""
        self._server.join()
        self.stop()

    def stop(self, *, is_replaced: bool = False) -> None:
        """Finish open requests and stop. Any thread may call this, at any time.

        Responses that stream are cut off at once. Other requests have two seconds, or the time of
        `timeout_graceful`. In the main thread, another Ctrl-C ends the wait.

        Args:
            is_replaced: another process serves on the same socket, and does not wait for this end.
                Requests have the whole time of `timeout_graceful`.
        """
        with self._lock:
            self._stopped = True
            atexit.unregister(self.stop)
            if self in _running:
                _running.remove(self)
            self._server.cut_streams()
            if self.channel is not None:
                self.channel.end()
            self._server.request_stop(others_accept=is_replaced)
            with _Interrupts(self._server):
                if debugger.is_open_here():
                    self._server.request_stop(now=True)
                elif not is_replaced:
                    self._wait_for_requests()
                self._server.stop()
            if self._lines is not None:
                self._lines.join()

    def _wait_for_requests(self) -> None:
        if self._server.join(min(_QUIET, self._grace)):
            return
        get_logger().info("%s", describe_wait(self._server.open_requests))
        if not self._server.join(self._grace - _QUIET):
            self._server.request_stop(now=True)

    @property
    def left_threads(self) -> bool:
        """Whether the server has stopped although threads are still in the application."""
        return self._server.left_threads


#: The servers of this process that serve.
_running: list[DevelopmentServer] = []


class _Interrupts:
    """While the block runs, a signal ends the wait of the server, and not the block.

    The first Ctrl-C has begun the stop, and may come twice. A SIGTERM changes nothing.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun = time.monotonic()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._stop_now)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _stop_now(self, _number: int, _frame: FrameType | None) -> None:
        if time.monotonic() - self._begun >= SAME_INTERRUPT:
            self._server.request_stop(now=True)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _prompt_ends() -> bool:
    """Wait until no debugger is at its prompt. Returns False after Ctrl-C."""
    if debugger.is_open():
        get_logger().info("the reload waits until the debugger's prompt has ended")
    try:
        while debugger.is_open():
            time.sleep(debugger.CHECK)
    except KeyboardInterrupt:
        return False
    return True


@contextmanager
def reloaded(sockets: Iterable[socket.socket] = ()) -> Iterator[None]:
    """Run a framework's reloader, or its server alone. At the end, stop the servers.

    Then close the listening sockets, and remove the files that this process has made for them.

    If the reloader ends the process because a file has changed, the next process starts at once,
    and serves. This one ends when its requests are finished. A thread that does not come back from
    the application does not keep the process from ending.
    """
    status, failed = 0, False
    debugger.prepare()
    try:
        yield
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        raise
    except Exception:
        failed = True
        raise
    finally:
        is_restart = status == restarts.RESTART and _prompt_ends()
        is_replaced = is_restart and restarts.give_way()
        servers = _running[:]
        try:
            for one in servers:
                one.stop(is_replaced=is_replaced)
        finally:
            close_sockets(sockets)
        is_held_up = is_restart and ending.has_threads()
        if not failed and (is_held_up or any(one.left_threads for one in servers)):
            ending.set_limit(time.monotonic() + DEVELOPER_GRACE)
            ending.leave(status)


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


class _Lines:
    """Reads the lines of the access log from a pipe, in a thread of its own.

    The lines include requests that the core has refused. They take no time of the serving threads.
    """

    def __init__(self, log: Callable[[Exchange], object]) -> None:
        self._log = log
        #: The target of requests that the developer has not made; empty: there is none.
        self.hidden = ""
        self._reading, self._writing = os.pipe()
        #: The path that the server opens as its access log.
        self.path = f"/dev/fd/{self._writing}"
        self._thread = threading.Thread(target=self._run, name="picowsgi-log", daemon=True)

    def begin(self) -> None:
        """Read lines until every writer that has opened the path has closed it."""
        os.close(self._writing)
        self._thread.start()

    def join(self) -> None:
        """Wait for the last line, for a short time: a request that was left behind writes none."""
        self._thread.join(_LAST_LINE)

    def _run(self) -> None:
        with open(self._reading, encoding="ascii") as lines:  # noqa: PTH123 (a descriptor)
            for line in lines:
                text = _PRINTABLE.sub(_unescape, line.rstrip("\n"))
                status, size, *texts = text.split(" ", 5)
                one = Exchange(int(status), int(size), *texts)
                if one.target == self.hidden:
                    continue
                try:
                    self._log(one)
                except Exception as error:  # of the framework's log; the next lines still matter
                    get_logger().error("a request could not be logged", exc_info=error)
