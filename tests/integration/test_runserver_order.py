"""manage.py runserver, in projects whose other applications have a command of this name too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support import TIMEOUT
from support.development import get

MANAGE = """
import os, sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True, STATIC_URL="/static/",
    INSTALLED_APPS=os.environ["SITE_APPS"].split(), ASGI_APPLICATION="none",
)
urlpatterns = [path("", lambda request: HttpResponse("here"))]
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
#: As daphne's: another server, which is started in another way.
ASGI_COMMAND = """
from django.core.management.commands.runserver import Command as RunserverCommand

class Server:
    def __init__(self, application, endpoints):
        raise SystemExit("the ASGI server runs")

class Command(RunserverCommand):
    server_cls = Server
    def inner_run(self, *arguments, **options):
        self.server_cls(application=None, endpoints=[])
"""
OURS = "picowsgi.contrib.django"
NOSTATIC = "whitenoise.runserver_nostatic"
STATIC = "django.contrib.staticfiles"
ASGI = "asgi_server"


@pytest.fixture
def site(tmp_path):
    (tmp_path / "manage.py").write_text(MANAGE)
    commands = tmp_path / ASGI / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (tmp_path / ASGI, commands.parent, commands):
        (folder / "__init__.py").touch()
    (commands / "runserver.py").write_text(ASGI_COMMAND)
    return tmp_path


ORDERS = [
    (OURS, NOSTATIC, STATIC),
    (NOSTATIC, OURS, STATIC),
    (OURS, ASGI, STATIC),
    (OURS, STATIC, ASGI),
    (OURS, ASGI, NOSTATIC, STATIC),
    (NOSTATIC, OURS, ASGI),
]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("options", [("--noreload",), ()], ids=["noreload", "reload"])
def test_picowsgi_serves(command, site, order, options):
    pytest.importorskip("whitenoise")
    server = command(
        *("manage.py", "runserver", "0", *options),
        directory=site,
        stdout=True,
        environ={"SITE_APPS": " ".join(order)},
    )
    response, text = get(server)
    assert (response.getheader("Server"), text) == ("picowsgi", "here")
    assert "picowsgi.W001" not in server.log


def test_the_command_of_an_asgi_server_that_comes_first_is_used_and_the_check_says_so(site):
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=site,
        env={"SITE_APPS": f"{ASGI} {OURS}"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "picowsgi.W001" in done.stderr
    assert f"before {ASGI!r} in INSTALLED_APPS" in done.stderr
