"""The compiled core as Python objects. No other module imports the core.

Never decides anything about a request or a response: it passes numbers and bytes on.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from picowsgi._core import ffi, lib
from picowsgi.errors import ConfigError
from picowsgi.system import fork_guard
from picowsgi.system.cpus import has_gil
from picowsgi.system.descriptors import occupy_standard
from picowsgi.system.monkey import refuse_patched

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings

# The numbers of csrc/api.h that the modules of a request use.
SAME: int = lib.PW_SAME
CHANGED: int = lib.PW_CHANGED
NEW: int = lib.PW_NEW
STORE: int = lib.PW_STORE
KIND: int = lib.PW_KIND
CONTENT: int = lib.PW_CONTENT
IN_FILE: int = lib.PW_IN_FILE
UPGRADE: int = lib.PW_UPGRADE
OTHER_NAMES: int = lib.PW_OTHER_NAMES
NEWS: int = lib.PW_NEWS
NEWS_SENT: int = lib.PW_NEWS_SENT
NEWS_MASK: int = lib.PW_NEWS_MASK
NEWS_SHIFT: int = lib.PW_NEWS_SHIFT
ENTRY_SHIFT: int = lib.PW_ENTRY_SHIFT
ENTRY_BITS: int = lib.PW_ENTRY_MASK << lib.PW_ENTRY_SHIFT
OTHER_NAME: int = lib.PW_OTHER_NAME
STOP: int = lib.PW_STOP
STARTED: int = lib.PW_STARTED
IDLE: int = lib.PW_IDLE
WATCH_STOP: int = lib.PW_WATCH_STOP
WATCH_START: int = lib.PW_WATCH_START
WATCH_SLOW: int = lib.PW_WATCH_SLOW
WATCH_STUCK: int = lib.PW_WATCH_STUCK
WATCH_INCIDENT: int = lib.PW_WATCH_INCIDENT
INCIDENT_STORAGE: int = lib.PW_INCIDENT_STORAGE
INCIDENT_MEMORY: int = lib.PW_INCIDENT_MEMORY
INCIDENT_WRITE_TIMEOUT: int = lib.PW_INCIDENT_WRITE_TIMEOUT
INCIDENT_STOP: int = lib.PW_INCIDENT_STOP
INCIDENT_SHORT: int = lib.PW_INCIDENT_SHORT
INCIDENT_LOST: int = lib.PW_INCIDENT_LOST
INCIDENT_HEADS: int = lib.PW_INCIDENT_HEADS
INCIDENT_QUEUE: int = lib.PW_INCIDENT_QUEUE
INCIDENT_STUCK: int = lib.PW_INCIDENT_STUCK
INCIDENT_BACKLOG: int = lib.PW_INCIDENT_BACKLOG
INCIDENT_LOG: int = lib.PW_INCIDENT_LOG
INCIDENT_UNDERSCORE: int = lib.PW_INCIDENT_UNDERSCORE
INCIDENT_PROXY_PEER: int = lib.PW_INCIDENT_PROXY_PEER
INCIDENT_PROXY_MISSING: int = lib.PW_INCIDENT_PROXY_MISSING
INCIDENT_PROXY_MALFORMED: int = lib.PW_INCIDENT_PROXY_MALFORMED
INCIDENT_PROXY_LONG: int = lib.PW_INCIDENT_PROXY_LONG
INCIDENT_PROXY_TIMEOUT: int = lib.PW_INCIDENT_PROXY_TIMEOUT
INCIDENT_ABANDONED: int = lib.PW_INCIDENT_ABANDONED
DRAIN: int = lib.PW_DRAIN
LEAVE: int = lib.PW_LEAVE
END: int = lib.PW_END
COMPLETE: int = lib.PW_COMPLETE
OVERFLOW: int = lib.PW_OVERFLOW
UNWANTED: int = lib.PW_UNWANTED
GONE: int = lib.PW_GONE
REFUSED: int = lib.PW_REFUSED
OVER: int = lib.PW_OVER
ADD_DATE: int = lib.PW_ADD_DATE
ADD_SERVER: int = lib.PW_ADD_SERVER
CLOSE: int = lib.PW_CLOSE
HAS_LENGTH: int = lib.PW_HAS_LENGTH
FINISHED: int = lib.PW_FINISHED
RETURN: int = lib.PW_RETURN
REQUEST_WAITS: int = lib.PW_REQUEST_WAITS
REQUEST_BEGUN: int = lib.PW_REQUEST_BEGUN
COPY_MOST: int = lib.PW_COPY_MOST
RESTART_EXIT: int = lib.PW_RESTART_EXIT
RESTART_SIGNAL: int = lib.PW_RESTART_SIGNAL
RESTART_TIMEOUT: int = lib.PW_RESTART_TIMEOUT
RESTART_MEMORY: int = lib.PW_RESTART_MEMORY
RESTART_REQUESTS: int = lib.PW_RESTART_REQUESTS
RESTART_RELOAD: int = lib.PW_RESTART_RELOAD
ATOM_LITERAL: int = lib.PW_ATOM_LITERAL
ATOM_ADDRESS: int = lib.PW_ATOM_ADDRESS
ATOM_USER: int = lib.PW_ATOM_USER
ATOM_METHOD: int = lib.PW_ATOM_METHOD
ATOM_TARGET: int = lib.PW_ATOM_TARGET
ATOM_PATH: int = lib.PW_ATOM_PATH
ATOM_QUERY: int = lib.PW_ATOM_QUERY
ATOM_PROTOCOL: int = lib.PW_ATOM_PROTOCOL
ATOM_FIELD: int = lib.PW_ATOM_FIELD
ATOM_TIME: int = lib.PW_ATOM_TIME
ATOM_STATUS: int = lib.PW_ATOM_STATUS
ATOM_BYTES: int = lib.PW_ATOM_BYTES
ATOM_BYTES_OR_DASH: int = lib.PW_ATOM_BYTES_OR_DASH
ATOM_SECONDS: int = lib.PW_ATOM_SECONDS
ATOM_DECIMAL_SECONDS: int = lib.PW_ATOM_DECIMAL_SECONDS
ATOM_MILLISECONDS: int = lib.PW_ATOM_MILLISECONDS
ATOM_MICROSECONDS: int = lib.PW_ATOM_MICROSECONDS
ATOM_QUEUE: int = lib.PW_ATOM_QUEUE
ATOM_RESPONSE_FIELD: int = lib.PW_ATOM_RESPONSE_FIELD
ATOM_CLOCK: int = lib.PW_ATOM_CLOCK
ATOM_DURATION: int = lib.PW_ATOM_DURATION
ATOM_IF_STATUS: int = lib.PW_ATOM_IF_STATUS
ATOM_IF_SLOW: int = lib.PW_ATOM_IF_SLOW
ATOM_REQUEST_ID: int = lib.PW_ATOM_REQUEST_ID

respond = lib.pw_respond
next_request = lib.pw_next
next_request_within = lib.pw_next_within
settle = lib.pw_settle
next_news = lib.pw_news
news_done = lib.pw_news_done
nudge = lib.pw_thread_nudge
send_data = lib.pw_send_data
send_first = lib.pw_send_first
send_file = lib.pw_send_file
send_end = lib.pw_send_end
finish = lib.pw_finish
send_interim = lib.pw_send_interim
request_state = lib.pw_request_state
client_gone = lib.pw_client_gone
check_client = lib.pw_check_client
content_missing = lib.pw_content_missing
current_exchange = lib.pw_thread_exchange
is_detached = lib.pw_is_detached
detach = lib.pw_detach
detached_end = lib.pw_detached_end
family = lib.pw_family
unpack = ffi.unpack


def request_id(request: Any) -> str:
    """Return the id of a thread's current request; an empty text if requests have no id."""
    name: str = ffi.string(request.id).decode("latin-1")
    return name


