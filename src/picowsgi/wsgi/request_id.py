"""Adds the id of each request to its environ, as `picowsgi.request_id`.

Never makes an id: the core does (csrc/request_id.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.wsgi.request_timeout import calls_application

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEY = "picowsgi.request_id"


class WithId:
    """An application of one thread. `request` is the core's object for this thread (csrc/api.h)."""

    def __init__(self, application: WSGIApplication, request: Any) -> None:
        self._application = application
        self._request = request

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[KEY] = core.request_id(self._request)
        return self._application(environ, start_response)


calls_application(WithId.__call__)


def id_of(environ: WSGIEnvironment) -> str:
    """Return the id of a request; empty: there is none, or the application has removed it."""
    name = environ.get(KEY)
    return name if type(name) is str else ""
