"""Takes lines from the core and writes them where a writer may be held up for any time.

The core writes to a socket that never blocks, and a thread writes what comes out of it. Never drops
a line itself while it serves: the core does, when the socket is full.
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

_ROOM = 256 * 1024  # bytes that the socket is asked to hold
_READ = 512 * 1024  # bytes: more than one message has


class LineRelay:
    """Writes to `descriptor`, which is its own from now on.

    `write` is called with that, whole lines and a function, as `write_lines` is. Raises OSError
    where there can be no socket.
    """

    def __init__(self, descriptor: int, write: Write = write_lines) -> None:
        self._write = write
        self._source, self._target = _make_pair()
        self._in_children = ClosedInChildren(self._close_sockets)
        #: The last one is written to; the thread closes those before it.
        self._descriptors = deque([descriptor])
        #: Locked as long as the thread runs.
        self._runs = _thread.allocate_lock()
        #: Lines that the thread is at, those it has written, and those that it could not write.
        self._current = 0
        self._written = 0
        self._lost = 0
        self._is_over = False

    def fileno(self) -> int:
        """Return what the core writes to."""
        return self._target.fileno()

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be started."""
        self._runs.acquire()
        try:
            start_writer(self._run)
        except RuntimeError:
            self._runs.release()
            raise

    def write_to(self, descriptor: int) -> None:
        """Write what has not been written to another one, which is its own from now on."""
        self._descriptors.append(descriptor)

    def close(self, most: float, quiet: float) -> int:
        """End, once the core does not write any more; returns how many lines are lost.

        What has not been written is waited for, for `most` seconds at most, and for `quiet` seconds
        in which nothing is written. A thread that is held up for longer ends when it can.
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
        if self._runs.acquire(blocking=False):  # it has ended without having seen that
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
        begun = 0  # bytes of a line of which the rest is to come
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
            get_logger().warning("%s", describe_lost_lines(lost, "nobody read it"))


def _make_pair() -> tuple[socket.socket, socket.socket]:
    """Return what is read from and what is written to, which keeps messages apart if it can."""
    try:
        source, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:  # macOS has none
        source, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    target.setblocking(False)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return source, target