def unread(thread: Any, exchange: int) -> bytes:
    """Return the bytes that the core has received after the request; none: the request is over."""
    size = max(lib.pw_unread(thread, exchange, ffi.NULL, 0), 0)
    data = ffi.new("char[]", size)
    return bytes(ffi.buffer(data, max(lib.pw_unread(thread, exchange, data, size), 0)))


#: Whether the interpreter moves objects in memory, as PyPy's collector does. There a caller gives
#: the core `pin(data)` for bytes that the core may read after the call. While the result of `pin`
#: exists, the bytes stay at their address.
BYTES_MOVE: bool = sys.implementation.name == "pypy"
pin = ffi.from_buffer

_UNDERSCORE = {
    "drop": lib.PW_UNDERSCORE_DROP,
    "refuse": lib.PW_UNDERSCORE_REFUSE,
    "allow": lib.PW_UNDERSCORE_ALLOW,
}

_NETWORKS = {
    "all": lib.PW_NETWORK_ALL,
    "unix": lib.PW_NETWORK_UNIX,
    "v4": lib.PW_NETWORK_V4,
    "v6": lib.PW_NETWORK_V6,
}

#: All streams together may use --response-spool this many times.
_SPOOLS = 16

#: About the size of a server, in bytes. PyPy's collector does not see this memory. Without the
#: number it would keep many servers that have ended, with their descriptors.
_SERVER_SIZE = 1 << 20


