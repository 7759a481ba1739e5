"""Checks whether a stream is a terminal, with colours and Ctrl-C. Never chooses a colour."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

#: Seconds for open requests after Ctrl-C: a developer does not wait longer for requests that hang.
DEVELOPER_GRACE = 2.0
#: Seconds: the terminal and a parent program may both send one Ctrl-C.
SAME_INTERRUPT = 0.1


def is_terminal(stream: Any) -> bool:
    """Return whether a file object such as `sys.stderr` writes to a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # there is no stream, or it is closed
        return False


def is_foreground() -> bool:
    """Return whether this process is in the foreground of a terminal, so that Ctrl-C reaches it."""
    for descriptor in range(3):  # mostly one of these is the terminal, and it needs no new one
        with suppress(OSError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


def describe_wait(requests: int) -> str:
    """Return the message of a server that has been asked to stop, and waits for requests."""
    text = "1 request" if requests == 1 else f"{requests} requests"
    again = " (Ctrl-C again to stop now)" if is_foreground() else ""
    return f"shutting down, waiting for {text}{again}"


def wants_colour(*, in_terminal: bool, standard: bool = True) -> bool:
    """Return whether to use colours in an output: in a terminal that can show them.

    `NO_COLOR` (https://no-color.org) turns all colours off. `FORCE_COLOR` turns them on for
    `standard` output and error, whose reader may be a program that shows colours, but not for
    files.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if standard and os.environ.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return in_terminal and os.environ.get("TERM") != "dumb"
