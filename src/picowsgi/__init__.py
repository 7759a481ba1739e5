"""picowsgi: a WSGI server (PEP 3333) whose sockets, parser and writer are in C."""

from importlib.metadata import version

__version__ = version("picowsgi")

from picowsgi.server import Server, serve

__all__ = ["Server", "__version__", "serve"]