def _read_keys() -> tuple[str, ...]:
    keys: list[str] = []
    for number in count():
        key = lib.pw_key(number)
        if key == ffi.NULL:
            return tuple(keys)
        keys.append(ffi.string(key).decode("ascii"))
    raise AssertionError


#: The environ keys that have a number in the core, by number.
KEYS = _read_keys()


def die_with_parent(number: int) -> None:
    """Ask the system to send this process the signal when its parent dies, if it can do that."""
    lib.pw_die_with_parent(number)


def gets_orphans() -> bool:
    """Return whether the system gives orphans to this process, as it does to process 1."""
    return bool(lib.pw_gets_orphans())


def share_heap() -> None:
    """Give this process one heap if it has the GIL: then one thread allocates at a time anyway."""
    if has_gil():
        lib.pw_share_heap()


def build() -> list[str]:
    """Return the facts of the core's build: compiler, pollers, the parser's SIMD, and others."""
    return ffi.string(lib.pw_build()).decode("ascii").split("; ")


def _read_pollers() -> tuple[str, ...]:
    names = takewhile(lambda name: name != ffi.NULL, map(lib.pw_poller_name, count()))
    return tuple(ffi.string(name).decode("ascii") for name in names)


#: The pollers of this build that `--poller` may name; the best one is first.
POLLERS = _read_pollers()


def check_poller(settings: Settings) -> None:
    """Raise ConfigError if this build does not have the poller of the settings."""
    if settings.poller not in ("auto", *POLLERS):
        origin = settings.sources.get("poller", "option poller")
        raise ConfigError(
            f"{origin}: expected a poller of this build, which has auto, {', '.join(POLLERS)}, "
            f"got {settings.poller!r}"
        )


class Balance:
    """The number of connections in each process that shares the sockets (`pw_balance`).

    Make the object before the fork of these processes. Raises MemoryError.
    """

    def __init__(self) -> None:
        balance = lib.pw_balance_new()
        if balance == ffi.NULL:
            raise MemoryError
        self.pointer: Any = ffi.gc(balance, lib.pw_balance_free)

    def forget(self, pid: int) -> None:
        """Note that this process has ended."""
        lib.pw_balance_forget(self.pointer, pid)


class Metrics:
    """The memory for the metrics of all servers that share it (`pw_metrics`).

    `descriptor`: a file of `size()` bytes, which other processes map too; -1: only processes that
    this one forks share the memory. Raises OSError; EINVAL: another version has made the file.
    """

    def __init__(self, descriptor: int = -1) -> None:
        metrics = lib.pw_metrics_map(descriptor)
        if metrics == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self.pointer: Any = ffi.gc(metrics, lib.pw_metrics_free)

    @staticmethod
    def size() -> int:
        """Return the number of bytes of the memory."""
        size: int = lib.pw_metrics_size()
        return size

    def retire(self, pid: int) -> None:
        """Note that this process has ended, or serves no more. What it has counted stays.

        Call this before the process is reaped, so that its CPU time is still known.
        """
        lib.pw_metrics_retire(self.pointer, pid)

    def note_restart(self, reason: int) -> None:
        """Count a worker that is replaced, for one of the reasons RESTART_EXIT and so on."""
        lib.pw_metrics_restart(self.pointer, reason)


