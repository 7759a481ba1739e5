"""Detects the monkey-patching of gevent and eventlet, which a server with threads cannot use.

Never imports one of the two, and never undoes a patch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from picowsgi.errors import PatchedError

if TYPE_CHECKING:
    from types import ModuleType

#: The modules that the server and its threads need, by the names that gevent and eventlet use.
_MODULES = {
    "_thread": "threading",
    "thread": "threading",
    "threading": "threading",
    "socket": "socket",
    "select": "select",
}
#: By the module of the library that knows the patched modules: the function's name, and a server
#: that works with the library.
_LIBRARIES = {
    "gevent.monkey": ("is_module_patched", "gunicorn --worker-class gevent, or gevent.pywsgi"),
    "eventlet.patcher": ("is_monkey_patched", "eventlet.wsgi"),
}


def refuse_patched() -> None:
    """Raise PatchedError if `threading`, `socket` or `select` are patched in this process.

    Call this before the server opens a resource, and again after the import of the application,
    which may patch.
    """
    for name, (function, server) in _LIBRARIES.items():
        patched = _patched_by(sys.modules.get(name), function)
        if patched:
            library = name.partition(".")[0]
            raise PatchedError(
                f"{library} has monkey-patched {', '.join(patched)} in this process, and picowsgi "
                "needs the original modules; remove the monkey-patching and let the application "
                f"use threads (--threads), or use a server that works with {library}: {server}"
            )


def _patched_by(module: ModuleType | None, function: str) -> list[str]:
    is_patched: Callable[[str], object] | None = getattr(module, function, None)
    if is_patched is None:
        return []
    return sorted({ours for theirs, ours in _MODULES.items() if is_patched(theirs)})
