"""The errors that picowsgi raises on purpose, and the wording they share.

Never formats a traceback and never ends the process: the command line decides about both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PicowsgiError(Exception):
    """The base of every error that picowsgi raises; its text is one or two lines for a person."""


class ConfigError(PicowsgiError, ValueError):
    """An option is unknown, or its value is not one that it can take (exit status 2)."""


class AppImportError(PicowsgiError):
    """The application could not be loaded (exit status 1).

    `application_traceback` holds the traceback of the application's own error, without
    picowsgi's frames and ending in a newline; it is empty where nothing of the application ran.
    """

    def __init__(self, message: str, application_traceback: str = "") -> None:
        super().__init__(message)
        self.application_traceback = application_traceback


class PatchedError(AppImportError):
    """gevent or eventlet has patched what the server needs, mostly for the application."""


class BindError(PicowsgiError, OSError):
    """An address cannot be listened on (exit status 1).

    `errno` is the system's error number where there was one, else None.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class ResponseError(PicowsgiError, ValueError):
    """The application gave a response that PEP 3333 or HTTP does not allow."""


class RequestTimeoutError(PicowsgiError):
    """Raised in the application's thread when its request runs longer than --timeout-request."""


class ClientGoneError(PicowsgiError):
    """The client is not there any more: raised by `write`, and never logged as an error."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that `word` is most like, or an empty one where it is like none."""
    import difflib  # only where something is wrong: slow to import

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known word nearest to `word`, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""
