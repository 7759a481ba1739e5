"""The messages between a worker process and its supervisor, over a pair of sockets.

Both write single bytes: the worker reports its state, and the supervisor sends the way to stop. An
end of file means that the other process is gone. The two do not use signals for this, because any
other process may send signals too, to one process or to the group, and more than once. Never
blocks.
"""

from __future__ import annotations

import os
import signal
import socket

from picowsgi.errors import AppImportError
from picowsgi.system import fork_guard

# From the worker:
READY = ord("R")
HEARTBEAT = ord(".")
# Start a replacement, and stop this worker when the replacement is ready; the next byte is one of
# REASONS, for the number of a reason (core.RESTART_EXIT and so on).
REPLACE = ord("X")
REASONS = b"012345"
STOPPING = ord("T")  # a signal stops this worker, without an order of the supervisor
FAILED = ord("F")  # the application cannot be loaded; JSON follows, up to the end of file
# From the supervisor. A later order can only make the end of a worker more urgent:
WARN = ord("W")  # a stop comes soon: answer health checks with 503, and serve as before
DRAIN = ord("D")  # finish all requests, also those of connections that wait to be accepted
LEAVE = ord("L")  # finish all requests; other workers accept the connections that wait
NOW = ord("N")  # end at once, and cut open requests

_FAILURE_MOST = 49152
_ROOM = 131072  # bytes: for one failure, and hundreds of single bytes


def make_pair() -> tuple[int, int]:
    """Return the descriptors of both ends. They do not block, and no program inherits them."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return ends[0].detach(), ends[1].detach()


def write(descriptor: int, data: bytes) -> bool:
    """Write to the other end. Return False if the other process is gone, or does not read."""
    # The application may have set SIGPIPE to its default action, which would end the process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(descriptor, data) == len(data)
    except BrokenPipeError:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
    except OSError:
        pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return False


def read(descriptor: int) -> bytes | None:
    """Return the bytes that have come, which are empty at the end of file; None: none yet."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None
    except OSError:  # ECONNRESET: the other process has closed its end with unread bytes
        return b""


class StatusPipe:
    """The worker's end."""

    def __init__(self, descriptor: int, parent: int) -> None:
        self._descriptor = descriptor
        self._parent = parent
        self._ended = False
        self._in_children = fork_guard.ClosedInChildren(self._close)

    def _close(self) -> None:
        """Close the end in a forked child, once.

        A child of that child may have another file with the same descriptor.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def fileno(self) -> int:
        """Return a descriptor that is readable when an order has come; -1: no supervisor."""
        return -1 if self._ended else self._descriptor

    def send(self, byte: int) -> bool:
        """Send a byte. Return False if the supervisor is gone, or has not read for very long."""
        return write(self._descriptor, bytes([byte]))

    def ask_for_replacement(self, reason: int) -> bool:
        """Send REPLACE with its reason. Returns False as `send` does."""
        return write(self._descriptor, bytes([REPLACE, REASONS[reason]]))

    def send_failure(self, error: AppImportError) -> None:
        """Send the reason why the application cannot be loaded."""
        import json  # only a failure needs it

        parts = [str(error)[:2000], error.application_traceback[-6000:]]
        text = json.dumps(parts, ensure_ascii=False).encode("utf-8", "backslashreplace")
        write(self._descriptor, bytes([FAILED]) + text[:_FAILURE_MOST])

    def read_orders(self) -> bytes:
        """Return the supervisor's orders since the last call, oldest first."""
        orders = b""
        while not self._ended:
            data = read(self._descriptor)
            if data is None:
                break
            orders += data
            self._ended = not data
        return orders

    def is_supervisor_gone(self) -> bool:
        """Return whether the supervisor is gone."""
        return self._ended or os.getppid() != self._parent


def read_failure(text: bytes) -> AppImportError:
    """Return the error that `StatusPipe.send_failure` has sent."""
    import json

    try:
        message, traceback = json.loads(text)
        return AppImportError(str(message), str(traceback))
    except ValueError:
        return AppImportError("the application could not be loaded")
