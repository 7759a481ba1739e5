"""The page of `--metrics`: its socket, the memory of its counters, and the thread that serves it.

Never counts a request: the core does, in each process that serves.
"""

from __future__ import annotations

import os
import platform
import socket
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from picowsgi import __version__, core
from picowsgi.config.values import parse_metrics
from picowsgi.errors import BindError
from picowsgi.log import get_logger
from picowsgi.system import fork_guard
from picowsgi.system.sockets import (
    FilePermissions,
    adopt_listener,
    close_sockets,
    file_of,
    is_ours,
    open_sockets,
    url_of,
)

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings

#: The file of the memory and the listening socket, as `restart.Inherited.metrics`.
Passed = tuple[int, tuple[int, "str | None", bool] | None]

_BACKLOG = 64
_OTHER_LAYOUT = "another version of picowsgi has made the counters of --metrics"


class Metrics:
    """What a process needs for `--metrics`.

    `sock` is the socket of the page; None: another process serves it. `file` is the descriptor of
    the memory's file, which this object owns; -1: only forked processes share the memory.
    """

    def __init__(self, memory: core.Metrics, sock: socket.socket | None, file: int = -1) -> None:
        self.memory = memory
        self.sock = sock
        self._file = file
        self._exporter: core.Exporter | None = None
        self._paused = False
        self._in_children = fork_guard.ClosedInChildren(self._close_own)

    @property
    def url(self) -> str:
        """The address of the page, as `http://127.0.0.1:9100/metrics` or `unix:PATH`."""
        if self.sock is None:
            raise RuntimeError("another process serves the page")
        url = url_of(self.sock)
        return f"{url}/metrics" if url.startswith("http") else url

    def start(self, settings: Settings, *, paused: bool = False) -> None:
        """Serve the page from now on, or after `pause(False)`. Raises OSError."""
        if self.sock is not None and self._exporter is None:
            info = {
                "version": __version__,
                "python": platform.python_version(),
                "poller": core.POLLERS[0] if settings.poller == "auto" else settings.poller,
            }
            self._exporter = core.Exporter(self.memory, self.sock, info, paused=paused)
            self._paused = paused

    def pause(self, paused: bool) -> None:
        """Leave the page to another process with the same socket, or serve it again."""
        if self._exporter is not None and paused != self._paused:
            self._paused = paused
            self._exporter.pause(paused)

    def pass_on(self, role: str) -> Passed:
        """Return what a new program of this role gets."""
        sock = None if role == "worker" else self.sock
        if sock is None:
            return self._file, None
        file = file_of(sock)
        return self._file, (sock.fileno(), None if file is None else str(file), is_ours(sock))

    def leave_to_parent(self) -> None:
        """Keep only the memory, in a worker that was forked."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.after_fork_in_child()
        self._close_own()

    def close(self, *, files_are_ours: bool = True) -> None:
        """End the page. `files_are_ours`: remove the file of a unix socket."""
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()
        if self.sock is not None and files_are_ours:
            close_sockets([self.sock])
        self._close_own()

    def _close_own(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def open_metrics(
    settings: Settings, permissions: FilePermissions | None = None, *, outlives: bool = False
) -> Metrics | None:
    """Open the socket of the page and the memory; None: without `--metrics`.

    `outlives`: other programs may continue with the memory. Raises BindError or OSError.
    """
    if not settings.metrics:
        return None
    try:
        sock = open_sockets([parse_metrics(settings.metrics)], _BACKLOG, permissions)[0]
    except BindError as error:
        raise BindError(f"--metrics: {error}", error.errno) from None
    try:
        return Metrics(*_new_memory(outlives=outlives, sock=sock))
    except BaseException:
        close_sockets([sock])
        raise


def adopt_metrics(settings: Settings, role: str, passed: Passed | None) -> Metrics | None:
    """Return what the previous process has passed on; None: without `--metrics`.

    The counters continue, unless they are those of another version. Raises OSError.
    """
    if passed is None:
        if settings.metrics:
            get_logger().warning(
                "%s: the server was started without it; start it again",
                settings.sources.get("metrics", "--metrics"),
            )
        return None
    file, listener = passed
    sock = None if listener is None else adopt_listener(*listener[:2], is_ours=listener[2])
    try:
        return Metrics(core.Metrics(file), sock, file)
    except OSError as error:
        os.close(file)
        if role == "worker":
            get_logger().warning("%s, so this process is not counted: %s", _OTHER_LAYOUT, error)
            return None
    get_logger().warning("%s, so they begin again", _OTHER_LAYOUT)
    return Metrics(*_new_memory(outlives=True, sock=sock))


def _new_memory(
    *, outlives: bool, sock: socket.socket | None
) -> tuple[core.Metrics, socket.socket | None, int]:
    if not outlives:
        return core.Metrics(), sock, -1
    file = _make_file()
    try:
        os.ftruncate(file, core.Metrics.size())
        return core.Metrics(file), sock, file
    except BaseException:
        os.close(file)
        raise


def _make_file() -> int:
    """Return a new file without a name, in memory if the system can do that. Raises OSError."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # a container may forbid it
            return os.memfd_create("picowsgi-metrics", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
