"""Decides whether live reload is on. Never adds anything to a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from picowsgi.errors import ConfigError
from picowsgi.system.terminal import is_terminal

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings


def check(settings: Settings) -> None:
    """Raise ConfigError if live reload is asked for in a server that does not reload.

    In the environment and in a file, the value may be for other commands.
    """
    origin = settings.sources.get("live_reload", "")
    is_for_this = origin in ("--live-reload", "option live_reload")
    if settings.live_reload == "on" and is_for_this and not settings.reload:
        raise ConfigError(
            f"{origin}: a page loads itself again after a reload of the application; "
            "use --reload too"
        )


def is_on(settings: Settings, *, developing: bool | None = None) -> bool:
    """Return whether pages get the script.

    With `auto` that is so if a developer sees the output of the server. `developing`: another
    reloader restarts this process, and tracebacks are shown or not; None: the settings say both.
    """
    if developing is None:
        if not settings.reload:
            return False
        developing = settings.debug
    if settings.live_reload == "auto":
        return developing and (is_terminal(sys.stdout) or is_terminal(sys.stderr))
    return settings.live_reload == "on"
