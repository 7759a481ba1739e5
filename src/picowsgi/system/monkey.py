"""Finds gevent's and eventlet's monkey-patching, with which a server of threads cannot work.

Never imports either, and never takes a patch back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from picowsgi.errors import PatchedError

if TYPE_CHECKING:
    from types import ModuleType

#: The modules that the server and its threads are made of, by the names that the two have for them.
_MODULES = {
    "_thread": "threading",
    "thread": "threading",
    "threading": "threading",
    "socket": "socket",
    "select": "select",
}
#: By the module of the library that knows what is patched: the name of its function, and a server
#: that is made for such a process.
_LIBRARIES = {
    "gevent.monkey": ("is_module_patched", "gunicorn --worker-class gevent, or gevent.pywsgi"),
    "eventlet.patcher": ("is_monkey_patched", "eventlet.wsgi"),
}


def refuse_patched() -> None:
    """Raise PatchedError where `threading`, `socket` or `select` are patched in this process.

    To be called before anything is opened, and once the application is loaded, which may patch.
    """
    for name, (function, server) in _LIBRARIES.items():
        patched = _patched_by(sys.modules.get(name), function)
        if patched:
            library = name.partition(".")[0]
            raise PatchedError(
                f"{library} has monkey-patched {', '.join(patched)} in this process, and picowsgi "
                "needs what the system has; remove the monkey-patching and let the application use "
                f"threads (--threads), or use a server that works with {library}: {server}"
            )


def _patched_by(module: ModuleType | None, function: str) -> list[str]:
    is_patched: Callable[[str], object] | None = getattr(module, function, None)
    if is_patched is None:
        return []
    return sorted({ours for theirs, ours in _MODULES.items() if is_patched(theirs)})