class Exporter:
    """The thread that serves the page of the metrics on a listening socket (`pw_exporter`).

    It needs no GIL. `info` has the labels of `picowsgi_info`. Raises OSError if the system refuses
    a resource.
    """

    def __init__(
        self,
        metrics: Metrics,
        sock: socket.socket,
        info: Mapping[str, str],
        *,
        paused: bool = False,
    ) -> None:
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in info.items())
        exporter = lib.pw_exporter_new(
            metrics.pointer, sock.fileno(), labels.encode("ascii"), paused
        )
        if exporter == ffi.NULL:
            raise OSError(ffi.errno, f"the metrics cannot be served: {os.strerror(ffi.errno)}")
        self._pointer: Any = ffi.gc(exporter, partial(_free_exporter, metrics))
        fork_guard.guard(self)

    def before_fork(self) -> None:
        """Let the thread stop between two steps, so that the child finds a consistent state."""
        lib.pw_exporter_hold(self._pointer)

    def after_fork_in_parent(self) -> None:
        """Let the thread continue."""
        lib.pw_exporter_unhold(self._pointer)

    def after_fork_in_child(self) -> None:
        """Close its sockets in a forked child, which does not have the thread."""
        lib.pw_exporter_forked(self._pointer)

    def pause(self, paused: bool) -> None:
        """Leave new connections to another process with the same socket, or take them again."""
        lib.pw_exporter_pause(self._pointer, paused)

    def close(self) -> None:
        """End the thread and its connections."""
        ffi.release(self._pointer)


def _free_exporter(
    _metrics: Metrics, exporter: Any, free: Callable[[Any], None] = lib.pw_exporter_free
) -> None:
    free(exporter)


def _escape(value: str) -> str:
    """Return a value of a label with the escapes of Prometheus's text format, in ASCII."""
    value = value.encode("ascii", "replace").decode("ascii")
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Incident(NamedTuple):
    """An accepted request that was not answered in full, or a closed connection (`pw_incident`).

    `proxy` is the address and the port of the proxy that has named the client, or None.
    """

    what: int
    error: int
    unsent: int
    address: str
    port: str
    line: str
    request_id: str
    proxy: tuple[str, str] | None = None


class AccessOutput(NamedTuple):
    """The descriptor of the access log (-1: no log), and the program that makes its lines.

    `json`: the program makes JSON. `prompt`: the core writes each line at once. `request_ids`: each
    request gets an id, even if no line shows it.
    """

    descriptor: int = -1
    program: bytes = b""
    json: bool = False
    prompt: bool = False
    request_ids: bool = False


_NO_ACCESS_LOG = AccessOutput()


