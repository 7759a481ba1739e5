"""What the development servers of the frameworks share: to serve until the process is replaced.

Never watches a file and never restarts anything: that is the framework's reloader.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from picowsgi.config.load import load_settings
from picowsgi.config.log_config import read_log_config
from picowsgi.log import configure, get_logger
from picowsgi.server import Server
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.sockets import adopt_listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

# From a reloader to the process that it starts: the number of the listening socket.
_VARIABLE = "PICOWSGI_LISTENER"
_GRACE = 2.0  # seconds: a developer does not wait longer for requests that hang
_LAST_LINE = 0.5  # seconds

# One blank between any two; only the last may hold one itself.
_FORMAT = "%(s)s %(B)s %(h)s %(H)s %(m)s %(R)s"

# The core escapes what would end a quoted text; what it does not accept stays escaped.
_PRINTABLE = re.compile(r"\\x(22|5c)")


class Exchange(NamedTuple):
    """What a development server says of a request.

    Where the request line could not be read, the method is `-` and the target what came instead,
    of which all but printable ASCII is a backslash escape.
    """

    status: int
    size: int
    address: str
    version: str
    method: str
    target: str

    @property
    def request_line(self) -> str:
        """As it was sent (RFC 9112 section 3)."""
        if self.method == "-":
            return self.target
        return f"{self.method} {self.target} {self.version}"


def keep_listener(sock: socket.socket) -> None:
    """Leave a listening socket to the processes that are started from this one, in turn.

    While there is none, clients wait; nobody is refused. It has to stay open here.
    """
    sock.set_inheritable(True)
    os.environ[_VARIABLE] = str(sock.fileno())


def kept_listener() -> socket.socket | None:
    """Return the listening socket that was left to this process; None, also the second time."""
    number = os.environ.pop(_VARIABLE, "")
    return adopt_listener(int(number), None) if number else None


class DevelopmentServer:
    """Serves `application` on `sock`, which is its own from then on, and tells `log` about it.

    `options` are the command's; of those that are not given, the environment and the file decide.
    Raises ConfigError, PatchedError.
    """

    def __init__(
        self,
        application: WSGIApplication,
        sock: socket.socket,
        log: Callable[[Exchange], object] | None = None,
        **options: object,
    ) -> None:
        refuse_patched()  # before there is a thread
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
            if "timeout_graceful" not in settings.sources:
                settings = replace(settings, timeout_graceful=_GRACE)
            if not get_logger().hasHandlers():  # the program has configured none
                if settings.log_config:
                    read_log_config(settings.log_config)()
                else:
                    configure(settings.log_level, settings.log_format)
            self._server = Server.from_settings(application, settings)
            sock.detach()
        finally:
            if self._lines is not None:
                self._lines.begin()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Begin to serve, and return; at the end of the process open requests are finished."""
        with self._lock:
            if not self._stopped:
                atexit.register(self.stop)
                self._server.start()

    def wait(self) -> None:
        """Return when serving has ended."""
        self._server.join()
        self.stop()

    def stop(self) -> None:
        """Finish open requests and end; from any thread, and at any time."""
        with self._lock:
            self._stopped = True
            atexit.unregister(self.stop)
            self._server.stop()
            if self._lines is not None:
                self._lines.join()


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


class _Lines:
    """Takes the lines of the access log from a pipe, in a thread of its own.

    So they tell of what the core refused too, and cost the requests nothing.
    """

    def __init__(self, log: Callable[[Exchange], object]) -> None:
        self._log = log
        self._reading, self._writing = os.pipe()
        #: What a server is to open as its access log.
        self.path = f"/dev/fd/{self._writing}"
        self._thread = threading.Thread(target=self._run, name="picowsgi-log", daemon=True)

    def begin(self) -> None:
        """Take lines until all who have opened the path have closed it."""
        os.close(self._writing)
        self._thread.start()

    def join(self) -> None:
        """Wait for the last line; where a request was left behind, it may never come."""
        self._thread.join(_LAST_LINE)

    def _run(self) -> None:
        with open(self._reading, encoding="ascii") as lines:  # noqa: PTH123 (a descriptor)
            for line in lines:
                text = _PRINTABLE.sub(_unescape, line.rstrip("\n"))
                status, size, *texts = text.split(" ", 5)
                try:
                    self._log(Exchange(int(status), int(size), *texts))
                except Exception as error:  # of the program's logging; the next line is to come
                    get_logger().error("a request could not be logged", exc_info=error)
