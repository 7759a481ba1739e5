"""picowsgi: a WSGI server (PEP 3333) whose sockets, parser and writer are in C."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picowsgi.server import Server, serve

__version__ = "0.1.0"
__all__ = ["Server", "__version__", "serve"]

#: The modules that are imported when the name is first asked for: not all programs need all.
_HOMES = {"Server": "picowsgi.server", "serve": "picowsgi.server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