class CoreServer:
    """Listening sockets and their event loop (`pw_server`).

    Raises OSError if the system refuses a resource, ConfigError as `check_poller` does, and
    PatchedError as `refuse_patched` does. In a forked child the server has stopped
    (`system.fork_guard`).
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        settings: Settings,
        access: AccessOutput = _NO_ACCESS_LOG,
        balance: Balance | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`balance`: other processes share the sockets. `metrics`: the server is counted there."""
        refuse_patched()
        occupy_standard()
        check_poller(settings)
        directory = ffi.new("char[]", os.fsencode(tempfile.gettempdir()))
        health = ffi.new("char[]", settings.health.encode("ascii"))
        live = ffi.new("char[]", settings.health_live.encode("ascii"))
        root_path = ffi.new("char[]", settings.root_path.encode())
        trusted = ffi.new(
            "pw_network[]",
            [(_NETWORKS[kind], bits, address) for kind, bits, address in settings.trusted()],
        )
        access_program = ffi.new("char[]", access.program)
        poller = ffi.new("char[]", settings.poller.encode("ascii"))
        fields = {
            "max_head_size": settings.max_head_size,
            "head_memory_total": settings.head_memory_total,
            "max_body_size": settings.max_body_size,
            "body_memory": settings.body_memory,
            "body_memory_total": settings.body_memory_total,
            "response_buffer": settings.response_buffer,
            "response_spool": settings.response_spool,
            "response_spool_total": min(settings.response_spool * _SPOOLS, 2**62),
            "max_fields": settings.max_fields,
            "max_connections": settings.max_connections,
            "threads": settings.threads,
            "gil": has_gil(),
            "underscore_fields": _UNDERSCORE[settings.underscore_fields],
            "proxy_protocol": settings.proxy_protocol,
            "drop_forwarded": settings.drops_forwarded,
            "trusted": trusted,
            "trusted_count": len(trusted),
            "root_path": root_path,
            "timeout_head": _milliseconds(settings.timeout_head),
            "timeout_body": _milliseconds(settings.timeout_body),
            "timeout_write": _milliseconds(settings.timeout_write),
            "timeout_keep_alive": _milliseconds(settings.timeout_keep_alive),
            "timeout_drain": _milliseconds(settings.timeout_drain),
            "timeout_graceful": _milliseconds(settings.timeout_graceful),
            "timeout_request": _milliseconds(settings.timeout_request),
            "timeout_queue": _milliseconds(settings.timeout_queue),
            "access_file": access.descriptor,
            "access_json": access.json,
            "access_prompt": access.prompt,
            "access_program": access_program,
            "access_program_size": len(access.program),
            "request_ids": access.request_ids,
            "request_seed_1": int.from_bytes(os.urandom(8), "big", signed=True),
            "request_seed_2": int.from_bytes(os.urandom(8), "big", signed=True),
            "health_path": health,
            "live_path": live,
            "temporary_directory": directory,
            "poller": poller,
            "balance": ffi.NULL if balance is None else balance.pointer,
            "metrics": ffi.NULL if metrics is None else metrics.pointer,
        }
        server = lib.pw_server_new(ffi.new("pw_settings *", fields))
        if server == ffi.NULL:
            number = ffi.errno
            raise OSError(number, f"the core could not be started: {os.strerror(number)}")
        #: Bytes that Python has lent to the core, by the number of the exchange, and the thread
        #: that has lent them. Python adds an item before it passes the bytes to the core. It
        #: removes the item when the core names the number (PW_NEWS_SENT), and at no other time.
        self.loans: dict[int, tuple[ref[CoreThread], object]] = {}
        # These must outlive the server: it reads the loans, and at its end it leaves the others.
        kept = (self.loans, balance, metrics)
        self.pointer = ffi.gc(server, partial(_free_server, kept), _SERVER_SIZE)
        self._sockets = list(sockets)
        fork_guard.guard(self)
        for sock in sockets:
            number = lib.pw_server_listen(self.pointer, sock.fileno())
            if number != 0:
                raise OSError(number, os.strerror(number))

    def before_fork(self) -> None:
        """Take the core's lock, so that the child finds a consistent state to close."""
        lib.pw_server_hold(self.pointer)

    def after_fork_in_parent(self) -> None:
        """Release the core's lock."""
        lib.pw_server_unhold(self.pointer)

    def after_fork_in_child(self) -> None:
        """Close all sockets in this process, where the server has stopped from now on."""
        lib.pw_server_forked(self.pointer)
        for sock in self._sockets:
            sock.close()

    def share(self, source: socket.socket, target: socket.socket) -> None:
        """Take connections from `source`, and send idle ones to `target` when the server stops.

        `source` is this process's end of the pair that it shares with the previous process, and
        `target` is its end of the pair that it shares with the next one. Raises OSError.
        """
        number = lib.pw_server_share(self.pointer, source.fileno(), target.fileno())
        if number != 0:
            raise OSError(number, os.strerror(number))

    def watch(self) -> tuple[int, int]:
        """Watch the serving threads, and block until the caller has something to do.

        Returns WATCH_START, WATCH_INCIDENT, WATCH_SLOW or WATCH_STUCK, and the number of a thread.
        At the end it returns WATCH_STOP, and the number of threads that will not come back if each
        thread with a request is stuck. One thread, which serves no requests, calls this function.
        """
        answer: int = lib.pw_watch(self.pointer)
        return answer & lib.PW_WATCH_MASK, answer >> lib.PW_WATCH_SHIFT

    def note_failed_thread(self) -> None:
        """Report that the thread of WATCH_START could not be started."""
        lib.pw_watch_failed(self.pointer)

    def incidents(self) -> Iterator[Incident]:
        """Take and yield the incidents: accepted requests that are not answered in full."""
        incident = ffi.new("pw_incident *")
        while lib.pw_incident_take(self.pointer, incident):
            texts = (incident.address, incident.port, incident.line, incident.id)
            address, port, line, name = map(_text, texts)
            proxy = None
            if incident.has_proxy:
                proxy = _text(incident.proxy), _text(incident.proxy_port)
            yield Incident(
                incident.what, incident.error, incident.unsent, address, port, line, name, proxy
            )

    def log_to(self, descriptor: int) -> None:
        """Write the access log to this descriptor from now on."""
        lib.pw_server_log_to(self.pointer, descriptor)

    @property
    def dropped_headers(self) -> int:
        """The number of headers that were dropped because of an underscore in their name."""
        number: int = lib.pw_server_dropped(self.pointer)
        return number

    def end_log(self, most: float, quiet: float) -> int:
        """Write the lines of the access log that wait, after the server has ended.

        The function stops after `most` seconds, or after `quiet` seconds in which the file takes
        nothing. Returns the number of dropped lines that no incident has reported.
        """
        lost: int = lib.pw_server_log_end(self.pointer, _milliseconds(most), _milliseconds(quiet))
        return lost

    @property
    def refused_by_proxy_protocol(self) -> int:
        """The number of connections that were closed because of their PROXY header."""
        number: int = lib.pw_server_proxy_refused(self.pointer)
        return number

    @property
    def requests(self) -> int:
        """The number of requests that the core has handed to Python."""
        number: int = lib.pw_server_requests(self.pointer)
        return number

    def fileno(self) -> int:
        """Return a descriptor that is readable when `next_request` has something to do.

        Returns -1 if the poller has no descriptor.
        """
        descriptor: int = lib.pw_server_descriptor(self.pointer)
        return descriptor

    def wake(self) -> None:
        """End a wait of `next_request_within`. Any thread or signal handler may call this."""
        lib.pw_server_wake(self.pointer)

    def cut_streams(self, grace: float) -> None:
        """Cut off responses that stream, now and later, and wait `grace` seconds for their threads.

        Any thread may call this, but no signal handler.
        """
        lib.pw_server_cut_streams(self.pointer, _milliseconds(grace))

    @property
    def open_requests(self) -> int:
        """The number of requests that have begun and whose responses are not sent or cut off."""
        number: int = lib.pw_server_open(self.pointer)
        return number

    def announce_stop(self) -> None:
        """Answer health checks with 503 from now on, and serve as before.

        Each response is the last one of its connection. Any thread or signal handler may call this.
        """
        lib.pw_server_announce_stop(self.pointer)

    def stop(self, how: int) -> None:
        """Stop in one of the ways DRAIN, LEAVE and END (`pw_server_stop`).

        Any thread or signal handler may call this.
        """
        lib.pw_server_stop(self.pointer, how)


