"""Takes lines from the core, and writes them to an output that may block without a limit.

The core writes to a socket that never blocks. A thread reads the lines from the socket and writes
them. Never drops a line while the server runs: the core does, when the socket is full.
"""

from __future__ import annotations

import _thread
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from picowsgi.line_output import start_writer, write_lines
from picowsgi.log import get_logger
from picowsgi.system.fork_guard import ClosedInChildren
from picowsgi.threads.incidents import describe_lost_lines

Write = Callable[[int, bytes, Callable[[bytes], object]], int]

_ROOM = 256 * 1024  # bytes: the requested size of the socket's buffer
_READ = 512 * 1024  # bytes: more than the largest message


class LineRelay:
    """Writes to `descriptor`, which the relay owns from now on.

    The relay calls `write` with the same arguments as `write_lines`. Raises OSError if the system
    has no socket for it.
    """

    def __init__(self, descriptor: int, write: Write = write_lines) -> None:
        self._write = write
        self._source, self._target = _make_pair()
        self._in_children = ClosedInChildren(self._close_sockets)
        #: The thread writes to the last descriptor, and closes those before it.
        self._descriptors = deque([descriptor])
        #: Locked while the thread runs.
        self._runs = _thread.allocate_lock()
        #: The number of lines that the thread has yet to write, has written, and could not write.
        self._current = 0
        self._written = 0
        self._lost = 0
        self._is_over = False

    def fileno(self) -> int:
        """Return the descriptor that the core writes to."""
        return self._target.fileno()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system cannot start one."""
        self._runs.acquire()
        try:
            start_writer(self._run)
        except RuntimeError:
            self._runs.release()
            raise

    def write_to(self, descriptor: int) -> None:
        """Write the next lines to another descriptor, which the relay owns from now on."""
        self._descriptors.append(descriptor)

    def close(self, most: float, quiet: float) -> int:
        """End the thread, after the core's last write. Returns the number of lost lines.

        The function waits for unwritten lines, for at most `most` seconds, and for at most `quiet`
        seconds in which no line is written. A thread that is blocked for longer ends when it can.
        """
        with suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)
        self._target.close()
        until = time.monotonic() + most
        before = -1
        while self._written != before and time.monotonic() < until:
            before = self._written
            if self._runs.acquire(timeout=quiet):
                self._close_all()
                return self._lost
        self._is_over = True
        lost = self._lost + self._current + self._count_unread()
        if self._runs.acquire(blocking=False):  # the thread has ended and did not see _is_over
            self._close_all()
        return lost

    def _count_unread(self) -> int:
        count = 0
        with suppress(OSError):
            while data := self._source.recv(_READ, socket.MSG_DONTWAIT):
                count += data.count(b"\n")
        return count

    def _close_sockets(self) -> None:
        self._source.close()
        self._target.close()

    def _note(self, lines: bytes) -> None:
        count = lines.count(b"\n")
        self._current -= count
        self._written += count

    def _close_all(self) -> None:
        self._close_sockets()
        self._close_files(0)

    def _close_files(self, kept: int) -> None:
        while len(self._descriptors) > kept:
            with suppress(OSError):
                os.close(self._descriptors.popleft())

    def _run(self) -> None:
        room = bytearray(_READ)
        view = memoryview(room)
        begun = 0  # bytes of a line without its end
        try:
            while size := self._source.recv_into(view[begun:]):
                size += begun
                end = room.rfind(b"\n", 0, size) + 1
                if end:
                    self._pass_on(bytes(view[:end]))
                elif size == _READ:
                    self._pass_on(bytes(view))
                    end = size
                begun = size - end
                room[:begun] = room[end:size]
        except OSError:
            pass
        finally:
            self._runs.release()
        if self._is_over:
            self._close_all()

    def _pass_on(self, lines: bytes) -> None:
        self._close_files(1)
        self._current = lines.count(b"\n")
        failed = self._write(self._descriptors[-1], lines, self._note)
        self._current = 0
        self._lost += failed
        if self._lost and not failed:
            lost, self._lost = self._lost, 0
            get_logger().warning("%s", describe_lost_lines(lost, "no process read it"))


def _make_pair() -> tuple[socket.socket, socket.socket]:
    """Return the reading and the writing end, which keep messages apart if the system can."""
    try:
        source, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:  # macOS has no SOCK_SEQPACKET
        source, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    target.setblocking(False)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return source, target
