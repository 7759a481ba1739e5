"""Descriptors: the standard ones, and as many as the connections of a server need.

Never closes or counts one: a server that has none left waits until one is free.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress

from picowsgi.log import get_logger

# What is left for the application's files and for content in temporary files: one for every so many
# connections, and not less than this.
_SHARE = 4
_LEAST = 64
_STANDARD_ERROR = 2


def occupy_standard() -> None:
    """Open /dev/null as each of the descriptors 0 to 2 that is closed.

    Otherwise a socket gets such a number, and its client receives what the program prints. To be
    called before anything opens a socket. Without /dev/null it does nothing.
    """
    with suppress(OSError):
        while True:
            descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if descriptor > _STANDARD_ERROR:
                os.close(descriptor)
                return
            os.set_inheritable(descriptor, True)


def restore_standard_streams() -> None:
    """Give a program of our own the streams that Python leaves out where descriptors are closed."""
    occupy_standard()
    with suppress(OSError):
        if sys.stdin is None:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor, for good)
        if sys.stdout is None:
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        if sys.stderr is None:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def make_room(connections: int) -> int:
    """Raise this process's soft limit of descriptors to what so many connections need.

    It is not raised above the hard limit, and never lowered. Returns for how many connections that
    is enough; where they are fewer, the log says so.
    """
    wanted = connections + max(connections // _SHARE, _LEAST)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # the system has another limit, such as macOS
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
    """Return how many connections so many descriptors are for; half of them where they are few."""
    return max(min(limit * _SHARE // (_SHARE + 1), limit - _LEAST), limit // 2, 1)