def _free_server(
    _kept: object,
    server: Any,
    free: Callable[[Any], None] = lib.pw_server_free,
) -> None:
    free(server)  # the argument: at exit the interpreter may have cleared the module's names


class CoreThread:
    """The part of the core that belongs to one serving thread (`pw_thread`).

    `watch` returns `number` for this thread. The server lives at least as long as `pointer`. Each
    response refers to `pointer`, because a thread of the application may still send a part of it.
    """

    def __init__(self, server: CoreServer, number: int) -> None:
        pointer = lib.pw_thread_new(server.pointer, number)
        if pointer == ffi.NULL:
            raise MemoryError

        self.pointer: Any = ffi.gc(pointer, partial(_free_thread, server.pointer))
        #: The owner of the bytes that this thread lends.
        self.owner = ref(self)
        self.request: Any = lib.pw_thread_request(pointer)
        block, size = lib.pw_thread_block(pointer), lib.pw_thread_block_size(pointer)
        self.block: Any = ffi.buffer(block, size)
        #: A view of one number, `request.block_size`. Reading it takes a third of the time.
        self.block_size = memoryview(
            ffi.buffer(ffi.addressof(self.request, "block_size"), ffi.sizeof("int64_t"))
        ).cast("q")


def _free_thread(
    _server: Any, thread: Any, free: Callable[[Any], None] = lib.pw_thread_free
) -> None:
    free(thread)


def _text(array: Any) -> str:
    text: str = ffi.string(array).decode("latin-1")
    return text


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 2**31 - 1)
