"""The errors that picowsgi raises on purpose, and the wording they share.

Never formats a traceback and never ends the process: the command line decides about both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PicowsgiError(Exception):
    """The base class of all errors of picowsgi. The text has one or two lines, for the user."""


class ConfigError(PicowsgiError, ValueError):
    """An option is unknown, or its value is not allowed. The command exits with status 2."""


class AppImportError(PicowsgiError):
    """The application cannot be imported. The command exits with status 1.

    Attributes:
        application_traceback: the traceback of the application's own error as a text, without
            picowsgi's frames. It ends with a newline, and is empty if no code of the application
            ran.
    """

    def __init__(self, message: str, application_traceback: str = "") -> None:
        super().__init__(message)
        self.application_traceback = application_traceback


class PatchedError(AppImportError):
    """gevent or eventlet has patched `threading`, `socket` or `select`, which the server needs."""


class BindError(PicowsgiError, OSError):
    """The server cannot listen on an address. The command exits with status 1.

    Attributes:
        errno: the system's error number, or None.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class ResponseError(PicowsgiError, ValueError):
    """The application made a response that PEP 3333 or HTTP (RFC 9110) does not allow.

    `start_response` and `write` raise this in the application. The server also ends a request with
    it, for example after an item that is not bytes. The client gets a 500. If the response has
    begun, the server cuts it.
    """


class RequestTimeoutError(PicowsgiError):
    """A request runs longer than `--timeout-request`. The server raises this in its thread."""


class ClientGoneError(PicowsgiError):
    """The client has disconnected. `write` (PEP 3333) raises this, and it is not logged."""


class DetachError(PicowsgiError, OSError):
    """The application cannot take the client's connection.

    The request is over, its response has begun, the connection was taken before, or there is no
    connection, as in a CGI script.
    """


class NoConnectionError(DetachError):
    """This server has no connection that the application can take, as in a CGI script."""


def nearest(word: str, known: Iterable[str], similarity: float = 0.6) -> str:
    """Return the known word that is most similar to `word`; an empty text if none is similar.

    `similarity` is the smallest one that counts, from 0 to 1.
    """
    import difflib  # slow to import, and only errors need it

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=similarity)
    return next(iter(found), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known word nearest to `word`, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""
