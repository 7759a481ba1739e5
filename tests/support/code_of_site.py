"""A site whose code is saved while it runs under picowsgi, `flask picowsgi` or Django's runserver.

The code is a text with the application `application` and the line `VERSION = "1"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FLASK = """
from flask import Flask
import code_of_site
app = Flask(__name__)
app.wsgi_app = code_of_site.application
"""
_MANAGE = """
import sys
from django.conf import settings
settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    WSGI_APPLICATION="code_of_site.application", INSTALLED_APPS=["picowsgi.contrib.django"],
)
urlpatterns = []
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
#: The arguments of Python for each development server.
COMMANDS = {
    "picowsgi": ["-m", "picowsgi", "--reload", "--port", "0", "code_of_site"],
    "flask": ["-m", "flask", "--app", "site_of_flask", "picowsgi", "--debug", "--port", "0"],
    "django": ["manage.py", "runserver", "0"],
}


def write_site(directory: Path, code: str) -> None:
    """Write the site, with version 1 of its code."""
    (directory / "site_of_flask.py").write_text(_FLASK)
    (directory / "manage.py").write_text(_MANAGE)
    save_code(directory, code, 1)


def save_code(directory: Path, code: str, version: int) -> None:
    """Save the code as an editor does, in one step, with another version."""
    draft = directory / "draft~"
    draft.write_text(code.replace('VERSION = "1"', f'VERSION = "{version}"'))
    draft.replace(directory / "code_of_site.py")
