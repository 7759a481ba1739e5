"""Several applications in one: each gets the requests below its prefix.

Never alters more of an environ than PEP 3333 says: `SCRIPT_NAME` and `PATH_INFO`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from picowsgi.config.values import check_prefix, parse_mount
from picowsgi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Mount:
    """Combine several WSGI applications: each gets the requests below its prefix.

        picowsgi.Mount({"/api": api, "/api/v2": newer}, default=mysite)

    The longest prefix wins. A prefix matches whole segments of the path, so `/apinews` is not below
    `/api`. The mount appends the prefix to `SCRIPT_NAME` and removes it from `PATH_INFO`, which is
    empty for the prefix itself (PEP 3333, "environ Variables").

    The mount compares a prefix with the decoded path: `/%61pi` is below `/api`, and so is
    `/api%2Fx`. A character outside of ASCII matches its UTF-8 bytes.

    Args:
        applications: WSGI applications by their prefixes. A prefix is a path such as `/api`, with a
            slash before each segment and none at the end.
        default: the application for all other paths; None: they get a 404.

    Raises:
        ConfigError: a prefix is not valid.
    """

    def __init__(
        self,
        applications: Mapping[str, WSGIApplication],
        default: WSGIApplication | None = None,
    ) -> None:
        self._applications = {
            check_prefix(prefix).encode().decode("latin-1"): application
            for prefix, application in applications.items()
        }
        self._default = _not_found if default is None else default
        self._longest = max(map(len, self._applications), default=0)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, /
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        prefix = path[: self._longest + 1]
        if len(prefix) <= self._longest:
            prefix += "/"
        while prefix:
            prefix = prefix.rpartition("/")[0]
            application = self._applications.get(prefix)
            if application is not None:
                environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
                environ["PATH_INFO"] = path[len(prefix) :]
                return application(environ, start_response)
        return self._default(environ, start_response)


def read_mounts(texts: Iterable[str]) -> dict[str, str]:
    """Return the names of the applications by their prefixes, from texts `PREFIX=APP`.

    Raises ConfigError if two texts have the same prefix.
    """
    names: dict[str, str] = {}
    for prefix, spec in map(parse_mount, texts):
        if prefix in names:
            raise ConfigError(f"option mount: the prefix {prefix} is given twice")
        names[prefix] = spec
    return names


def mount(
    texts: Iterable[str],
    load: Callable[[str], WSGIApplication],
    default: WSGIApplication | None,
) -> Mount:
    """Return `default` combined with the applications that `texts` name (`read_mounts`).

    `load` loads an application by its name. Raises ConfigError as `read_mounts` does.
    """
    applications = {prefix: load(spec) for prefix, spec in read_mounts(texts).items()}
    return Mount(applications, default)


def _not_found(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Not Found\n"]
