"""Wraps the application as the options say: static files (WhiteNoise), a debugger (werkzeug).

Never imports one of the two without its option.
"""

from __future__ import annotations

import socket
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from picowsgi.app.live_reload import mode
from picowsgi.app.mount import read_mounts
from picowsgi.config.values import parse_static
from picowsgi.errors import ConfigError
from picowsgi.log import get_logger
from picowsgi.system.sockets import url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings


def check(settings: Settings) -> None:
    """Raise ConfigError if `mount` or `wrap` would fail with these settings."""
    read_mounts(settings.mount)
    mode.check(settings)
    for text in settings.static:
        directory = parse_static(text)[1]
        if not Path(directory).is_dir():
            raise ConfigError(f"--static: {directory} is not a directory")
    if settings.static and find_spec("whitenoise") is None:
        raise ConfigError("--static needs WhiteNoise: pip install 'picowsgi[static]'")


def warn(settings: Settings, sockets: Sequence[socket.socket]) -> None:
    """Log a warning about settings that are dangerous on these sockets."""
    open_to_others = [url_of(sock) for sock in sockets if not _is_local(sock)]
    if settings.debug and open_to_others:
        get_logger().warning(
            "--debug on %s: every client that can connect sees tracebacks and source code",
            " and ".join(open_to_others),
        )


#: The PINs that are not logged yet.
_pins: list[str | None] = []


def log_pin() -> None:
    """Log the PIN of the debugger that `wrap` has made, once."""
    while _pins:
        get_logger().info("the debugger's PIN is %s", _pins.pop())


def wrap(
    application: WSGIApplication, settings: Settings, sockets: Sequence[socket.socket]
) -> WSGIApplication:
    """Return the application, wrapped as the settings say."""
    if settings.debug and find_spec("werkzeug") is not None:
        application = _debugged(application, settings, sockets)
    if settings.static:
        application = _with_files(application, settings)
    return application


def _debugged(
    application: WSGIApplication, settings: Settings, sockets: Sequence[socket.socket]
) -> WSGIApplication:
    """Wrap the application into werkzeug's debugger.

    The debugger runs code that the user types in at a traceback. The code must reach the process of
    the traceback, so this needs a single process. No other machine may reach the debugger, even
    with its PIN.
    """
    from werkzeug.debug import DebuggedApplication

    interactive = settings.workers == 1 and all(map(_is_local, sockets))
    debugged = DebuggedApplication(application, evalex=interactive, pin_logging=False)
    if interactive:
        _pins.append(debugged.pin)
    return debugged


def _is_local(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    return ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def _with_files(application: WSGIApplication, settings: Settings) -> WSGIApplication:
    from whitenoise import WhiteNoise

    # Without autorefresh WhiteNoise reads the directories once, at the start. By default it allows
    # the pages of all other sites to read the files.
    files = WhiteNoise(
        application,
        autorefresh=settings.debug or settings.reload,
        index_file=True,
        allow_all_origins=False,
    )
    # The longest path comes last, because WhiteNoise searches the last directory first.
    for url, directory in sorted(map(parse_static, settings.static), key=lambda item: len(item[0])):
        files.add_files(directory, prefix=url)
    wrapped: WSGIApplication = files
    return wrapped
