"""Finds the value of every option: the command line, then the environment, then the file.

Never opens a socket and never loads an application.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from picowsgi.config.option import PREFIX
from picowsgi.config.settings import OPTIONS, Settings
from picowsgi.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Source = Literal["keyword", "command line"]

PROGRAM = "picowsgi"

_NO_OPTIONS: Mapping[str, object] = {}
# These variables are for the build of picowsgi, or pass data from one of its processes to the next.
# They are no options, and a command may run in a shell that has set them.
_NO_OPTIONS_OF_OURS = frozenset(
    {
        "PICOWSGI_DEV",
        "PICOWSGI_EMULATE",
        "PICOWSGI_SANITIZE",
        "PICOWSGI_INHERITED",
        "PICOWSGI_LISTENER",
    }
)


_VERY_NEAR = 0.85  # of `difflib`: one wrong letter of a long name


# A variable and its value that Kubernetes sets in every container, for a Service whose name begins
# with "picowsgi". The value of PICOWSGI_PORT as an option is a number.
_SERVICE = re.compile(
    r"\w+_SERVICE_HOST=.*"
    r"|\w+_SERVICE_PORT(_\w+)?=\d{1,5}"
    r"|\w+_PORT=(tcp|udp|sctp)://.+:\d{1,5}"
    r"|\w+_PORT_(?P<port>\d{1,5})_(?P<proto>TCP|UDP|SCTP)"
    r"(=(tcp|udp|sctp)://.+:(?P=port)|_ADDR=.+|_PORT=(?P=port)|_PROTO=(tcp|udp|sctp))"
)


@dataclass(frozen=True)
class Section:
    """Options from a section of another file, such as `[server:main]` in `development.ini`."""

    options: Mapping[str, object]
    title: str


@dataclass(frozen=True)
class _Given:
    """A value as the user gave it, and its origin as a text that can begin an error message."""

    value: object
    origin: str


_Level = dict[str, _Given]


def load_settings(
    cli: Mapping[str, object] = _NO_OPTIONS,
    environ: Mapping[str, str] = os.environ,
    directory: Path | None = None,
    config_file: Path | None = None,
    *,
    source: Source = "keyword",
    section: Section | None = None,
) -> Settings:
    """Find, convert and check the value of every option.

    `cli` has options by name; None: the option is not given. It wins over the variables
    `PICOWSGI_<NAME>` in `environ`; an empty variable is not given. These win over the file: either
    `config_file`, or the table `[tool.picowsgi]` of the `pyproject.toml` in `directory` (default:
    the current one). A `section` wins over the file. All other options have their defaults.
    `source` is the place that error messages name for `cli`.

    `PORT` replaces `PICOWSGI_PORT` if neither that nor `PICOWSGI_BIND` is set, and
    `WEB_CONCURRENCY` replaces `PICOWSGI_WORKERS`. `bind` replaces `host` and `port` together: the
    place that wins decides. Both in one place are an error.

    Raises ConfigError.
    """
    levels = [_from_arguments(cli, source), _from_environ(environ)]
    if section is not None:
        levels.append(_from_section(section))
    levels.append(_from_file(config_file, directory))
    chosen: _Level = {}
    for level in levels:
        _refuse_both_addresses(level)
        decided = set(chosen)
        for name, given in level.items():
            if name == "bind" and decided & {"host", "port"}:
                continue
            if name in ("host", "port") and "bind" in decided:
                continue
            chosen.setdefault(name, given)
    values: dict[str, Any] = {}
    for name, given in chosen.items():
        try:
            values[name] = OPTIONS[name].convert(given.value)
        except ValueError as error:
            refused = OPTIONS[name].refused(given.value)
            message = f"{given.origin}: expected {error}, got {refused!r}"
            raise ConfigError(message) from None
    return Settings(
        **values,
        sources={name: given.origin for name, given in chosen.items()},
        ignored=tuple(
            variable
            for variable, value in environ.items()
            if variable.startswith(PREFIX) and is_of_service(variable, value)
        ),
    )


def is_of_service(variable: str, value: str) -> bool:
    """Return whether a variable describes a Service of Kubernetes, so it is no option."""
    return _SERVICE.fullmatch(f"{variable}={value}") is not None


def _refuse_both_addresses(level: _Level) -> None:
    if "bind" not in level:
        return
    for name in ("host", "port"):
        if name in level:
            raise ConfigError(
                f"{level['bind'].origin}: it replaces {name}, which is also given; "
                "use one or the other"
            )


def _from_arguments(arguments: Mapping[str, object], source: Source) -> _Level:
    level: _Level = {}
    for name, value in arguments.items():
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name!r}{suggest(name, str)}")
        if source == "keyword" and OPTIONS[name].command_only and value not in (None, (), []):
            raise ConfigError(
                f"option {name}: only the command {PROGRAM} has it, to find its application"
            )
        if value is None or (OPTIONS[name].kind == "list" and value in ((), [])):
            continue
        origin = OPTIONS[name].flag if source == "command line" else f"option {name}"
        level[name] = _Given(value, origin)
    return level


def _from_environ(environ: Mapping[str, str]) -> _Level:
    by_variable = {option.variable: option.name for option in OPTIONS.values()}
    level: _Level = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in _NO_OPTIONS_OF_OURS:
            continue
        if is_of_service(variable, value):
            continue
        if variable not in by_variable:
            name = variable.removeprefix(PREFIX).lower()
            hint = suggest(name, lambda name: PREFIX + name.upper())
            raise ConfigError(f"unknown option {variable} in the environment{hint}")
        if value:
            level[by_variable[variable]] = _Given(value, f"{variable} in the environment")
    if environ.get("PORT") and "port" not in level and "bind" not in level:
        level["port"] = _Given(environ["PORT"], "PORT in the environment")
    if environ.get("WEB_CONCURRENCY") and "workers" not in level:
        level["workers"] = _Given(environ["WEB_CONCURRENCY"], "WEB_CONCURRENCY in the environment")
    return level


def _from_file(config_file: Path | None, directory: Path | None) -> _Level:
    if config_file is not None:
        path = config_file
    else:
        path = (directory or Path()) / "pyproject.toml"
        if not path.is_file():
            return {}
    from picowsgi.config import toml

    try:
        document = toml.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, toml.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    level: _Level = {}
    for name, value in _own_table(document, path).items():
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name!r} in {path}{suggest(name, str)}")
        if OPTIONS[name].kind == "list" and value == []:
            continue
        level[name] = _Given(value, f"{name} in {path}")
    return level


def _own_table(document: dict[str, object], path: Path) -> dict[str, object]:
    """Return `[tool.picowsgi]`; in a file of `--config` without `[tool]`, the whole document."""
    if "tool" not in document and path.name != "pyproject.toml":
        return document
    tools = document.get("tool", {})
    table = tools.get("picowsgi", {}) if isinstance(tools, dict) else tools
    if not isinstance(table, dict):
        raise ConfigError(f"tool.picowsgi in {path}: expected a table, got {table!r}")
    return table


def _from_section(section: Section) -> _Level:
    level: _Level = {}
    for name, value in section.options.items():
        if name not in OPTIONS:
            hint = suggest(name, str)
            raise ConfigError(f"unknown option {name!r} in {section.title}{hint}")
        level[name] = _Given(value, f"{name} in {section.title}")
    return level


def suggest(name: str, spell: Callable[[str], str], others: Iterable[str] = ()) -> str:
    """Return the end of a message about an unknown option, as `; did you mean threads?`.

    If another server has the option, the text explains its equivalent. `spell` returns the form of
    an option's name where the user has written it. `others` are valid names beside the options.
    """
    from picowsgi.config.peers import explain, nearest_name  # only errors need them

    plain = name.lower().lstrip("-").replace("-", "_")
    ours = [*OPTIONS, *others]
    explained = "" if plain in OPTIONS else explain(name, spell)
    if not explained and not nearest(plain, ours, _VERY_NEAR):
        explained = explain(nearest_name(name, _VERY_NEAR), spell)
    if explained:
        return f"; {explained}"
    near = nearest(plain, ours)
    return f"; did you mean {spell(near)}?" if near else ""
