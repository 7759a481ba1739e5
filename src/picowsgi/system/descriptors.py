"""Descriptors: the three standard ones, and the limit that a server needs for its connections.

Never closes or counts the descriptors of connections. A server without a free one waits for one.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress

from picowsgi.log import get_logger

# The descriptors for files of the application and for content in temporary files: one for every
# _SHARE connections, and at least _LEAST.
_SHARE = 4
_LEAST = 64
_STANDARD_ERROR = 2


def occupy_standard() -> None:
    """Open /dev/null as each of the descriptors 0 to 2 that is closed.

    Otherwise a socket gets such a number, and its client receives the output of the program. Call
    this before the program opens a socket. Without /dev/null the function does nothing.
    """
    with suppress(OSError):
        while True:
            descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if descriptor > _STANDARD_ERROR:
                os.close(descriptor)
                return
            os.set_inheritable(descriptor, True)


def restore_standard_streams() -> None:
    """Make the standard streams that Python leaves out because their descriptors are closed.

    Only for a command, not for a program that embeds the server.
    """
    occupy_standard()
    with suppress(OSError):
        if sys.stdin is None:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor, for good)
        if sys.stdout is None:
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        if sys.stderr is None:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def make_room(connections: int) -> int:
    """Raise this process's soft limit of descriptors for this number of connections.

    The new limit is at most the hard limit, and never lower than the old one. Returns the number of
    connections that the limit allows. If it is smaller, the function logs a warning.
    """
    wanted = connections + max(connections // _SHARE, _LEAST)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # the system has another limit, as macOS does
        limit = soft
    room = _room_in(limit)
    if room >= connections:
        return connections
    get_logger().warning(
        "max-connections is lowered from %d to %d: a process may have %d descriptors here "
        "(ulimit -Hn), and some are for files",
        connections,
        room,
        limit,
    )
    return room


def _room_in(limit: int) -> int:
    """Return the number of connections for this many descriptors: at least half of them."""
    return max(min(limit * _SHARE // (_SHARE + 1), limit - _LEAST), limit // 2, 1)
