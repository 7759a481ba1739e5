"""An application is loaded by its name, and a failure has a clear message."""

from __future__ import annotations

import itertools
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from picowsgi.app.importer import load_application
from picowsgi.errors import AppImportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"app"]
"""

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; afterwards the modules and paths of the test are removed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(directory: Path, source: str, name: str = "") -> str:
    """Write a module, by default with a new name, and return its name."""
    name = name or f"served{next(_numbers)}"
    path = directory / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(source))
    return name


def call(spec: str) -> bytes:
    return b"".join(load_application(spec)({}, lambda *args: lambda data: None))


def refusal(spec: str) -> AppImportError:
    with pytest.raises(AppImportError) as caught:
        load_application(spec)
    return caught.value


# Valid applications


def test_a_module_and_an_attribute_are_imported(directory: Path) -> None:
    assert call(f"{write(directory, APP)}:app") == b"app"


@pytest.mark.parametrize("name", ["application", "app"])
def test_without_an_attribute_the_usual_names_are_tried(directory: Path, name: str) -> None:
    assert call(write(directory, APP.replace("def app", f"def {name}"))) == b"app"


def test_application_comes_before_app(directory: Path) -> None:
    source = APP + "\ndef application(environ, start_response):\n    return [b'application']\n"
    assert call(write(directory, source)) == b"application"


def test_an_attribute_may_have_dots(directory: Path) -> None:
    source = APP + "\nclass Holder:\n    class inner:\n        served = staticmethod(app)\n"
    assert call(f"{write(directory, source)}:Holder.inner.served") == b"app"


def test_a_factory_is_called(directory: Path) -> None:
    source = APP + "\ndef create_app(debug=False):\n    return app\n"
    assert call(f"{write(directory, source)}:create_app()") == b"app"


def test_a_module_in_a_package_is_imported(directory: Path) -> None:
    package = f"package{next(_numbers)}"
    write(directory / package, "", "__init__")
    write(directory / package, "from .other import app", "served")
    write(directory / package, APP, "other")
    assert call(f"{package}.served:app") == b"app"


@pytest.mark.parametrize(
    "source",
    [
        (
            "class app:\n    def __init__(self, environ, start_response): pass\n"
            "    def __iter__(self): return iter([b'app'])"
        ),
        "class App:\n    def __call__(self, environ, start_response): return [b'app']\napp = App()",
        "def app(environ, start_response): yield b'app'",
        "def app(*args): return [b'app']",
        "app = lambda environ, start_response, more=None: [b'app']",
        (
            "import functools\n"
            "def full(prefix, environ, start_response): return [b'app']\n"
            "app = functools.partial(full, '')"
        ),
        # A decorator that makes an application of a function with another signature.
        (
            "import functools\n"
            "def responder(view):\n"
            "    @functools.wraps(view)\n"
            "    def wrapper(*args): return [view(args[0])]\n"
            "    return wrapper\n"
            "@responder\n"
            "def app(request): return b'app'"
        ),
    ],
    ids=["class", "instance", "generator", "varargs", "lambda", "partial", "decorated"],
)
def test_every_kind_of_callable_is_an_application(directory: Path, source: str) -> None:
    assert call(f"{write(directory, source)}:app") == b"app"


def test_the_current_directory_is_first_on_the_path_and_only_once(directory: Path) -> None:
    sys.path.append(str(directory))
    for _ in range(2):
        load_application(write(directory, APP))
    assert sys.path[0] == str(directory)
    assert sys.path.count(str(directory)) == 1


# Files


@pytest.mark.parametrize("suffix", ["", ":app"])
def test_a_file_in_another_directory_is_imported(directory: Path, suffix: str) -> None:
    name = write(directory / "below", "from sibling_of_served import app", f"s{next(_numbers)}")
    write(directory / "below", APP, "sibling_of_served")
    assert call(f"below/{name}.py{suffix}") == b"app"
    assert call(f"{directory}/below/{name}.py{suffix}") == b"app"
    assert sys.modules[name].__file__ == str(directory / "below" / f"{name}.py")


def test_a_file_whose_name_is_no_identifier_is_imported(directory: Path) -> None:
    write(directory, APP, "my-app.v2")
    assert call("my-app.v2.py:app") == b"app"


def test_a_file_may_have_the_name_of_a_loaded_module(directory: Path) -> None:
    import json

    write(directory, APP, "json")
    assert call("json.py:app") == b"app"
    assert sys.modules["json"] is json


def test_a_file_in_a_package_keeps_its_package(directory: Path) -> None:
    package = f"package{next(_numbers)}"
    write(directory / "src" / package, "", "__init__")
    write(directory / "src" / package, "from .other import app", "served")
    write(directory / "src" / package, APP, "other")
    assert call(f"src/{package}/served.py") == b"app"


def test_a_file_that_is_loaded_twice_runs_once(directory: Path) -> None:
    name = write(directory, APP)
    assert load_application(f"{name}.py") is load_application(f"{name}:app")


def test_the_error_for_a_missing_file_suggests_a_similar_one(directory: Path) -> None:
    write(directory, APP, "served")
    error = refusal("servde.py")
    assert str(error) == f"there is no file 'servde.py' in {directory}; did you mean served.py?"
    assert str(refusal("zzz/x.py")) == f"there is no file 'x.py' in {directory}/zzz"


def test_a_directory_is_no_file(directory: Path) -> None:
    (directory / "d.py").mkdir()
    assert str(refusal("d.py")) == "d.py is not a file"
    assert str(refusal("./d.py/")) == "./d.py/ is a directory; name the .py file in it"


def test_an_error_in_a_file_keeps_its_traceback_and_leaves_no_module(directory: Path) -> None:
    name = write(directory, "1 / 0")
    error = refusal(f"{name}.py")
    assert error.application_traceback.startswith("Traceback (most recent call last):\n")
    assert f'{name}.py", line 1, in <module>' in error.application_traceback
    assert name not in sys.modules


# Missing modules


def test_the_error_for_a_missing_module_suggests_a_similar_one(directory: Path) -> None:
    write(directory, APP, "served_app")
    error = refusal("servd_app:app")
    assert str(error) == (
        f"there is no module 'servd_app' in {directory} or where Python looks; "
        "did you mean served_app?"
    )
    assert error.application_traceback == ""


def test_the_error_for_a_missing_module_in_a_package_suggests_a_similar_one(
    directory: Path,
) -> None:
    package = f"package{next(_numbers)}"
    write(directory / package, "", "__init__")
    write(directory / package, APP, "served")
    assert str(refusal(f"{package}.servd:app")) == (
        f"there is no module 'servd' in the package '{package}'; did you mean served?"
    )


def test_the_error_for_a_module_inside_a_module_that_is_no_package_says_so(directory: Path) -> None:
    name = write(directory, APP)
    assert str(refusal(f"{name}.app")) == (
        f"there is no module '{name}.app': '{name}' is not a package; "
        f"an attribute of it is written {name}:app"
    )


@pytest.mark.parametrize("spec", ["", ":app", ".app", "a..b:app"])
def test_an_invalid_module_name_is_refused(spec: str) -> None:
    assert "is not the name of a module; APP is MODULE:ATTRIBUTE" in str(refusal(spec))


def test_a_path_that_is_no_python_file_is_refused(directory: Path) -> None:
    assert str(refusal("some/thing:app")).startswith("some/thing is neither a module nor a .py")
    (directory / "d").mkdir()
    assert str(refusal("./d")) == "./d is a directory; name the .py file in it"


# Errors of the application itself


def test_a_module_with_a_missing_import_keeps_its_traceback(directory: Path) -> None:
    name = write(directory, "import no_such_module_at_all")
    error = refusal(f"{name}:app")
    assert str(error) == (
        f"importing {name} failed with ModuleNotFoundError; its own traceback says where"
    )
    lines = error.application_traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{directory / name}.py", line 1, in <module>'
    assert lines[-1] == "ModuleNotFoundError: No module named 'no_such_module_at_all'"


def test_a_module_that_raises_keeps_its_traceback_without_our_frames(directory: Path) -> None:
    helper = write(directory, "def fail():\n    raise RuntimeError('broken')")
    name = write(directory, f"import {helper}\n{helper}.fail()")
    error = refusal(f"{name}:app")
    assert "importer.py" not in error.application_traceback
    assert "importlib" not in error.application_traceback
    assert f"{helper}.py" in error.application_traceback
    assert error.application_traceback.endswith("RuntimeError: broken\n")


def test_a_syntax_error_shows_its_line(directory: Path) -> None:
    error = refusal(f"{write(directory, 'def app(:')}:app")
    assert "failed with SyntaxError" in str(error)
    assert "def app(:" in error.application_traceback
    assert "importer.py" not in error.application_traceback


def test_a_module_that_ends_the_program_is_reported(directory: Path) -> None:
    name = write(directory, "import sys\nsys.exit('bye')")
    assert str(refusal(f"{name}:app")) == (
        f"importing {name} failed: it ended the program with SystemExit; "
        "its own traceback says where"
    )


def test_a_factory_that_raises_keeps_its_traceback(directory: Path) -> None:
    name = write(directory, "def create_app():\n    raise KeyError('SECRET_KEY')")
    error = refusal(f"{name}:create_app()")
    assert str(error) == (f"{name}:create_app() failed with KeyError; its own traceback says where")
    assert "in create_app" in error.application_traceback
    assert "importer.py" not in error.application_traceback


@pytest.mark.parametrize("kind", ["ValueError", "AttributeError"])
def test_an_attribute_that_raises_keeps_its_traceback(directory: Path, kind: str) -> None:
    source = (
        f"class Holder:\n    @property\n    def app(self): raise {kind}('x')\nholder = Holder()"
    )
    name = write(directory, source)
    error = refusal(f"{name}:holder.app")
    assert f"getting {name}:holder.app failed with {kind}" in str(error)
    assert "in app" in error.application_traceback


# Attributes


def test_the_error_for_a_missing_attribute_suggests_a_similar_one(directory: Path) -> None:
    name = write(directory, APP)
    assert str(refusal(f"{name}:ap")) == f"{name} has no attribute 'ap'; did you mean {name}:app?"


def test_the_error_for_a_missing_attribute_lists_possible_applications(directory: Path) -> None:
    source = """
        from json import dumps
        from wsgiref.util import shift_path_info, application_uri

        def serve_all(environ, start_response): ...
        def make_app(): ...
        def helper(one): ...
        class Wrapper:
            def __call__(self, environ, start_response): ...
        wrapped = Wrapper()
        _private = serve_all
        number = 7
    """
    name = write(directory, source)
    candidates = f"; did you mean {name}:serve_all or {name}:make_app() or {name}:wrapped?"
    assert str(refusal(f"{name}:zzz")) == f"{name} has no attribute 'zzz'{candidates}"
    assert str(refusal(name)) == f"{name} has neither 'application' nor 'app'{candidates}"


def test_a_module_without_a_possible_application_is_reported(directory: Path) -> None:
    name = write(directory, "number = 7")
    assert str(refusal(name)) == (
        f"{name} has neither 'application' nor 'app'; name the attribute after a colon"
    )
    assert str(refusal(f"{name}:zzz")) == f"{name} has no attribute 'zzz'"


def test_a_missing_attribute_after_a_dot_is_reported(directory: Path) -> None:
    name = write(directory, "class Holder: pass")
    assert str(refusal(f"{name}:Holder.app")) == f"{name}:Holder has no attribute 'app'"


def test_a_similar_factory_is_suggested_with_its_parentheses(directory: Path) -> None:
    name = write(directory, "def create_app(): ...")
    assert str(refusal(f"{name}:creat_app")) == (
        f"{name} has no attribute 'creat_app'; did you mean {name}:create_app()?"
    )


@pytest.mark.parametrize("attribute", ["1", "a b", "a.", ".a", "a-b", "a:b"])
def test_an_invalid_attribute_name_is_refused(directory: Path, attribute: str) -> None:
    name = write(directory, APP)
    assert f"{attribute!r} is not the name of an attribute" in str(refusal(f"{name}:{attribute}"))


@pytest.mark.parametrize("attribute", ["create_app(", "a()()", "a() + 1", "a()b"])
def test_a_call_that_cannot_be_read_is_refused(directory: Path, attribute: str) -> None:
    assert str(refusal(f"{write(directory, APP)}:{attribute}")) == (
        f"cannot use {attribute!r}: a factory is called as NAME() or NAME('text', debug=True)"
    )


@pytest.mark.parametrize("argument", ["open('x')", "name", "f'{name}'", "*[1]", "[name]"])
def test_an_argument_of_a_factory_that_is_no_literal_is_refused(
    directory: Path, argument: str
) -> None:
    name = write(directory, "name = 1\ndef create_app(one): raise AssertionError")
    assert str(refusal(f"{name}:create_app({argument})")).startswith(f"cannot use {argument} in ")


def test_arguments_that_a_factory_does_not_take_are_refused(directory: Path) -> None:
    name = write(directory, "def create_app(mode, debug=False): ...")
    assert str(refusal(f"{name}:create_app('dev', colour=1)")) == (
        f"{name}:create_app('dev', colour=1) does not fit the signature (mode, debug=False): "
        "got an unexpected keyword argument 'colour'"
    )
    assert "debug is given twice" in str(refusal(f"{name}:create_app(debug=1, debug=2)"))
    assert "cannot use **" in str(refusal(f"{name}:create_app(**{{}})"))


def test_a_factory_gets_literal_arguments(directory: Path) -> None:
    source = """
        def create_app(*args, **kwargs):
            def app(environ, start_response):
                start_response("200 OK", [])
                return [repr((args, kwargs)).encode()]
            return app
    """
    name = write(directory, source)
    text = "'a:b', -1, [None, {'x': (1.5,)}], debug=True"
    expected = b"(('a:b', -1, [None, {'x': (1.5,)}]), {'debug': True})"
    assert call(f"{name}:create_app({text})") == expected
    assert call(f"{name}.py:create_app({text})") == expected


def test_with_factory_the_attribute_is_called(directory: Path) -> None:
    name = write(directory, f"{APP}\ndef make():\n    return app\ndef make_app(): return app")
    for spec in (name, f"{name}:make", f"{name}:make()", f"{name}.py"):
        load_application(spec, factory=True)
    with pytest.raises(AppImportError, match="neither 'create_app' nor 'make_app'"):
        load_application(write(directory, APP), factory=True)


# Files of other names


def test_a_wsgi_script_is_loaded_beside_a_module_of_its_name(directory: Path) -> None:
    write(directory, APP, "deploy/beside")
    script = directory / "deploy" / "beside.wsgi"
    script.write_text("from beside import app as application\n")
    assert call("deploy/beside.wsgi") == b"app"
    script.write_text("def application(environ, start_response):\n    return [b'2']\n")
    assert not list(directory.glob("deploy/__pycache__/*wsgi*"))


def test_a_module_named_wsgi_is_no_script_unless_there_is_one(directory: Path) -> None:
    write(directory, APP, "project7/wsgi")
    assert call("project7.wsgi:app") == call("project7.wsgi") == b"app"
    (directory / "project7.wsgi").write_text(APP.replace('b"app"', 'b"script"'))
    assert call("project7.wsgi:app") == call("project7.wsgi") == b"script"
    assert "there is no file 'absent.wsgi' in " in str(refusal("./absent.wsgi"))


def test_a_wsgi_script_does_not_hide_the_module_of_its_name(directory: Path) -> None:
    script = directory / "colorsys.wsgi"
    script.write_text(f"import colorsys\nassert colorsys.rgb_to_hsv\n{APP}")
    assert call("colorsys.wsgi:app") == b"app"
    script.write_text("raise KeyError('here')")
    sys.modules.pop("picowsgi_application_colorsys_wsgi")
    error = refusal(str(script))
    assert f'File "{script.resolve()}", line 1' in error.application_traceback


@pytest.mark.parametrize(
    "path", ["my-app.py", "v1.2/my.app.py", "bin/serve", "deep er/site-1.wsgi", "a:b/c.py"]
)
def test_an_application_is_loaded_from_any_path(directory: Path, path: str) -> None:
    file = directory / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"import helper_{len(path)}\n{APP}")
    write(file.parent, "", f"helper_{len(path)}")
    assert call(f"{path}:app") == b"app"
    assert call(str(file)) == b"app"


# Objects that are no application


@pytest.mark.parametrize(
    ("source", "what"),
    [("app = {}", "a dict"), ("app = 7", "an int"), ("app = None", "None")],
)
def test_an_object_that_cannot_be_called_is_refused(
    directory: Path, source: str, what: str
) -> None:
    name = write(directory, source)
    assert str(refusal(f"{name}:app")) == (
        f"{name}:app is {what}, which cannot be called; name a WSGI application"
    )


def test_a_module_is_not_an_application(directory: Path) -> None:
    name = write(directory, "import json as app")
    assert str(refusal(f"{name}:app")) == (
        f"{name}:app is a module, not an application; name an attribute of it"
    )


@pytest.mark.parametrize("parameters", ["", "config=None"])
def test_a_factory_without_its_parentheses_is_reported(directory: Path, parameters: str) -> None:
    name = write(directory, f"def create_app({parameters}): ...")
    assert str(refusal(f"{name}:create_app")) == (
        f"{name}:create_app takes no arguments; did you mean {name}:create_app()?"
    )


def test_a_callable_with_other_arguments_is_refused(directory: Path) -> None:
    name = write(directory, "def app(request): ...")
    assert str(refusal(f"{name}:app")) == (
        f"{name}:app takes other arguments (request) than environ and start_response"
    )


@pytest.mark.parametrize(
    "source",
    [
        "async def app(scope, receive, send): ...",
        "async def app(environ, start_response): ...",
        "class App:\n    async def __call__(self, scope, receive, send): ...\napp = App()",
    ],
)
def test_an_asynchronous_application_is_refused(directory: Path, source: str) -> None:
    name = write(directory, source)
    assert str(refusal(f"{name}:app")) == (
        f"{name}:app is asynchronous (ASGI?); picowsgi serves WSGI applications"
    )


def test_a_factory_that_needs_arguments_is_refused(directory: Path) -> None:
    name = write(directory, "def create_app(config, mode, *rest, debug=False): ...")
    assert str(refusal(f"{name}:create_app()")) == (
        f"{name}:create_app() needs arguments (config, mode); write them between the brackets"
    )


def test_parentheses_after_an_object_that_cannot_be_called_are_refused(directory: Path) -> None:
    name = write(directory, "app = 7")
    assert str(refusal(f"{name}:app()")) == (
        f"{name}:app cannot be called: it is an int, so leave the () away"
    )


def test_a_factory_that_returns_nothing_is_reported(directory: Path) -> None:
    name = write(directory, "def create_app(): pass")
    assert str(refusal(f"{name}:create_app()")) == (
        f"{name}:create_app() returned None, not a WSGI application; "
        "is its return statement missing?"
    )


def test_a_factory_that_returns_another_object_is_reported(directory: Path) -> None:
    name = write(directory, "def create_app(): return 'app'")
    assert str(refusal(f"{name}:create_app()")) == (
        f"{name}:create_app() returned a str, not a WSGI application"
    )


def test_a_factory_that_returns_a_factory_is_reported(directory: Path) -> None:
    name = write(directory, "def create_app(): return lambda: None")
    assert str(refusal(f"{name}:create_app()")) == (
        f"{name}:create_app() takes other arguments (none) than environ and start_response"
    )


def test_an_asynchronous_factory_is_refused(directory: Path) -> None:
    name = write(directory, "async def create_app(): ...")
    assert "() is a coroutine function" in str(refusal(f"{name}:create_app()"))


def test_a_message_is_one_or_two_lines(directory: Path) -> None:
    name = write(directory, APP)
    for spec in ("", "zzz", f"{name}:zzz", f"{name}:1", "zzz.py", f"{name}.zzz"):
        assert str(refusal(spec)).count("\n") <= 1
