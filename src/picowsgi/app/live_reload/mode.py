"""Decides whether live reload is on. Never adds anything to a page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from picowsgi.errors import ConfigError
from picowsgi.system.terminal import is_terminal

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings


def check(settings: Settings) -> None:
    """Raise ConfigError if live reload is asked for without a reloader."""
    if settings.live_reload == "on" and not settings.reload:
        origin = settings.sources.get("live_reload", "option live_reload")
        raise ConfigError(
            f"{origin}: a page loads itself again after a reload of the application; "
            "use --reload too"
        )


def is_on(settings: Settings, *, developing: bool | None = None) -> bool:
    """Return whether pages get the script.

    `developing`: whether the server reloads and shows tracebacks; None: the settings say so. The
    value `auto` of the option is then on if a developer sees the output of the server.
    """
    if developing is None:
        developing = settings.reload and settings.debug
    if settings.live_reload == "auto":
        return developing and (is_terminal(sys.stdout) or is_terminal(sys.stderr))
    return settings.live_reload == "on"
