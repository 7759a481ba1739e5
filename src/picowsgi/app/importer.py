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
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, cast

from picowsgi.app.failure import application_frames, fail, fail_with_traceback
from picowsgi.app.spec import FORM, Call, parse_ini, parse_spec
from picowsgi.errors import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType, ModuleType

    from _typeshed.wsgi import WSGIApplication

_DEFAULT_ATTRIBUTES = ("application", "app")
_DEFAULT_FACTORIES = ("create_app", "make_app")
_FACTORY_NAME = re.compile(r"app|wsgi|factory|create|make|build", re.IGNORECASE)
# Two arguments, as PEP 3333 calls an application, to check a signature.
_WSGI_ARGUMENTS = (None, None)


def load_application(
    spec: str, directories: Sequence[str] = (), *, factory: bool = False
) -> WSGIApplication:
    """Import and return the application that `spec` names.

    `spec` is `MODULE:ATTRIBUTE` or `PATH:ATTRIBUTE`. The attribute may have dots. Brackets at its
    end call a factory, with literals as arguments. Without an attribute, the function tries
    `application` and then `app`. With `factory` the attribute is called without arguments, and the
    default attributes are `create_app` and `make_app`. `PATH.ini#NAME` is an application of
    PasteDeploy.

    Python searches the directory of the file first, then `directories`, then the current directory.

    Raises AppImportError.
    """
    _search_first(_current_directory(), *directories)
    ini = parse_ini(spec)
    if ini is not None:
        if factory:
            fail(f"{spec} is a file for PasteDeploy; leave --factory out")
        from picowsgi.app.paste_deploy import load_paste  # only these files need it

        return _check(load_paste(*ini), spec)
    parsed = parse_spec(spec)
    name, call = parsed.name, parsed.call
    module = _import_file(name) if parsed.is_file else _import_module(name)
    if factory and call is None:
        call = Call()
    if not parsed.attribute:
        defaults = _DEFAULT_FACTORIES if call is not None else _DEFAULT_ATTRIBUTES
        label, found = _default_attribute(name, module, defaults)
    else:
        label, found = f"{name}:{parsed.attribute}", _attribute(name, module, parsed.attribute)
    if call is None:
        return _check(found, label if parsed.attribute else name)
    return _check(_call_factory(found, label, call), f"{label}({call.text})")


def load_module(name: str, directories: Sequence[str] = ()) -> ModuleType:
    """Import and return a module, from `directories` and the current directory first.

    Raises AppImportError.
    """
    _search_first(_current_directory(), *directories)
    return _import_module(name)


def _current_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        fail(f"the current directory cannot be used: {error.strerror}")


def _search_first(current: str, *directories: str) -> None:
    """Put the directories first on `sys.path`, and remove other entries of them."""
    first = [*(str(Path(current, each).resolve()) for each in directories), current]
    sys.path[:] = [*first, *(path for path in sys.path if path not in (*first, ""))]


# Modules


