"""The one table of options, and how their values are found, converted and checked.

Never opens a socket and never loads an application: it only says what was asked for.
"""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from picowsgi.access import check_format
from picowsgi.cpus import usable_cpus
from picowsgi.errors import ConfigError, did_you_mean
from picowsgi.sockets import Bind, parse_bind, parse_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Kind = Literal["int", "size", "seconds", "str", "choice", "list", "flag", "octal", "workers"]
Source = Literal["keyword", "command line"]
T = TypeVar("T")

_NO_OPTIONS: Mapping[str, object] = {}
_PREFIX = "PICOWSGI_"
# These variables speak to the build of picowsgi, and from one of its processes to the next; a
# shell that has them set can still serve.
_NO_OPTIONS_OF_OURS = frozenset({"PICOWSGI_DEV", "PICOWSGI_SANITIZE", "PICOWSGI_HANDOVER"})

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_SIZE = re.compile(r"([0-9]{1,19})\s*(?:([KMG])(?:iB)?|B)?", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*([smh]?)")
_OCTAL = re.compile(r"(?:0o)?[0-7]{1,4}")
_FLAGS = {"on": True, "true": True, "yes": True, "1": True}
_FLAGS |= {"off": False, "false": False, "no": False, "0": False}
UNSET = -1  # of an octal option: as the system has it
_SIZE_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
_SECONDS_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Option:
    """What the table says about one option; `name` is the name of its field in `Settings`.

    `minimum` and `maximum` are inclusive, and in bytes for a size. `check` looks at one text
    of a `str` or `list` and raises a ValueError that says what was expected. `switch`: on the
    command line it is a pair of flags for `on` and `off`.
    """

    name: str
    default: object
    kind: Kind
    help: str
    group: str
    metavar: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    check: Callable[[str], object] | None
    switch: bool

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The option's name in the environment."""
        return _PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """What a value has to be, as a phrase that follows "expected"."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        what, examples = {
            "int": ("a whole number", ""),
            "size": ("a size", ", such as 65536, 64K or 1 MiB"),
            "seconds": ("a time", ", such as 10, 2.5, 10s or 1m"),
            "str": ("text", ""),
            "list": ("texts", ""),
            "flag": ("true or false", ""),
            "octal": ("octal digits from 0 to 777", ", such as 022"),
            "workers": ("auto or a whole number", ""),
        }[self.kind]
        limits = ""
        if self.kind == "octal":
            return what + examples
        if self.minimum is not None and self.maximum is not None:
            limits = f" from {self.show(self.minimum)} to {self.show(self.maximum)}"
        return what + limits + examples

    def show(self, value: object) -> str:
        """Return `value` as text that `convert` turns into the same value again."""
        if self.kind == "size":
            return _show_size(cast("int", value))
        if self.kind == "seconds":
            return f"{value:g}s"
        if self.kind == "list":
            return ",".join(cast("tuple[str, ...]", value))
        if self.kind == "flag":
            return "on" if value else "off"
        if self.kind == "octal":
            return "" if value == UNSET else f"{value:03o}"
        return str(value)

    def convert(self, value: object) -> object:
        """Return the checked value for `value`, which is text or has the option's own type.

        Raises ValueError, whose text says what was expected.
        """
        converted = _CONVERTERS[self.kind](self, value)
        if converted is None:
            raise ValueError(self.expected)
        if isinstance(converted, (int, float)):
            below = self.minimum is not None and converted < self.minimum
            if below or (self.maximum is not None and converted > self.maximum):
                raise ValueError(self.expected)
        return converted


# The converters return None for what they cannot read; Option.convert words the refusal.


def _to_int(_option: Option, value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value.strip()) else None
    # True and False are ints to Python, and never what was meant here.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _to_size(option: Option, value: object) -> int | None:
    if not isinstance(value, str):
        return _to_int(option, value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        return None
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").upper()]


def _to_seconds(_option: Option, value: object) -> float | None:
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        return float(match[1]) * _SECONDS_UNITS[match[2]] if match else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _to_text(option: Option, value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if option.check is not None:
        option.check(value)
    return value


def _to_choice(option: Option, value: object) -> str | None:
    if option.switch and isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str):
        return None
    name = value.strip().lower()
    if option.switch:
        name = {"true": "on", "1": "on", "yes": "on", "false": "off", "0": "off", "no": "off"}.get(
            name, name
        )
    return name if name in option.choices else None


def _to_list(option: Option, value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, (list, tuple)):
        return None
    texts = [_to_text(option, item) for item in value]
    return None if None in texts else cast("tuple[str, ...]", tuple(texts))


def _to_flag(_option: Option, value: object) -> bool | None:
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _to_octal(option: Option, value: object) -> int | None:
    if isinstance(value, str):
        if not value.strip():
            return UNSET
        return int(value, 8) if _OCTAL.fullmatch(value.strip()) else None
    return _to_int(option, value)


def _to_workers(option: Option, value: object) -> int | None:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return usable_cpus()
    return _to_int(option, value)


_CONVERTERS: dict[Kind, Callable[[Option, object], object]] = {
    "int": _to_int,
    "size": _to_size,
    "seconds": _to_seconds,
    "str": _to_text,
    "choice": _to_choice,
    "list": _to_list,
    "flag": _to_flag,
    "octal": _to_octal,
    "workers": _to_workers,
}


def _check_health(path: str) -> None:
    if (path and not re.fullmatch(r"/[!-~]*", path)) or "?" in path or "#" in path:
        raise ValueError("a path of printable ASCII that begins with /, without ? and #")


def _show_size(size: int) -> str:
    for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


def option(
    default: T,
    *,
    kind: Kind,
    help: str,  # noqa: A002 (the word that click and argparse use)
    group: str,
    metavar: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], object] | None = None,
    switch: bool = False,
) -> T:
    """Declare a field of `Settings` as an option; the arguments are `Option`'s."""
    details = {
        "default": default,
        "kind": kind,
        "help": help,
        "group": group,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "check": check,
        "switch": switch,
    }
    return field(default=default, metadata={"option": details})


@dataclass(frozen=True)
class Settings:
    """Every option with its checked value. Sizes are bytes, times are seconds.

    The fields are the one table of options: the command line, the keywords of the Python API,
    the environment and the configuration file are all made from it. `load_settings` makes the
    settings; made directly, the values are not checked.
    """

    host: str = option(
        "127.0.0.1",
        kind="str",
        group="Address",
        metavar="HOST",
        help="name or address to listen on",
        check=parse_host,
    )
    port: int = option(
        8000,
        kind="int",
        group="Address",
        metavar="PORT",
        help="port to listen on, 0 for a free one",
        minimum=0,
        maximum=65535,
    )
    bind: tuple[str, ...] = option(
        (),
        kind="list",
        group="Address",
        metavar="ADDRESS",
        help="HOST:PORT, unix:PATH or fd://N; repeatable",
        check=parse_bind,
    )
    backlog: int = option(
        1024,
        kind="int",
        group="Address",
        metavar="N",
        help="connections that may wait to be accepted",
        minimum=1,
        maximum=65535,
    )
    unix_socket_mode: int = option(
        UNSET,
        kind="octal",
        group="Address",
        metavar="MODE",
        help="permissions of unix sockets, such as 660",
        minimum=UNSET,
        maximum=0o777,
    )

    workers: int = option(
        1,
        kind="workers",
        group="Processes",
        metavar="N",
        help="processes that serve; auto: one a CPU",
        minimum=1,
        maximum=1024,
    )
    threads: int = option(
        16,
        kind="int",
        group="Processes",
        metavar="N",
        help="the most serving threads of each",
        minimum=1,
        maximum=4096,
    )
    preload: bool = option(
        False,
        kind="flag",
        group="Processes",
        metavar="",
        help="load the application before forking",
    )
    max_requests: int = option(
        0,
        kind="int",
        group="Processes",
        metavar="N",
        help="requests a worker serves, 0 for any number",
        minimum=0,
        maximum=2**62,
    )
    max_requests_jitter: int = option(
        0,
        kind="int",
        group="Processes",
        metavar="N",
        help="at most so many more, at random",
        minimum=0,
        maximum=2**62,
    )
    max_worker_rss: int = option(
        0,
        kind="size",
        group="Processes",
        metavar="SIZE",
        help="memory a worker may take, 0 for any",
        minimum=0,
        maximum=2**63 - 1,
    )
    pid: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="FILE",
        help="where to write the process's number",
    )
    user: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="NAME",
        help="user to run as, once the sockets are open",
    )
    group: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="NAME",
        help="group to run as",
    )
    umask: int = option(
        UNSET,
        kind="octal",
        group="Processes",
        metavar="MODE",
        help="permissions that new files do not get",
        minimum=UNSET,
        maximum=0o777,
    )
    chdir: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="DIR",
        help="directory to go to before all else",
    )

    max_connections: int = option(
        8192,
        kind="int",
        group="Limits",
        metavar="N",
        help="open connections; more wait",
        minimum=1,
        maximum=1_000_000,
    )
    max_head_size: int = option(
        64 * KIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="request line and fields",
        minimum=256,
        maximum=4 * MIB,
    )
    max_fields: int = option(
        100,
        kind="int",
        group="Limits",
        metavar="N",
        help="fields in a request",
        minimum=1,
        maximum=1024,
    )
    max_body_size: int = option(
        GIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="content of a request, 0 for no limit",
        minimum=0,
        maximum=2**63 - 1,
    )
    body_memory: int = option(
        256 * KIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="content above it goes to a file",
        minimum=0,
        maximum=GIB,
    )
    response_buffer: int = option(
        MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="unsent bytes that pause the application",
        minimum=KIB,
        maximum=GIB,
    )
    underscore_fields: str = option(
        "drop",
        kind="choice",
        group="Limits",
        metavar="WHAT",
        help="field names with _: drop, refuse or allow",
        choices=("drop", "refuse", "allow"),
    )

    timeout_head: float = option(
        10.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="to receive the head of a request",
        minimum=0.001,
        maximum=86400,
    )
    timeout_body: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="without progress in a request's content",
        minimum=0.001,
        maximum=86400,
    )
    timeout_write: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="without progress in sending a response",
        minimum=0.001,
        maximum=86400,
    )
    timeout_keep_alive: float = option(
        15.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="idle between requests",
        minimum=0.001,
        maximum=86400,
    )
    timeout_drain: float = option(
        0.25,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="idle before a close at shutdown",
        minimum=0,
        maximum=3600,
    )
    timeout_graceful: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="for open requests at shutdown, 0 for none",
        minimum=0,
        maximum=86400,
    )

    timeout_request: float = option(
        0.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="in the application, 0 for any",
        minimum=0,
        maximum=86400,
    )
    timeout_worker: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="a worker may be silent, 0 for ever",
        minimum=0,
        maximum=86400,
    )

    health: str = option(
        "",
        kind="str",
        group="Health and logs",
        metavar="PATH",
        help="a path that is answered without the application",
        check=_check_health,
    )
    access_log: str = option(
        "auto",
        kind="choice",
        group="Health and logs",
        metavar="",
        help="log each request; auto: in a terminal",
        choices=("auto", "on", "off"),
        switch=True,
    )
    access_log_file: str = option(
        "-",
        kind="str",
        group="Health and logs",
        metavar="FILE",
        help="where to; -: standard output",
    )
    access_log_format: str = option(
        "combined",
        kind="str",
        group="Health and logs",
        metavar="FORMAT",
        help="common, combined, json or %(h)s ...",
        check=check_format,
    )
    log_level: str = option(
        "info",
        kind="choice",
        group="Health and logs",
        metavar="LEVEL",
        help="debug, info, warning or error",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = option(
        "text",
        kind="choice",
        group="Health and logs",
        metavar="FORMAT",
        help="of the error log: text or json",
        choices=("text", "json"),
    )
    log_config: str = option(
        "",
        kind="str",
        group="Health and logs",
        metavar="FILE",
        help="TOML or JSON for logging.config.dictConfig",
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where a value came from, in words, by the option's name; the defaults are not in it."""

    def binds(self) -> list[Bind]:
        """Return the addresses to listen on: those of `bind`, or the one of host and port."""
        if self.bind:
            return [parse_bind(text) for text in self.bind]
        return [Bind("tcp", host=parse_host(self.host), port=self.port)]


def _read_table() -> dict[str, Option]:
    return {
        each.name: Option(name=each.name, **each.metadata["option"])
        for each in fields(Settings)
        if "option" in each.metadata
    }


OPTIONS: Mapping[str, Option] = _read_table()
"""Every option by its name, in the order of the table."""


@dataclass(frozen=True)
class _Given:
    """A value as somebody gave it, and where, in words that can begin a sentence."""

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
) -> Settings:
    """Find, convert and check the value of every option.

    `cli` (options by name, from the place that `source` names; None means not given) wins over
    the variables `PICOWSGI_<NAME>` in `environ` (empty means not given), which win over the
    file: `config_file`, or the table `[tool.picowsgi]` of the `pyproject.toml` in `directory`
    (default: the current one). What is in none of them has its default.

    `PORT` stands for `PICOWSGI_PORT` where neither that nor `PICOWSGI_BIND` is set, and
    `WEB_CONCURRENCY` for `PICOWSGI_WORKERS`. `bind`
    stands for `host` and `port` together: the place with precedence decides which is used, and
    both in one place are refused.

    Raises ConfigError.
    """
    levels = [_from_arguments(cli, source), _from_environ(environ)]
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
            message = f"{given.origin}: expected {error}, got {given.value!r}"
            raise ConfigError(message) from None
    return Settings(**values, sources={name: given.origin for name, given in chosen.items()})


def _refuse_both_addresses(level: _Level) -> None:
    if "bind" not in level:
        return
    for name in ("host", "port"):
        if name in level:
            raise ConfigError(
                f"{level['bind'].origin}: it takes the place of {name}, which is also given; "
                "use one or the other"
            )


def _from_arguments(arguments: Mapping[str, object], source: Source) -> _Level:
    level: _Level = {}
    for name, value in arguments.items():
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name!r}{_suggest_option(name)}")
        if value is None or (name == "bind" and value in ((), [])):
            continue
        origin = OPTIONS[name].flag if source == "command line" else f"option {name}"
        level[name] = _Given(value, origin)
    return level


def _from_environ(environ: Mapping[str, str]) -> _Level:
    by_variable = {option.variable: option.name for option in OPTIONS.values()}
    level: _Level = {}
    for variable, value in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NO_OPTIONS_OF_OURS:
            continue
        if variable not in by_variable:
            hint = did_you_mean(variable, by_variable)
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
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    level: _Level = {}
    for name, value in _own_table(document, path).items():
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name!r} in {path}{_suggest_option(name)}")
        if name == "bind" and value == []:
            continue
        level[name] = _Given(value, f"{name} in {path}")
    return level


def _own_table(document: dict[str, object], path: Path) -> dict[str, object]:
    """Return `[tool.picowsgi]`; a file that has no `[tool]` and is not a project's is all ours."""
    if "tool" not in document and path.name != "pyproject.toml":
        return document
    tools = document.get("tool", {})
    table = tools.get("picowsgi", {}) if isinstance(tools, dict) else tools
    if not isinstance(table, dict):
        raise ConfigError(f"tool.picowsgi in {path}: expected a table, got {table!r}")
    return table


def _suggest_option(name: str) -> str:
    return did_you_mean(name.lower().replace("-", "_"), OPTIONS)
