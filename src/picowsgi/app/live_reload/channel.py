"""The connections of open pages, which wait for the next version of the application.

No serving thread waits for these connections: one separate thread of the process does. Never sends
a page anything but the version.
"""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 6455 section 1.3
_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _GOING_AWAY = 0x81, b"\x88\x02\x03\xe9"


class Channel:
    """Keeps the pages of one process informed about the version that the process serves.

    When the descriptor `end` is readable, or at its end, another process serves the next version.
    The channel owns the descriptor.
    """

    def __init__(self, version: str, end: int = -1) -> None:
        #: A text that no other version of the application has.
        self.version = version
        self._end = end
        #: Guards the start of the thread, which the first page needs.
        self._lock = threading.Lock()
        #: Wakes the thread; None: it has not been started.
        self._alarm: socket.socket | None = None
        #: New connections with their keys, for the thread. It alone uses the connections.
        self._new: deque[tuple[socket.socket, str]] = deque()
        self._pages: dict[int, socket.socket] = {}
        #: How often all connections are to be closed, and how often that has been done.
        self._closings = self._closed = 0
        #: No connection stays open any more.
        self._is_over = False

    def connect(self, detach: Callable[[], tuple[socket.socket, bytes]], key: str) -> None:
        """Take the connection of a WebSocket request, whose `Sec-WebSocket-Key` is `key`."""
        page, _ = detach()
        page.setblocking(False)
        self._new.append((page, key))
        with self._lock:
            if self._alarm is None:
                heard, self._alarm = socket.socketpair()
                for one in (heard, self._alarm):
                    one.setblocking(False)
                threading.Thread(
                    target=self._run, args=(heard,), name="picowsgi-live-reload", daemon=True
                ).start()
        self._wake()

    def change(self, version: str) -> None:
        """Serve another version from now on. All pages connect again, and load themselves again."""
        self.version = version
        self.close()

    def close(self) -> None:
        """Close all connections. The pages connect again, to this process or to the next one."""
        self._closings += 1
        self._wake()

    def end(self) -> None:
        """Close all connections, also those that come later: another process serves soon."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        alarm = self._alarm
        if alarm is not None:
            with suppress(OSError):  # the socket is full, so the thread wakes up anyway
                alarm.send(b"\0")

    def _run(self, alarm: socket.socket) -> None:
        poll = select.poll()
        poll.register(alarm, select.POLLIN)
        if self._end >= 0:
            poll.register(self._end, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == alarm.fileno():
                    with suppress(OSError):
                        alarm.recv(4096)
                elif number == self._end:
                    self._is_over = True
                    poll.unregister(number)
                else:  # a page sends nothing but the end of the connection
                    poll.unregister(number)
                    _end(self._pages.pop(number))
            closings = self._closings  # before the version: a page of the last one is closed next
            while self._new:
                page, key = self._new.popleft()
                self._pages[page.fileno()] = page
                self._greet(page, key)
                poll.register(page, select.POLLIN)
            if self._is_over or closings != self._closed:
                self._closed = closings
                for page in self._pages.values():
                    poll.unregister(page)
                    _end(page)
                self._pages.clear()

    def _greet(self, page: socket.socket, key: str) -> None:
        version = self.version.encode("ascii")
        with suppress(OSError):  # the poll reports a client that has gone
            page.send(_accept(key) + bytes([_TEXT, len(version)]) + version)


def _accept(key: str) -> bytes:
    """Return the head of the response (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(f"{key}{_WEBSOCKET}".encode("latin-1"), usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def _end(page: socket.socket) -> None:
    """End a connection, also if a child process of the application has it too."""
    with suppress(OSError):
        page.send(_GOING_AWAY)
    with suppress(OSError):
        page.shutdown(socket.SHUT_RDWR)
    page.close()
