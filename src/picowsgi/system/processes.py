"""Checks other processes of this machine. Never sends a process a real signal."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Return whether there is a process with this number."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, as another user
    return True
