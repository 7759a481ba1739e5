"""The functions of `--hooks MODULE`, which the server calls as processes start and end.

Never lets an error of such a function stop the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from picowsgi.errors import AppImportError, ConfigError, did_you_mean
from picowsgi.log import get_logger
from picowsgi.system import fork_guard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

#: The name of each hook, with the names of its arguments.
HOOKS: Mapping[str, tuple[str, ...]] = {
    "on_start": (),
    "worker_start": (),
    "worker_stop": (),
    "worker_exit": ("pid", "status"),
    "on_reload": (),
    "on_stop": (),
}


class Hooks:
    """The hooks of a module. Without a module there are none."""

    def __init__(self, functions: Mapping[str, Callable[..., object]] | None = None) -> None:
        self._functions = functions or {}

    def call(self, name: str, *arguments: object) -> None:
        """Call the hook of this name, if there is one. Log an exception that it raises."""
        function = self._functions.get(name)
        if function is None:
            return
        process = os.getpid()
        try:
            function(*arguments)
        except BaseException as error:
            if os.getpid() != process:
                fork_guard.leave_child(error)
            get_logger().error("the hook %s has failed", name, exc_info=error)
        if os.getpid() != process:
            fork_guard.leave_child()


def load_hooks(name: str, directories: Sequence[str] = ()) -> Hooks:
    """Return the hooks of the module `name`; an empty name: no hooks.

    Raises AppImportError if the module cannot be imported. Raises ConfigError if it has no hook, if
    a function has a name like that of a hook but is none, or if a hook takes other arguments.
    """
    if not name:
        return Hooks()
    from picowsgi.app.importer import load_module  # only this option needs it

    try:
        module = load_module(name, directories)
    except AppImportError as error:
        raise AppImportError(f"--hooks: {error}", error.application_traceback) from None
    functions = {
        key: value
        for key, value in vars(module).items()
        if key in HOOKS or (key.startswith(("on_", "worker_")) and callable(value))
    }
    for key, value in functions.items():
        _check(module, key, value)
    if not functions:
        raise ConfigError(f"--hooks: {name} has none of the functions {', '.join(HOOKS)}")
    return Hooks(functions)


def _check(module: ModuleType, name: str, function: Any) -> None:
    label = f"--hooks: {module.__name__}.{name}"
    if name not in HOOKS:
        hint = did_you_mean(name, HOOKS) or f"; the hooks are {', '.join(HOOKS)}"
        raise ConfigError(f"{label} is not a hook{hint}")
    if not callable(function):
        raise ConfigError(f"{label}: expected a function, got {function!r}")
    import inspect

    arguments = HOOKS[name]
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        expected = f"{name}({', '.join(arguments)})"
        raise ConfigError(f"{label}: expected the function {expected}") from None
    except ValueError:
        pass  # a function in C may have no signature
