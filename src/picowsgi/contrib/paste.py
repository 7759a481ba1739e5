"""The server for PasteDeploy: `use = egg:picowsgi#main` in the section `[server:main]`.

Never loads an application: `pserve` or another program has loaded it from the same file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from picowsgi.config.load import load_settings
from picowsgi.config.server_section import make_section
from picowsgi.config.settings import OPTIONS
from picowsgi.errors import ConfigError
from picowsgi.server import serve_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIApplication


def serve_paste(
    application: WSGIApplication, global_conf: Mapping[str, str] | None, **options: str
) -> None:
    """Serve an application until SIGINT or SIGTERM: a `paste.server_runner` for PasteDeploy.

    The section has every option of the command, and `listen`, `unix_socket` and
    `unix_socket_perms` as for waitress. The environment wins over the section, and the section over
    `pyproject.toml`.

    Args:
        application: a WSGI application.
        global_conf: the values of `[DEFAULT]`, with the path of the file as `__file__`.
        **options: the options of the section.

    Raises:
        ConfigError: an option is unknown, or has a wrong value.
        BindError: the server cannot listen on an address.
        PatchedError: gevent or eventlet has patched `threading`, `socket` or `select`.
        RuntimeError: the server has stopped because of an error, which is in the log.
    """
    file = (global_conf or {}).get("__file__", "the file")
    section = make_section(options, file)
    for name in section.options:
        if name in OPTIONS and OPTIONS[name].command_only:
            raise ConfigError(f"{name} in {section.title}: only the command picowsgi has it")
    settings = load_settings(section=section)
    if settings.reload:
        raise ConfigError(
            f"{settings.sources['reload']}: the application is loaded already; "
            "use pserve --reload, or picowsgi --reload FILE.ini"
        )
    serve_with(application, settings)
