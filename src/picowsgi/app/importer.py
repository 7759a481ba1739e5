"""Imports an application by its name.

Never calls an application, and never hides an error that an application's module raises.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from picowsgi.errors import AppImportError, did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from _typeshed.wsgi import WSGIApplication

_FORM = "MODULE:ATTRIBUTE, such as app:app, or a path to a .py file"
_FILE = re.compile(r"(.+\.py)(?::(.*))?", re.DOTALL)
_ATTRIBUTE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(\(\))?")
# The names of importlib's own files begin with these texts, on CPython and on PyPy.
_IMPORTLIB = ("<frozen importlib", "<builtin>/frozen importlib")
_DEFAULT_ATTRIBUTES = ("application", "app")
_FACTORY_NAME = re.compile(r"app|wsgi|factory|create|make|build", re.IGNORECASE)
# Two arguments, as PEP 3333 calls an application, to check a signature.
_WSGI_ARGUMENTS = (None, None)


def load_application(spec: str) -> WSGIApplication:
    """Import and return the application that `spec` names.

    `spec` is `MODULE:ATTRIBUTE` or `PATH.py:ATTRIBUTE`. The attribute may have dots, and `()` at
    its end calls a factory. Without an attribute, the function tries `application` and then `app`.
    Python searches the directory of the file first, then the current directory.

    Raises AppImportError.
    """
    is_file = _FILE.fullmatch(spec)
    if is_file:
        name, attribute = is_file[1], is_file[2] or ""
    else:
        name, _, attribute = spec.partition(":")
    match = _ATTRIBUTE.fullmatch(attribute)
    if attribute and match is None:
        if "(" in attribute:
            _fail(f"cannot use {attribute!r}: a factory is called without arguments, as NAME()")
        _fail(f"{attribute!r} is not the name of an attribute; APP is {_FORM}")
    _search_first(_current_directory())
    module = _import_file(name) if is_file else _import_module(name)
    if match is None:
        return _check(_default_attribute(name, module), name)
    found = _attribute(name, module, match[1])
    if not match[2]:
        return _check(found, f"{name}:{match[1]}")
    return _check(_call_factory(found, f"{name}:{match[1]}"), f"{name}:{match[1]}()")


def load_module(name: str) -> ModuleType:
    """Import and return a module, from the current directory first. Raises AppImportError."""
    _search_first(_current_directory())
    return _import_module(name)


def _fail(message: str) -> NoReturn:
    raise AppImportError(message)


def _current_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        _fail(f"the current directory cannot be used: {error.strerror}")


def _search_first(directory: str) -> None:
    """Put the directory first on `sys.path`, and remove other entries of it."""
    sys.path[:] = [directory, *(path for path in sys.path if path not in (directory, ""))]


# Modules


def _import_module(name: str) -> ModuleType:
    if os.sep in name:
        if Path(name).is_dir():
            _fail(f"{name} is a directory; name the .py file in it")
        _fail(f"{name} is neither a module nor a .py file; APP is {_FORM}")
    if not all(name.split(".")):
        _fail(f"{name!r} is not the name of a module; APP is {_FORM}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if _application_frames(error) is None:
            _fail(_missing_module(name, error))
        _fail_with_traceback(f"importing {name} failed", error)
    except (Exception, SystemExit) as error:
        _fail_with_traceback(f"importing {name} failed", error)


def _missing_module(name: str, error: ModuleNotFoundError) -> str:
    missing = error.name or name
    parent, _, last = missing.rpartition(".")
    if not parent:
        directory = _current_directory()
        hint = did_you_mean(missing, _modules_in([directory]))
        return f"there is no module {missing!r} in {directory} or where Python looks{hint}"
    path = getattr(sys.modules.get(parent), "__path__", None)
    if path is None:
        return (
            f"there is no module {missing!r}: {parent!r} is not a package; "
            f"an attribute of it is written {parent}:{last}"
        )
    hint = did_you_mean(last, _modules_in(path))
    return f"there is no module {last!r} in the package {parent!r}{hint}"


def _modules_in(path: Iterable[str]) -> list[str]:
    return [found.name for found in pkgutil.iter_modules(list(path))]


def _import_file(name: str) -> ModuleType:
    path = Path(name)
    if not path.is_file():
        if path.exists():
            _fail(f"{name} is not a file")
        try:
            siblings = sorted(each.name for each in path.parent.glob("*.py"))
        except OSError:
            siblings = []
        where = path.parent.resolve()
        _fail(f"there is no file {path.name!r} in {where}{did_you_mean(path.name, siblings)}")
    path = path.resolve()  # Python does this with a script too
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").is_file() and root.parent != root:
        root, dotted = root.parent, f"{root.name}.{dotted}"
    _search_first(str(root))
    try:
        if root != path.parent:
            module = importlib.import_module(dotted)
            if _is_from(module, path):
                return module
        return _execute_file(path)
    except (Exception, SystemExit) as error:
        _fail_with_traceback(f"importing {name} failed", error)


def _execute_file(path: Path) -> ModuleType:
    """Import the file as the module of its name, unless another module has that name."""
    name = path.stem
    taken = sys.modules.get(name)
    if taken is not None:
        if _is_from(taken, path):
            return taken
        name = f"picowsgi_application_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        _fail(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file) == os.path.realpath(path)


# Errors of the application itself


def _application_frames(error: BaseException) -> Any:
    """Return the part of the error's traceback that begins in the application; None: no part."""
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith(_IMPORTLIB)


