"""`manage.py runserver`, on picowsgi.

Never replaces another part of the command: options, checks, messages and reload stay Django's.
"""

from __future__ import annotations

import os
from argparse import BooleanOptionalAction
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.management import find_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

from picowsgi.config.settings import OPTIONS
from picowsgi.contrib.development import keep_listener, reloaded
from picowsgi.contrib.django.server import WSGIServer, listen, serves_wsgi, show_error
from picowsgi.contrib.restarts import run_processes


def _next_runserver() -> type[BaseCommand]:
    """Return the command that Django would use without this one, such as that of staticfiles.

    The function passes over commands of ASGI servers, such as daphne's: they have another way to
    start a server.
    """
    names = [config.name for config in apps.get_app_configs()]
    for config in list(apps.get_app_configs())[names.index("picowsgi.contrib.django") + 1 :]:
        if "runserver" in find_commands(str(Path(config.path) / "management")):
            found = type(load_command_class(config.name, "runserver"))
            if serves_wsgi(found):
                return found
    return type(load_command_class("django.core", "runserver"))


def _restart_with_reloader() -> int:
    """Do the same as Django's function, but let no process wait for the end of the last one."""
    environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    return run_processes(autoreload.get_child_arguments(), environ)


class Command(_next_runserver()):  # type: ignore[misc]
    """The command that Django would use without this one, with the server of picowsgi."""

    server_cls = WSGIServer

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option of live reload to those of the command."""
        super().add_arguments(parser)
        parser.add_argument(
            "--live-reload",
            action=BooleanOptionalAction,
            default=None,
            help="Load open pages again when code or a template has changed "
            "(default: with DEBUG, in a terminal).",
        )

    def run(self, **options: Any) -> None:
        """Run the server. The reloader's first process keeps the socket for the next processes."""
        reloads = os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"
        if options.get("live_reload") is not None:
            if options["live_reload"] and not options["use_reloader"]:
                raise CommandError("--live-reload needs the reloader, which --noreload turns off")
            # Also for a process that cannot load the project, and then has Django's own command.
            variable = OPTIONS["live_reload"].variable
            os.environ[variable] = "on" if options["live_reload"] else "off"
        if options["use_reloader"] and not reloads:
            # If the address is not available, the process that serves fails too, and reports it.
            with suppress(OSError):
                self._listener = listen((self.addr, int(self.port)), ipv6=self.use_ipv6)
                keep_listener(self._listener)
            autoreload.restart_with_reloader = _restart_with_reloader
        with reloaded():
            super().run(**options)

    def inner_run(self, *arguments: Any, **options: Any) -> None:
        """Run the server in the process that serves."""
        try:
            super().inner_run(*arguments, **options)
        except Exception as error:
            show_error(error)
            raise
