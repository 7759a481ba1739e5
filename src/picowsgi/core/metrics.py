"""The memory and the page of the metrics (csrc/meter.c, csrc/exporter.c).

Never counts anything: the core does that in each server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from picowsgi._core import ffi, lib
from picowsgi.system import fork_guard


class Metrics:
    """The memory for the metrics of all servers that share it (`pw_metrics`).

    `descriptor`: a file of `size()` bytes, which other processes map too; -1: only processes that
    this one forks share the memory. Raises OSError; EINVAL: another version has made the file.
    """

    def __init__(self, descriptor: int = -1) -> None:
        metrics = lib.pw_metrics_map(descriptor)
        if metrics == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self.pointer: Any = ffi.gc(metrics, lib.pw_metrics_free)

    @staticmethod
    def size() -> int:
        """Return the number of bytes of the memory."""
        size: int = lib.pw_metrics_size()
        return size

    def retire(self, pid: int) -> None:
        """Note that this process has ended, or serves no more. What it has counted stays.

        Call this before the process is reaped, so that its CPU time is still known.
        """
        lib.pw_metrics_retire(self.pointer, pid)

    def note_restart(self, reason: int) -> None:
        """Count a worker that is replaced, for one of the reasons RESTART_EXIT and so on."""
        lib.pw_metrics_restart(self.pointer, reason)


class Exporter:
    """The thread that serves the page of the metrics on a listening socket (`pw_exporter`).

    It needs no GIL. `info` has the labels of `picowsgi_info`. Raises OSError if the system refuses
    a resource.
    """

    def __init__(
        self,
        metrics: Metrics,
        sock: socket.socket,
        info: Mapping[str, str],
        *,
        paused: bool = False,
    ) -> None:
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in info.items())
        exporter = lib.pw_exporter_new(
            metrics.pointer, sock.fileno(), labels.encode("ascii"), paused
        )
        if exporter == ffi.NULL:
            raise OSError(ffi.errno, f"the metrics cannot be served: {os.strerror(ffi.errno)}")
        self._pointer: Any = ffi.gc(exporter, partial(_free_exporter, metrics))
        fork_guard.guard(self)

    def before_fork(self) -> None:
        """Let the thread stop between two steps, so that the child finds a consistent state."""
        lib.pw_exporter_hold(self._pointer)

    def after_fork_in_parent(self) -> None:
        """Let the thread continue."""
        lib.pw_exporter_unhold(self._pointer)

    def after_fork_in_child(self) -> None:
        """Close its sockets in a forked child, which does not have the thread."""
        lib.pw_exporter_forked(self._pointer)

    def pause(self, paused: bool) -> None:
        """Leave new connections to another process with the same socket, or take them again."""
        lib.pw_exporter_pause(self._pointer, paused)

    def close(self) -> None:
        """End the thread and its connections."""
        ffi.release(self._pointer)


def _free_exporter(
    _metrics: Metrics, exporter: Any, free: Callable[[Any], None] = lib.pw_exporter_free
) -> None:
    free(exporter)


def _escape(value: str) -> str:
    """Return a value of a label with the escapes of Prometheus's text format, in ASCII."""
    value = value.encode("ascii", "replace").decode("ascii")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