def _fail_with_traceback(what: str, error: BaseException) -> NoReturn:
    if isinstance(error, SystemExit):
        what = f"{what}: it ended the program"
    text = "".join(traceback.format_exception(type(error), error, _application_frames(error)))
    kind = type(error).__name__
    message = f"{what} with {kind}; its own traceback says where"
    raise AppImportError(message, application_traceback=text) from error


# Attributes


def _default_attribute(name: str, module: ModuleType) -> object:
    for attribute in _DEFAULT_ATTRIBUTES:
        found = _get(f"{name}:{attribute}", module, attribute)
        if found is not _ABSENT:
            return found
    _fail(
        f"{name} has neither 'application' nor 'app'"
        + (_candidates(name, module) or "; name the attribute after a colon")
    )


def _attribute(name: str, module: ModuleType, dotted: str) -> object:
    found: object = module
    owner = name
    for attribute in dotted.split("."):
        parent = found
        found = _get(f"{name}:{dotted}", parent, attribute)
        if found is _ABSENT:
            hint = ""
            if parent is module:
                hint = _near_attribute(name, module, dotted) or _candidates(name, module)
            _fail(f"{owner} has no attribute {attribute!r}{hint}")
        owner = f"{owner}:{attribute}" if parent is module else f"{owner}.{attribute}"
    return found


_ABSENT = object()


def _get(what: str, owner: object, attribute: str) -> object:
    try:
        found: object = getattr(owner, attribute)
    except AttributeError as error:
        if _application_frames(error) is None or not hasattr(type(owner), attribute):
            return _ABSENT
        _fail_with_traceback(f"getting {what} failed", error)
    except Exception as error:
        _fail_with_traceback(f"getting {what} failed", error)
    return found


def _near_attribute(name: str, module: ModuleType, dotted: str) -> str:
    first = dotted.partition(".")[0]
    public = [each for each in vars(module) if not each.startswith("_")]
    near = nearest(first, public)
    if not near or not callable(vars(module)[near]):
        return ""
    suffix = "()" if _is_factory(module, near) else ""
    return f"; did you mean {name}:{near}{suffix}?"


def _candidates(name: str, module: ModuleType) -> str:
    """Return `; did you mean ...?` with the attributes that look like an application."""
    found = []
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or not _is_own(module, value):
            continue
        if _is_factory(module, attribute):
            found.append(f"{name}:{attribute}()")
        elif _accepts(value, _WSGI_ARGUMENTS) and not inspect.iscoroutinefunction(value):
            found.append(f"{name}:{attribute}")
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def _is_own(module: ModuleType, value: object) -> bool:
    """Return whether the module defines the callable `value`, and does not import it."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return getattr(value, "__module__", None) == module.__name__
    return callable(value)


def _is_factory(module: ModuleType, attribute: str) -> bool:
    value = vars(module)[attribute]
    return (
        inspect.isfunction(value)
        and _FACTORY_NAME.search(attribute) is not None
        and _accepts(value, ())
        and not _accepts(value, _WSGI_ARGUMENTS)
    )


# Signatures


def _signature(value: Callable[..., object]) -> inspect.Signature | None:
    """Return the signature of `value` itself; None: Python does not know it.

    Only if a wrapper has no signature, the function returns that of the wrapped function. The two
    may differ: a decorator may turn a view with one argument into an application.
    """
    for follow_wrapped in (False, True):
        try:
            return inspect.signature(value, follow_wrapped=follow_wrapped)
        except (ValueError, TypeError):
            continue
    return None


def _accepts(value: Callable[..., object], arguments: tuple[object, ...]) -> bool:
    signature = _signature(value)
    if signature is None:
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _call_factory(factory: object, name: str) -> object:
    if not callable(factory):
        _fail(f"{name} cannot be called: it is {_a(factory)}, so leave the () away")
    if not _accepts(factory, ()):
        required = ", ".join(_required(factory))
        _fail(f"{name}() needs arguments ({required}); name a factory that takes none")
    try:
        made: object = factory()
    except (Exception, SystemExit) as error:
        _fail_with_traceback(f"{name}() failed", error)
    if inspect.iscoroutine(made):
        made.close()
        _fail(f"{name}() is a coroutine function; a factory of a WSGI application is not async")
    if not callable(made):
        forgotten = "; is its return statement missing?" if made is None else ""
        _fail(f"{name}() returned {_a(made)}, not a WSGI application{forgotten}")
    return made


def _required(value: Callable[..., object]) -> list[str]:
    signature = _signature(value)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name
        for each in (signature.parameters.values() if signature else ())
        if each.default is each.empty and each.kind not in kinds
    ]


def _check(found: object, name: str) -> WSGIApplication:
    """Return `found` if its signature allows the call of PEP 3333. Raises AppImportError."""
    if inspect.ismodule(found):
        _fail(f"{name} is a module, not an application; name an attribute of it")
    if not callable(found):
        _fail(f"{name} is {_a(found)}, which cannot be called; name a WSGI application")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        _fail(f"{name} is asynchronous (ASGI?); picowsgi serves WSGI applications")
    if not _accepts(found, _WSGI_ARGUMENTS):
        if _accepts(found, ()) and not name.endswith("()"):
            _fail(f"{name} takes no arguments; did you mean {name}()?")
        required = ", ".join(_required(found)) or "none"
        _fail(f"{name} takes other arguments ({required}) than environ and start_response")
    return cast("WSGIApplication", found)


def _a(value: object) -> str:
    """Return the value's type with its article, as in `a dict`."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
