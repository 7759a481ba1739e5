"""What a worker process and its supervisor say to each other, over a pair of sockets.

Each of the two writes single bytes: the worker says how it is, the supervisor how it is to stop. An
end of file tells that the other one is gone. Signals mean nothing between the two, because anybody
may send them, to one process or to the whole group, and more than once. Never blocks.
"""

from __future__ import annotations

import os
import signal
import socket

from picowsgi.errors import AppImportError
from picowsgi.system import fork_guard

# The worker says:
READY = ord("R")
HEARTBEAT = ord(".")
REPLACE = ord("X")  # "give me a successor, and stop me when it is ready"
STOPPING = ord("T")  # "a signal stops me, not you"
FAILED = ord("F")  # "the application cannot be loaded": JSON follows, up to the end
# The supervisor says; what a worker has begun of these it can only end sooner:
WARN = ord("W")  # "a stop comes soon: health checks are to see that; serve as before"
DRAIN = ord("D")  # "finish, also what waits to be accepted"
LEAVE = ord("L")  # "finish; other workers go on accepting"
NOW = ord("N")  # "end now, and cut what is open"

_FAILURE_MOST = 49152
_ROOM = 131072  # for a failure as a whole, and for hundreds of single bytes


def make_pair() -> tuple[int, int]:
    """Return the descriptors of both ends; neither waits, or is inherited by other programs."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return ends[0].detach(), ends[1].detach()


def write(descriptor: int, data: bytes) -> bool:
    """Write to the other end; False when nobody is there, or nobody reads."""
    # The application may have given SIGPIPE its default back, which would end the process.
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
    """Return what has come since, empty at the end of file; None: nothing yet."""
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return None
    except OSError:  # ECONNRESET: the other one has left without reading everything
        return b""


class StatusPipe:
    """The worker's end."""

    def __init__(self, descriptor: int, parent: int) -> None:
        self._descriptor = descriptor
        self._parent = parent
        self._ended = False
        self._in_children = fork_guard.ClosedInChildren(self._close)

    def _close(self) -> None:
        """Close it in a forked child, once: in a child of that the number may be another file's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def fileno(self) -> int:
        """Return what is readable when the supervisor has said something; -1: it is gone."""
        return -1 if self._ended else self._descriptor

    def send(self, byte: int) -> bool:
        """Tell the supervisor; False for one that is gone, or has not read for very long."""
        return write(self._descriptor, bytes([byte]))

    def send_failure(self, error: AppImportError) -> None:
        """Tell the supervisor why there is no application."""
        import json  # only where it fails

        parts = [str(error)[:2000], error.application_traceback[-6000:]]
        text = json.dumps(parts, ensure_ascii=False).encode("utf-8", "backslashreplace")
        write(self._descriptor, bytes([FAILED]) + text[:_FAILURE_MOST])

    def read_orders(self) -> bytes:
        """Return what the supervisor has said since, in its order."""
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
