"""The one table of options.

The command line, the keywords of the Python API, the environment and the configuration file all use
it. Never imports the core, because tools read the table where the core may not be built.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from picowsgi.config.log_format import check_format
from picowsgi.config.option import GIB, KIB, MIB, UNSET, Option, Section
from picowsgi.config.values import (
    Trusted,
    check_health,
    check_metrics,
    check_module,
    check_root_path,
    parse_bind,
    parse_host,
    parse_mount,
    parse_static,
    parse_trusted,
)
from picowsgi.system.sockets import Bind

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADDRESS = Section("Address")
_APPLICATION = Section("Application")
_DEVELOPMENT = Section("Development")
_PROCESSES = Section("Processes")
_LIMITS = Section("Limits")
_TIMEOUTS = Section("Timeouts")
_LOGS = Section("Health and logs")


@dataclass(frozen=True)
class Settings:
    """Every option with its checked value. Sizes are bytes, times are seconds.

    The fields are the table. `load.load_settings` makes the settings and checks their values. The
    constructor does not check them.
    """

    host: str = _ADDRESS.option(
        "127.0.0.1",
        kind="str",
        metavar="HOST",
        check=parse_host,
        everyday=True,
        help="name or address to listen on",
    )
    port: int = _ADDRESS.option(
        8000,
        kind="int",
        metavar="PORT",
        minimum=0,
        maximum=65535,
        everyday=True,
        help="port to listen on; 0: any free port",
    )
    bind: tuple[str, ...] = _ADDRESS.option(
        (),
        kind="list",
        metavar="ADDRESS",
        check=parse_bind,
        everyday=True,
        short="b",
        help="HOST:PORT, unix:PATH or fd://N; repeatable",
    )
    backlog: int = _ADDRESS.option(
        1024, kind="int", minimum=1, maximum=65535, help="connections that may wait for accept"
    )
    unix_socket_mode: int = _ADDRESS.option(
        UNSET,
        kind="octal",
        minimum=UNSET,
        maximum=0o777,
        help="permissions of unix sockets, such as 660",
    )
    unix_socket_group: str = _ADDRESS.option(
        "", kind="str", metavar="GROUP", help="group that may use unix sockets (mode 660)"
    )
    poller: str = _ADDRESS.option(
        "auto",
        kind="choice",
        metavar="NAME",
        choices=("auto", "epoll", "kqueue", "poll"),
        help="auto, epoll, kqueue or poll",
    )

    forwarded_allow_ips: tuple[str, ...] = _ADDRESS.option(
        ("127.0.0.1", "::1", "unix"),
        kind="list",
        metavar="LIST",
        check=parse_trusted,
        commas=True,
        help="trusted proxies, *, or none",
    )
    proxy_protocol: bool = _ADDRESS.option(
        False, kind="flag", help="expect a PROXY header of a trusted proxy"
    )
    root_path: str = _ADDRESS.option(
        "",
        kind="str",
        metavar="PATH",
        check=check_root_path,
        help="path of the application at the proxy",
    )

    app: str = _APPLICATION.option(
        "",
        kind="str",
        metavar="APP",
        command_only=True,
        help="the application, also the argument APP",
    )
    factory: bool = _APPLICATION.option(
        False, kind="flag", command_only=True, help="APP is a function that returns it"
    )
    app_dir: tuple[str, ...] = _APPLICATION.option(
        (), kind="list", metavar="DIR", help="search modules here first; repeatable"
    )
    env_file: tuple[str, ...] = _APPLICATION.option(
        (),
        kind="list",
        metavar="FILE",
        everyday=True,
        command_only=True,
        help="file of variables, such as .env; repeatable",
    )
    mount: tuple[str, ...] = _APPLICATION.option(
        (),
        kind="list",
        metavar="PREFIX=APP",
        check=parse_mount,
        everyday=True,
        help="serve APP below /PREFIX; repeatable",
    )
    reload: bool = _DEVELOPMENT.option(
        False, kind="flag", everyday=True, help="restart when a file changes"
    )
    reload_dir: tuple[str, ...] = _DEVELOPMENT.option(
        (), kind="list", metavar="DIR", help="directory to watch instead of the current one"
    )
    reload_include: tuple[str, ...] = _DEVELOPMENT.option(
        (), kind="list", metavar="GLOB", help="watch these files too; repeatable"
    )
    reload_exclude: tuple[str, ...] = _DEVELOPMENT.option(
        (), kind="list", metavar="GLOB", help="do not watch these files; repeatable"
    )
    live_reload: str = _DEVELOPMENT.option(
        "auto",
        kind="choice",
        metavar="",
        choices=("auto", "on", "off"),
        switch=True,
        help="reload pages in the browser too",
    )
    debug: bool = _DEVELOPMENT.option(
        False, kind="flag", everyday=True, help="show tracebacks in the browser"
    )
    open: bool = _DEVELOPMENT.option(
        False, kind="flag", everyday=True, help="open the browser when the server is ready"
    )
    static: tuple[str, ...] = _DEVELOPMENT.option(
        (),
        kind="list",
        metavar="URL=DIR",
        check=parse_static,
        everyday=True,
        help="serve the files of DIR below URL; repeatable",
    )

    workers: int = _PROCESSES.option(
        1,
        kind="workers",
        minimum=1,
        maximum=1024,
        everyday=True,
        short="w",
        help="worker processes; auto: one for each CPU",
    )
    threads: int = _PROCESSES.option(
        16,
        kind="int",
        minimum=1,
        maximum=4096,
        everyday=True,
        short="t",
        help="maximum of application threads in a process",
    )
    loops: int = _PROCESSES.option(
        0, kind="int", minimum=0, maximum=1024, help="event loops in a process; 0: automatic"
    )
    preload: bool = _PROCESSES.option(
        False, kind="flag", help="load the application before the fork"
    )
    hooks: str = _PROCESSES.option(
        "",
        kind="str",
        metavar="MODULE",
        check=check_module,
        help="functions to call as processes start and end",
    )
    max_requests: int = _PROCESSES.option(
        0, kind="int", minimum=0, maximum=2**62, help="replace a worker after N requests; 0: never"
    )
    max_requests_jitter: int = _PROCESSES.option(
        0, kind="int", minimum=0, maximum=2**62, help="add a random 0 to N to --max-requests"
    )
    max_worker_rss: int = _PROCESSES.option(
        0,
        kind="size",
        minimum=0,
        maximum=2**63 - 1,
        help="replace a worker above this memory; 0: never",
    )
    pid: str = _PROCESSES.option(
        "", kind="str", metavar="FILE", help="write the process ID to FILE"
    )
    user: str = _PROCESSES.option(
        "", kind="str", metavar="NAME", help="run as this user after opening the sockets"
    )
    group: str = _PROCESSES.option("", kind="str", metavar="NAME", help="run as this group")
    umask: int = _PROCESSES.option(
        UNSET, kind="octal", minimum=UNSET, maximum=0o777, help="umask of the process, such as 027"
    )
    chdir: str = _PROCESSES.option(
        "", kind="str", metavar="DIR", help="change to DIR before anything else"
    )

    max_connections: int = _LIMITS.option(
        8192, kind="int", minimum=1, maximum=1_000_000, help="open connections in a process"
    )
    max_head_size: int = _LIMITS.option(
        64 * KIB,
        kind="size",
        minimum=256,
        maximum=4 * MIB,
        help="size of the request line and headers",
    )
    head_memory_total: int = _LIMITS.option(
        32 * MIB,
        kind="size",
        minimum=64 * KIB,
        maximum=2**63 - 1,
        help="memory for heads of incomplete requests",
    )
    max_fields: int = _LIMITS.option(
        100, kind="int", minimum=1, maximum=1024, help="headers in a request"
    )
    max_body_size: int = _LIMITS.option(
        GIB, kind="size", minimum=0, maximum=2**63 - 1, help="size of a request body; 0: no limit"
    )
    body_memory: int = _LIMITS.option(
        MIB, kind="size", minimum=0, maximum=GIB, help="keep larger request bodies in a file"
    )
    body_memory_total: int = _LIMITS.option(
        64 * MIB,
        kind="size",
        minimum=0,
        maximum=2**63 - 1,
        help="memory for all request bodies",
    )
    response_buffer: int = _LIMITS.option(
        MIB, kind="size", minimum=KIB, maximum=GIB, help="unsent stream bytes in memory"
    )
    response_spool: int = _LIMITS.option(
        64 * MIB, kind="size", minimum=0, maximum=2**62, help="unsent stream bytes on disk; 0: none"
    )
    underscore_fields: str = _LIMITS.option(
        "drop",
        kind="choice",
        metavar="WHAT",
        choices=("drop", "refuse", "allow"),
        help="headers with _: drop, refuse or allow",
    )

    timeout_head: float = _TIMEOUTS.option(
        10.0,
        kind="seconds",
        minimum=0.001,
        maximum=86400,
        help="limit for the request line and headers",
    )
    timeout_body: float = _TIMEOUTS.option(
        30.0,
        kind="seconds",
        minimum=0.001,
        maximum=86400,
        help="limit without progress of a request body",
    )
    timeout_write: float = _TIMEOUTS.option(
        30.0,
        kind="seconds",
        minimum=0.001,
        maximum=86400,
        help="limit without progress of a response",
    )
    timeout_keep_alive: float = _TIMEOUTS.option(
        75.0,
        kind="seconds",
        minimum=0.001,
        maximum=86400,
        help="close a connection after this idle time",
    )
    timeout_drain: float = _TIMEOUTS.option(
        0.25, kind="seconds", minimum=0, maximum=3600, help="the same, while the server shuts down"
    )
    timeout_graceful: float = _TIMEOUTS.option(
        30.0, kind="seconds", minimum=0, maximum=86400, help="limit for open requests at shutdown"
    )

    drain_delay: float = _TIMEOUTS.option(
        0.0,
        kind="seconds",
        minimum=0,
        maximum=86400,
        help="keep serving after SIGTERM, but unready",
    )
    timeout_request: float = _TIMEOUTS.option(
        0.0, kind="seconds", minimum=0, maximum=86400, help="limit in the application; 0: none"
    )
    timeout_queue: float = _TIMEOUTS.option(
        0.0,
        kind="seconds",
        minimum=0,
        maximum=86400,
        help="limit to wait for a free thread; 0: none",
    )
    timeout_worker: float = _TIMEOUTS.option(
        30.0,
        kind="seconds",
        minimum=0,
        maximum=86400,
        help="kill a worker without heartbeat; 0: never",
    )

    health: str = _LOGS.option(
        "",
        kind="str",
        metavar="PATH",
        check=check_health,
        help="answer this path without the application",
    )
    health_live: str = _LOGS.option(
        "",
        kind="str",
        metavar="PATH",
        check=check_health,
        help="the same, and 200 during a shutdown too",
    )
    metrics: str = _LOGS.option(
        "",
        kind="str",
        metavar="ADDRESS",
        check=check_metrics,
        help="serve metrics on HOST:PORT or unix:PATH",
    )
    access_log: str = _LOGS.option(
        "auto",
        kind="choice",
        metavar="",
        choices=("auto", "on", "off"),
        switch=True,
        everyday=True,
        help="log requests; auto: only in a terminal",
    )
    access_log_file: str = _LOGS.option(
        "-", kind="str", metavar="FILE", help="file of the access log; -: standard output"
    )
    access_log_format: str = _LOGS.option(
        "auto",
        kind="str",
        metavar="FORMAT",
        check=check_format,
        help="short, common, combined, json or %(h)s",
    )
    access_log_slow: float = _LOGS.option(
        1.0, kind="seconds", minimum=0, maximum=86400, help="mark slower requests; 0: none"
    )
    log_level: str = _LOGS.option(
        "info",
        kind="choice",
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
        everyday=True,
        help="debug, info, warning or error",
    )
    log_format: str = _LOGS.option(
        "text",
        kind="choice",
        metavar="FORMAT",
        choices=("text", "json"),
        help="text or json, for all lines",
    )
    request_id: bool = _LOGS.option(
        False, kind="flag", help="give each request an ID (X-Request-ID)"
    )
    error_log: str = _LOGS.option(
        "-", kind="str", metavar="FILE", help="file of the error log; -: standard error"
    )
    log_config: str = _LOGS.option(
        "", kind="str", metavar="FILE", help="TOML or JSON for logging.config.dictConfig"
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The origin of each value that is not a default, as a text, by the option's name."""

    ignored: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Environment variables that look like options, but describe a Service of Kubernetes."""

    def is_from_caller(self, name: str) -> bool:
        """Return whether the command line or a keyword has the option.

        A value in the environment or in a file may be for other commands.
        """
        return self.sources.get(name) in (OPTIONS[name].flag, f"option {name}")

    @property
    def drops_forwarded(self) -> bool:
        """Whether `Forwarded` and the like are removed from the requests of other peers.

        With the default they are not: the application may trust a proxy on another machine.
        """
        return "forwarded_allow_ips" in self.sources

    def trusted(self) -> list[Trusted]:
        """Return the peers that are trusted to name their client."""
        return [one for one in map(parse_trusted, self.forwarded_allow_ips) if one is not None]

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
