"""The configuration of the Django application, and its check of INSTALLED_APPS.

Never serves: the command and the tests do.
"""

from __future__ import annotations

import os
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.management import get_commands, load_command_class
from django.utils import autoreload

from picowsgi.contrib import restarts


class PicowsgiConfig(AppConfig):
    """`picowsgi.contrib.django` in INSTALLED_APPS."""

    name = "picowsgi.contrib.django"
    label = "picowsgi"
    verbose_name = "picowsgi"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Not in ready(): if another application cannot be imported, Django does not call ready().
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
            restarts.prepare()
            autoreload.autoreload_started.connect(_prepare_reloader)

    def ready(self) -> None:
        """Register the check of the order of INSTALLED_APPS."""
        checks.register(check_order)


def _prepare_reloader(sender: Any, **_signal: Any) -> None:
    """Improve the reloader, and answer requests with the error that kept Django from starting.

    In that case Django runs its own command `runserver`, not this package's.
    """
    # Only the process that serves needs these modules.
    from picowsgi.contrib.django.reloader import improve
    from picowsgi.contrib.django.server import show_error

    improve(sender)
    try:
        autoreload.raise_last_exception()
    except Exception as error:
        show_error(error)


def _extends_ours(name: str) -> bool:
    """Return whether the command of another application is made from this package's.

    That of whitenoise.runserver_nostatic is made from the next one in INSTALLED_APPS.
    """
    command = type(load_command_class(name, "runserver"))
    return any(one.__module__.startswith(f"{PicowsgiConfig.name}.") for one in command.__mro__)


def check_order(**_options: Any) -> list[checks.CheckMessage]:
    """Return a warning if `manage.py runserver` is the command of another application."""
    used = get_commands()["runserver"]
    if used == PicowsgiConfig.name or _extends_ours(used):
        return []
    return [
        checks.Warning(
            f"manage.py runserver is the one of {used}, not picowsgi's.",
            hint=f"List {PicowsgiConfig.name!r} before {used!r} in INSTALLED_APPS.",
            id="picowsgi.W001",
        )
    ]
