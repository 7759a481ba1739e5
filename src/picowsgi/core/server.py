"""A server of the core and its serving threads as Python objects.

Never decides anything about a request or a response: it passes numbers and bytes on.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from picowsgi._core import ffi, lib
from picowsgi.core.metrics import Metrics
from picowsgi.core.poller import check_poller
from picowsgi.system import fork_guard
from picowsgi.system.cpus import has_gil
from picowsgi.system.descriptors import occupy_standard
from picowsgi.system.monkey import refuse_patched

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings

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