def _import_module(name: str) -> ModuleType:
    if os.sep in name:
        if Path(name).is_dir():
            fail(f"{name} is a directory; name the .py file in it")
        fail(f"{name} is neither a module nor a .py file; APP is {FORM}")
    if not all(name.split(".")):
        fail(f"{name!r} is not the name of a module; APP is {FORM}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if application_frames(error) is None:
            fail(_missing_module(name, error))
        fail_with_traceback(f"importing {name} failed", error)
    except (Exception, SystemExit) as error:
        fail_with_traceback(f"importing {name} failed", error)


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
            fail(f"{name} is not a file")
        try:
            siblings = sorted(each.name for each in path.parent.glob(f"*{path.suffix}"))
        except OSError:
            siblings = []
        where = path.parent.resolve()
        fail(f"there is no file {path.name!r} in {where}{did_you_mean(path.name, siblings)}")
    path = path.resolve()  # Python does this with a script too
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").is_file() and root.parent != root:
        root, dotted = root.parent, f"{root.name}.{dotted}"
    _search_first(str(root))
    try:
        if root != path.parent and path.suffix == ".py":
            module = importlib.import_module(dotted)
            if _is_from(module, path):
                return module
        return _execute_file(path)
    except (Exception, SystemExit) as error:
        fail_with_traceback(f"importing {name} failed", error)


def _execute_file(path: Path) -> ModuleType:
    """Import the file as the module of its name, unless another module has that name.

    A file that is not a `.py` file never gets its plain name: `django.wsgi` imports `django`.
    """
    name, loader = path.stem, None
    if path.suffix != ".py":
        loader = _UncachedLoader(name, str(path))
    taken = sys.modules.get(name)
    if taken is not None and _is_from(taken, path):
        return taken
    if taken is not None or loader is not None:
        name = re.sub(r"\W", "_", f"picowsgi_application_{path.name if loader else name}")
        if loader is not None:
            loader.name = name
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None or spec.loader is None:
        fail(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


class _UncachedLoader(SourceFileLoader):
    """Loads a file of any name. The `.pyc` file of `app.wsgi` would be the one of `app.py`."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the module, compiled from its source."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file) == os.path.realpath(path)


# Attributes


def _default_attribute(
    name: str, module: ModuleType, attributes: tuple[str, str]
) -> tuple[str, object]:
    for attribute in attributes:
        found = _get(f"{name}:{attribute}", module, attribute)
        if found is not _ABSENT:
            return f"{name}:{attribute}", found
    fail(
        f"{name} has neither {attributes[0]!r} nor {attributes[1]!r}"
        + (_candidates(name, module) or "; name the attribute after a colon")
    )
    return None


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
            fail(f"{owner} has no attribute {attribute!r}{hint}")
        owner = f"{owner}:{attribute}" if parent is module else f"{owner}.{attribute}"
    return found


_ABSENT = object()


def _get(what: str, owner: object, attribute: str) -> object:
    try:
        found: object = getattr(owner, attribute)
    except AttributeError as error:
        if application_frames(error) is None or not hasattr(type(owner), attribute):
            return _ABSENT
        fail_with_traceback(f"getting {what} failed", error)
    except Exception as error:
        fail_with_traceback(f"getting {what} failed", error)
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


def _call_factory(factory: object, name: str, call: Call) -> object:
    if not callable(factory):
        fail(f"{name} cannot be called: it is {_a(factory)}, so leave the () away")
    args, kwargs = call.args, dict(call.kwargs)
    called = f"{name}({call.text})"
    signature = _signature(factory)
    try:
        if signature is not None:
            signature.bind(*args, **kwargs)
    except TypeError as error:
        if not args and not kwargs:
            required = ", ".join(_required(factory))
            fail(f"{called} needs arguments ({required}); write them between the brackets")
        fail(f"{called} does not fit the signature {signature}: {error}")
    try:
        made: object = factory(*args, **kwargs)
    except (Exception, SystemExit) as error:
        fail_with_traceback(f"{called} failed", error)
    if inspect.iscoroutine(made):
        made.close()
        fail(f"{called} is a coroutine function; a factory of a WSGI application is not async")
    if not callable(made):
        forgotten = "; is its return statement missing?" if made is None else ""
        fail(f"{called} returned {_a(made)}, not a WSGI application{forgotten}")
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
        fail(f"{name} is a module, not an application; name an attribute of it")
    if not callable(found):
        fail(f"{name} is {_a(found)}, which cannot be called; name a WSGI application")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        fail(f"{name} is asynchronous (ASGI?); picowsgi serves WSGI applications")
    if not _accepts(found, _WSGI_ARGUMENTS):
        if _accepts(found, ()) and not name.endswith("()"):
            fail(f"{name} takes no arguments; did you mean {name}()?")
        required = ", ".join(_required(found)) or "none"
        fail(f"{name} takes other arguments ({required}) than environ and start_response")
    return cast("WSGIApplication", found)


def _a(value: object) -> str:
    """Return the value's type with its article, as in `a dict`."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
