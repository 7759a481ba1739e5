"""The pollers of this build of the core.

Never decides which of them a server takes: that is the core's choice.
"""

from __future__ import annotations

from itertools import count, takewhile
from typing import TYPE_CHECKING

from picowsgi._core import ffi, lib
from picowsgi.errors import ConfigError

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings


def _read_pollers() -> tuple[str, ...]:
    names = takewhile(lambda name: name != ffi.NULL, map(lib.pw_poller_name, count()))
    return tuple(ffi.string(name).decode("ascii") for name in names)


#: The pollers of this build that `--poller` may name; the best one is first.
POLLERS = _read_pollers()


def check_poller(settings: Settings) -> None:
    """Raise ConfigError if this build does not have the poller of the settings."""
    if settings.poller not in ("auto", *POLLERS):
        origin = settings.sources.get("poller", "option poller")
        raise ConfigError(
            f"{origin}: expected a poller of this build, which has auto, {', '.join(POLLERS)}, "
            f"got {settings.poller!r}"
        )
