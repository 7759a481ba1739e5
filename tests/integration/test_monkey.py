"""All commands of picowsgi refuse the monkey-patching of gevent and eventlet at the start."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest

from picowsgi import Server
from picowsgi.errors import AppImportError, PatchedError
from picowsgi.system import monkey
from support import exchange, outer_environ

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore')\n"
    "import eventlet; eventlet.monkey_patch()",
}
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""


IMPORTS = """
import plain, picowsgi, socketserver
from picowsgi.errors import PatchedError
from picowsgi.simple_server import WSGIServer, make_server
class Threaded(socketserver.ThreadingMixIn, WSGIServer): pass
"""


@pytest.fixture(params=PATCH)
def library(request, tmp_path):
    """The name of an installed library. app.py patches when it is imported, plain.py does not."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}: pip install {request.param}")
    (tmp_path / "app.py").write_text(f"{PATCH[request.param]}\n{APP}")
    (tmp_path / "plain.py").write_text(APP)
    return request.param


@pytest.fixture
def end(tmp_path):
    """`end(*arguments)` runs Python until it exits, which has to happen at once."""

    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**outer_environ(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def assert_refused(ended, library, status=1):
    assert ended.returncode == status, ended.stderr
    said = f"{library} has monkey-patched select, socket, threading in this process"
    assert ended.stderr.count(said) == 1, ended.stderr
    assert "--threads" in ended.stderr
    assert f"a server that works with {library}: " in ended.stderr
    assert "/picowsgi/" not in ended.stderr, "expected no traceback except one of eventlet"


@pytest.mark.parametrize(
    "options", ["", "--workers 2", "--workers 2 --preload", "--threads 1", "--check"]
)
def test_the_command_ends_when_its_application_patches(end, library, options):
    command = ["-m", "picowsgi", "--port", "0", *options.split(), "app:app"]
    assert_refused(end(*command), library)


def test_the_command_ends_before_the_import_when_all_is_patched_already(end, library, tmp_path):
    (tmp_path / "plain.py").write_text("raise SystemExit('imported')\n")
    start = (
        "import sys\nfrom picowsgi.cli.main import main\n"
        "sys.exit(main(['--port', '0', 'plain:app']))"
    )
    assert_refused(end("-c", f"{PATCH[library]}\n{start}"), library)


@pytest.mark.parametrize(
    "start",
    [
        "picowsgi.serve(plain.app, port=0)",
        "picowsgi.serve(plain.app, port=0, workers=2)",
        "picowsgi.Server(plain.app, port=0)",
        "make_server('127.0.0.1', 0, plain.app)",
        "make_server('127.0.0.1', 0, plain.app, Threaded)",
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["patched first", "imported first"])
def test_a_program_gets_an_error(end, library, start, first):
    patch = PATCH[library]
    code = f"{patch}\n{IMPORTS}" if first else f"{IMPORTS}\n{patch}"
    code += f"\ntry:\n    {start}\nexcept PatchedError as error:\n    raise SystemExit(str(error))"
    assert_refused(end("-c", code), library)


def test_gunicorn_ends_when_the_application_patches(end, library):
    worker = ("--worker-class", "picowsgi.contrib.gunicorn.Worker")
    command = ["-m", "gunicorn", *worker, "--bind", "127.0.0.1:0", "app:app"]
    assert_refused(end(*command, "--no-control-socket"), library, status=4)


def test_flask_ends_when_the_application_patches(end, library, tmp_path):
    (tmp_path / "site_.py").write_text(
        f"{PATCH[library]}\nimport flask\napp = flask.Flask('site_')\n"
    )
    assert_refused(end("-m", "flask", "--app", "site_", "picowsgi", "--port", "0"), library)


def test_django_ends_when_the_project_patches(end, library, tmp_path):
    (tmp_path / "settings.py").write_text(
        "SECRET_KEY = 'x'\nDEBUG = True\nROOT_URLCONF = 'urls'\n"
        "INSTALLED_APPS = ['picowsgi.contrib.django']\n"
    )
    (tmp_path / "urls.py").write_text("urlpatterns = []\n")
    manage = (  # where projects patch: in the settings it would wait for itself
        f"{PATCH[library]}\nfrom django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'runserver', '--noreload', '127.0.0.1:0'])"
    )
    ended = end("-c", manage, DJANGO_SETTINGS_MODULE="settings", PYTHONPATH=str(tmp_path))
    assert_refused(ended, library)


def test_a_cgi_script_may_patch(end, library):
    ended = end("-c", "import app, picowsgi.cgi; picowsgi.cgi.run(app.app)")
    assert ended.stdout.startswith("Status: 200 OK\n")
    assert ended.stdout.endswith("served")


def test_an_application_that_imports_the_library_and_patches_only_time_is_served(
    command, library, tmp_path
):
    time_alone = {
        "gevent": "from gevent import monkey; monkey.patch_time()",
        "eventlet": "import eventlet; eventlet.monkey_patch(all=False, time=True)",
    }
    (tmp_path / "app.py").write_text(f"{time_alone[library]}\n{APP}")
    server = command("-W", "ignore", "-m", "picowsgi", "--port", "0", "app:app", directory=tmp_path)
    (answer,) = exchange(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.content == b"served"
    assert server.stop() == 0


# Without the libraries


@pytest.mark.parametrize(
    ("module", "function", "names"),
    [
        ("gevent.monkey", "is_module_patched", {"_thread", "threading", "socket", "select"}),
        ("eventlet.patcher", "is_monkey_patched", {"thread", "socket", "select", "os", "time"}),
    ],
)
def test_each_of_the_modules_alone_is_refused(monkeypatch, module, function, names):
    patched = set()
    library = ModuleType(module)
    setattr(library, function, patched.__contains__)
    monkeypatch.setitem(sys.modules, module, library)
    monkey.refuse_patched()
    patched |= {"time", "os", "ssl", "subprocess"}
    monkey.refuse_patched()
    for name in names - patched:
        patched.add(name)
        with pytest.raises(PatchedError, match=name.strip("_")):
            Server(lambda _environ, _start_response: [], port=0)
        patched.remove(name)
    monkey.refuse_patched()


def test_a_library_without_that_function_is_no_reason_to_refuse(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", ModuleType("gevent.monkey"))
    monkeypatch.setitem(sys.modules, "eventlet.patcher", None)
    monkey.refuse_patched()
    assert issubclass(PatchedError, AppImportError)
