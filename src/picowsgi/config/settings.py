"""The one table of options.

The command line, the keywords of the Python API, the environment and the configuration file are
all made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from picowsgi.app.middleware import parse_static
from picowsgi.app.mount import parse_mount
from picowsgi.config.option import GIB, KIB, MIB, UNSET, Option, option
from picowsgi.system.sockets import Bind, parse_bind, parse_host
from picowsgi.threads.access_log import check_format

if TYPE_CHECKING:
    from collections.abc import Mapping


def _check_poller(name: str) -> None:
    from picowsgi.core import POLLERS  # only then: the table does not need the core

    if name != "auto" and name not in POLLERS:
        raise ValueError(f"a poller of this build, which has auto, {', '.join(POLLERS)}")


def _check_health(path: str) -> None:
    if (path and not re.fullmatch(r"/[!-~]*", path)) or "?" in path or "#" in path:
        raise ValueError("a path of printable ASCII that begins with /, without ? and #")


def _check_hooks(name: str) -> None:
    if name and not all(part.isidentifier() for part in name.split(".")):
        raise ValueError("the name of a module, such as mysite.hooks")


@dataclass(frozen=True)
class Settings:
    """Every option with its checked value. Sizes are bytes, times are seconds.

    The fields are the one table of options: the command line, the keywords of the Python API,
    the environment and the configuration file are all made from it.
    `resolve.load_settings` makes the settings; made directly, the values are not checked.
    """

    host: str = option(
        "127.0.0.1",
        kind="str",
        group="Address",
        metavar="HOST",
        help="name or address to listen on",
        everyday=True,
        check=parse_host,
    )
    port: int = option(
        8000,
        kind="int",
        group="Address",
        metavar="PORT",
        help="port to listen on; 0: any free port",
        everyday=True,
        minimum=0,
        maximum=65535,
    )
    bind: tuple[str, ...] = option(
        (),
        kind="list",
        group="Address",
        metavar="ADDRESS",
        help="HOST:PORT, unix:PATH or fd://N; repeatable",
        everyday=True,
        check=parse_bind,
    )
    backlog: int = option(
        1024,
        kind="int",
        group="Address",
        metavar="N",
        help="connections that may wait for accept",
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
    unix_socket_group: str = option(
        "",
        kind="str",
        group="Address",
        metavar="GROUP",
        help="group that may use unix sockets (mode 660)",
    )
    poller: str = option(
        "auto",
        kind="choice",
        group="Address",
        metavar="NAME",
        help="auto, epoll, kqueue or poll",
        choices=("auto", "epoll", "kqueue", "poll"),
        check=_check_poller,
    )

    mount: tuple[str, ...] = option(
        (),
        kind="list",
        group="Application",
        metavar="PREFIX=APP",
        help="serve APP below /PREFIX; repeatable",
        everyday=True,
        check=parse_mount,
    )
    reload: bool = option(
        False,
        kind="flag",
        group="Development",
        metavar="",
        help="restart when a file changes",
        everyday=True,
    )
    reload_dir: tuple[str, ...] = option(
        (),
        kind="list",
        group="Development",
        metavar="DIR",
        help="directory to watch instead of the current one",
    )
    reload_include: tuple[str, ...] = option(
        (),
        kind="list",
        group="Development",
        metavar="GLOB",
        help="watch these files too; repeatable",
    )
    reload_exclude: tuple[str, ...] = option(
        (),
        kind="list",
        group="Development",
        metavar="GLOB",
        help="do not watch these files; repeatable",
    )
    debug: bool = option(
        False,
        kind="flag",
        group="Development",
        metavar="",
        help="show tracebacks in the browser",
        everyday=True,
    )
    open: bool = option(
        False,
        kind="flag",
        group="Development",
        metavar="",
        help="open the browser when the server is ready",
        everyday=True,
    )
    static: tuple[str, ...] = option(
        (),
        kind="list",
        group="Development",
        metavar="URL=DIR",
        help="serve the files of DIR below URL; repeatable",
        everyday=True,
        check=parse_static,
    )

    workers: int = option(
        1,
        kind="workers",
        group="Processes",
        metavar="N",
        help="worker processes; auto: one for each CPU",
        everyday=True,
        minimum=1,
        maximum=1024,
    )
    threads: int = option(
        16,
        kind="int",
        group="Processes",
        metavar="N",
        help="maximum of application threads in a process",
        everyday=True,
        minimum=1,
        maximum=4096,
    )
    loops: int = option(
        0,
        kind="int",
        group="Processes",
        metavar="N",
        help="event loops in a process; 0: automatic",
        minimum=0,
        maximum=1024,
    )
    preload: bool = option(
        False,
        kind="flag",
        group="Processes",
        metavar="",
        help="load the application before the fork",
    )
    hooks: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="MODULE",
        help="functions to call as processes start and end",
        check=_check_hooks,
    )
    max_requests: int = option(
        0,
        kind="int",
        group="Processes",
        metavar="N",
        help="replace a worker after N requests; 0: never",
        minimum=0,
        maximum=2**62,
    )
    max_requests_jitter: int = option(
        0,
        kind="int",
        group="Processes",
        metavar="N",
        help="add a random 0 to N to --max-requests",
        minimum=0,
        maximum=2**62,
    )
    max_worker_rss: int = option(
        0,
        kind="size",
        group="Processes",
        metavar="SIZE",
        help="replace a worker above this memory; 0: never",
        minimum=0,
        maximum=2**63 - 1,
    )
    pid: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="FILE",
        help="write the process ID to FILE",
    )
    user: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="NAME",
        help="run as this user after opening the sockets",
    )
    group: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="NAME",
        help="run as this group",
    )
    umask: int = option(
        UNSET,
        kind="octal",
        group="Processes",
        metavar="MODE",
        help="umask of the process, such as 027",
        minimum=UNSET,
        maximum=0o777,
    )
    chdir: str = option(
        "",
        kind="str",
        group="Processes",
        metavar="DIR",
        help="change to DIR before anything else",
    )

    max_connections: int = option(
        8192,
        kind="int",
        group="Limits",
        metavar="N",
        help="open connections in a process",
        minimum=1,
        maximum=1_000_000,
    )
    max_head_size: int = option(
        64 * KIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="request line and headers",
        minimum=256,
        maximum=4 * MIB,
    )
    head_memory_total: int = option(
        32 * MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="headers of all incomplete requests",
        minimum=64 * KIB,
        maximum=2**63 - 1,
    )
    max_fields: int = option(
        100,
        kind="int",
        group="Limits",
        metavar="N",
        help="headers in a request",
        minimum=1,
        maximum=1024,
    )
    max_body_size: int = option(
        GIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="request body; 0: no limit",
        minimum=0,
        maximum=2**63 - 1,
    )
    body_memory: int = option(
        MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="keep larger request bodies in a file",
        minimum=0,
        maximum=GIB,
    )
    body_memory_total: int = option(
        64 * MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="request bodies in memory, all together",
        minimum=0,
        maximum=2**63 - 1,
    )
    response_buffer: int = option(
        MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="unsent stream bytes in memory",
        minimum=KIB,
        maximum=GIB,
    )
    response_spool: int = option(
        64 * MIB,
        kind="size",
        group="Limits",
        metavar="SIZE",
        help="unsent stream bytes on disk; 0: none",
        minimum=0,
        maximum=2**62,
    )
    underscore_fields: str = option(
        "drop",
        kind="choice",
        group="Limits",
        metavar="WHAT",
        help="headers with _: drop, refuse or allow",
        choices=("drop", "refuse", "allow"),
    )

    timeout_head: float = option(
        10.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="to receive the request line and headers",
        minimum=0.001,
        maximum=86400,
    )
    timeout_body: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="without progress of a request body",
        minimum=0.001,
        maximum=86400,
    )
    timeout_write: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="without progress of a response",
        minimum=0.001,
        maximum=86400,
    )
    timeout_keep_alive: float = option(
        75.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="an idle connection stays open",
        minimum=0.001,
        maximum=86400,
    )
    timeout_drain: float = option(
        0.25,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="idle, while the server shuts down",
        minimum=0,
        maximum=3600,
    )
    timeout_graceful: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="to finish open requests at shutdown",
        minimum=0,
        maximum=86400,
    )

    drain_delay: float = option(
        0.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="keep serving after SIGTERM, but unready",
        minimum=0,
        maximum=86400,
    )
    timeout_request: float = option(
        0.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="in the application; 0: no limit",
        minimum=0,
        maximum=86400,
    )
    timeout_queue: float = option(
        0.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="to wait for a free thread; 0: no limit",
        minimum=0,
        maximum=86400,
    )
    timeout_worker: float = option(
        30.0,
        kind="seconds",
        group="Timeouts",
        metavar="TIME",
        help="kill a worker without heartbeat; 0: never",
        minimum=0,
        maximum=86400,
    )

    health: str = option(
        "",
        kind="str",
        group="Health and logs",
        metavar="PATH",
        help="answer this path without the application",
        check=_check_health,
    )
    health_live: str = option(
        "",
        kind="str",
        group="Health and logs",
        metavar="PATH",
        help="the same, and 200 during a shutdown too",
        check=_check_health,
    )
    access_log: str = option(
        "auto",
        kind="choice",
        group="Health and logs",
        metavar="",
        help="log requests; auto: only in a terminal",
        everyday=True,
        choices=("auto", "on", "off"),
        switch=True,
    )
    access_log_file: str = option(
        "-",
        kind="str",
        group="Health and logs",
        metavar="FILE",
        help="file of the access log; -: standard output",
    )
    access_log_format: str = option(
        "auto",
        kind="str",
        group="Health and logs",
        metavar="FORMAT",
        help="short, common, combined, json or %(h)s",
        check=check_format,
    )
    access_log_slow: float = option(
        1.0,
        kind="seconds",
        group="Health and logs",
        metavar="TIME",
        help="mark slower requests; 0: none",
        minimum=0,
        maximum=86400,
    )
    log_level: str = option(
        "info",
        kind="choice",
        group="Health and logs",
        metavar="LEVEL",
        help="debug, info, warning or error",
        everyday=True,
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = option(
        "text",
        kind="choice",
        group="Health and logs",
        metavar="FORMAT",
        help="text or json, for the error log",
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

    ignored: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Variables of the environment that look like options, and describe a Service of Kubernetes."""

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
