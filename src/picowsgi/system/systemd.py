"""The sockets from systemd, and the messages to it: sd_listen_fds(3), sd_notify(3).

Never needs systemd: without its variables this module does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from picowsgi.errors import BindError
from picowsgi.log import get_logger
from picowsgi.system.sockets import Bind, open_bind

_FIRST_DESCRIPTOR = 3
_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_sockets(environ: MutableMapping[str, str], backlog: int) -> list[socket.socket]:
    """Return the listening sockets that systemd has passed to this process.

    The function removes the variables from `environ`, so that no child uses them. Raises BindError
    if a descriptor is no listening socket and cannot become one.
    """
    pid, count, names = (environ.pop(name, "") for name in _LISTEN)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets: list[socket.socket] = []
    labels = names.split(":")
    for number in range(int(count)):
        label = labels[number] if number < len(labels) else "unknown"
        try:
            bind = Bind("fd", fd=_FIRST_DESCRIPTOR + number)
            sockets.append(open_bind(bind, backlog, sockets))
        except BindError as error:
            raise BindError(f"{error} (LISTEN_FDNAMES calls it {label})", error.errno) from None
    return sockets


class Notifier:
    """Reports the state of the service to the service manager, if there is one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        if address[:1] not in ("/", "@"):
            address = ""
        self._address = "\0" + address[1:] if address[:1] == "@" else address
        #: The seconds between two heartbeats for the manager's watchdog; 0: none.
        self.interval = 0.0
        if self._address and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            microseconds = environ.get("WATCHDOG_USEC", "")
            if microseconds.isdecimal():
                self.interval = int(microseconds) / 2_000_000
        self._pinged = float("-inf")

    def disable(self) -> None:
        """Send no more messages, because another process does."""
        self._address = ""
        self.interval = 0.0

    def ready(self) -> None:
        """Report that the service has started, or that its reload is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that a reload has begun."""
        # The manager compares the time with its own clock (Type=notify-reload).
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the service ends."""
        self._send("STOPPING=1")

    def succeeded_by(self, pid: int) -> None:
        """Report that another process is the service from now on."""
        self._send(f"MAINPID={pid}\nREADY=1")

    def ping(self, now: float) -> None:
        """Send a heartbeat if one is due; `now` is a time of `time.monotonic`."""
        if self.interval and now - self._pinged >= self.interval:
            self._pinged = now
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            get_logger().debug("cannot notify the service manager: %s", error)
