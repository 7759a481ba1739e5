"""Whether somebody looks on, and wants colours. Never decides which."""

from __future__ import annotations

import os
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Tell whether a file object such as `sys.stderr` writes to a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed
        return False


def wants_colour(*, in_terminal: bool, standard: bool = True) -> bool:
    """Tell whether what is written there is to have colours: in terminals that can show them.

    `NO_COLOR` (https://no-color.org) is a no to all. `FORCE_COLOR` is a yes for what goes to
    `standard` output or error, which may be shown by another program, and not for files.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if standard and os.environ.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return in_terminal and os.environ.get("TERM") != "dumb"
