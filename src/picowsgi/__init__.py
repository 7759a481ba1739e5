"""picowsgi: a WSGI server (PEP 3333) whose sockets, parser and writer are in C.

`serve` serves an application until a signal stops it, `Server` serves one in a background thread,
and `Mount` combines several applications. The modules `simple_server` and `cgi` replace those of
wsgiref. `__version__` is the version as a text.

The names are imported at their first use. pytest loads this package in every project that has it,
even if no test needs a server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picowsgi import cgi, simple_server
    from picowsgi.app.mount import Mount
    from picowsgi.server import Server, serve

#: The page of the project, with its documentation.
DOCUMENTATION = "https://pypi.org/project/picowsgi/"
__version__ = "0.1.0"
__all__ = ["Mount", "Server", "__version__", "cgi", "serve", "simple_server"]

_HOMES = {"Mount": "picowsgi.app.mount", "Server": "picowsgi.server", "serve": "picowsgi.server"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_HOMES.get(name, f"picowsgi.{name}"))
    value = globals()[name] = getattr(module, name) if name in _HOMES else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
