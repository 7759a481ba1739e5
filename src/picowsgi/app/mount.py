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
    """A WSGI application that passes a request on to the application below whose prefix it is.

    `applications` is by prefix: `{"/api": api, "/api/v2": newer}`. The longest prefix that ends
    where a segment of the path does wins, so `/apinews` is not below `/api`. The application finds
    the prefix at the end of `SCRIPT_NAME` and the rest of the path in `PATH_INFO`, which is empty
    for the prefix itself (PEP 3333, "environ Variables"). What is below none of them goes to
    `default`, or is 404.

    Prefixes are compared with the decoded path, of which `PATH_INFO` is made: `/%61pi` is below
    `/api`, and so is `/api%2Fx`. Other characters than ASCII stand for their UTF-8 bytes.

    Raises ConfigError for a prefix that is none.
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
    """Return the names of the applications by their prefixes from `texts`, each `PREFIX=APP`.

    Raises ConfigError for a prefix that is given twice.
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
    """Return `default` with the applications mounted that `read_mounts(texts)` names.

    `load` loads an application by its name. Raises ConfigError as `read_mounts` does.
    """
    applications = {prefix: load(spec) for prefix, spec in read_mounts(texts).items()}
    return Mount(applications, default)


def _not_found(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Not Found\n"]
