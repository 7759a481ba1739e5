"""Decides whether live reload is on. Never adds anything to a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from picowsgi.errors import ConfigError
from picowsgi.system.terminal import is_terminal

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings


def check(settings: Settings) -> None:
    """Raise ConfigError if the caller asks for live reload in a server that does not reload."""
    is_wanted = settings.live_reload == "on" and settings.is_from_caller("live_reload")
    if is_wanted and not settings.reload:
        raise ConfigError(
            f"{settings.sources['live_reload']}: a page loads itself again after a reload of the "
            "application; use --reload too"
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
