"""The compiled core as Python objects; the only module that imports it.

Never decides anything about a request or a response: it passes numbers and bytes on.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
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
unpack = ffi.unpack


def request_id(request: Any) -> str:
    """Return the id of the request that a thread is at; empty where requests get none."""
    name: str = ffi.string(request.id).decode("latin-1")
    return name


#: Whether bytes may be moved in memory, as by PyPy's collector. There the core is given `pin(data)`
#: for what it may still read after a call: as long as that lives, its bytes stay where they are.
BYTES_MOVE: bool = sys.implementation.name == "pypy"
pin = ffi.from_buffer

_UNDERSCORE = {
    "drop": lib.PW_UNDERSCORE_DROP,
    "refuse": lib.PW_UNDERSCORE_REFUSE,
    "allow": lib.PW_UNDERSCORE_ALLOW,
}

#: How often --response-spool all streams together may have.
_SPOOLS = 16

#: Roughly what a server holds, in bytes: PyPy's collector does not see that, and would let many
#: servers that have ended wait, and their descriptors with them.
_SERVER_SIZE = 1 << 20


def _read_keys() -> tuple[str, ...]:
    keys: list[str] = []
    for number in count():
        key = lib.pw_key(number)
        if key == ffi.NULL:
            return tuple(keys)
        keys.append(ffi.string(key).decode("ascii"))
    raise AssertionError


#: The environ keys that the core has a number for, by number.
KEYS = _read_keys()


def die_with_parent(number: int) -> None:
    """Have the system send this process the signal when its parent dies, where it can."""
    lib.pw_die_with_parent(number)


def gets_orphans() -> bool:
    """Return whether the system gives this process children of others, as it does to process 1."""
    return bool(lib.pw_gets_orphans())


def share_heap() -> None:
    """Give this process one heap, where Python lets one thread allocate at a time anyway."""
    if has_gil():
        lib.pw_share_heap()


def build() -> list[str]:
    """Return how the core was built, and the SIMD it uses here: compiler, poller, parser, ..."""
    return ffi.string(lib.pw_build()).decode("ascii").split("; ")


def _read_pollers() -> tuple[str, ...]:
    names = takewhile(lambda name: name != ffi.NULL, map(lib.pw_poller_name, count()))
    return tuple(ffi.string(name).decode("ascii") for name in names)


#: What `--poller` may name in this build, the best one first.
POLLERS = _read_pollers()


def check_poller(settings: Settings) -> None:
    """Raise ConfigError where this build lacks the poller that the settings ask for."""
    if settings.poller not in ("auto", *POLLERS):
        origin = settings.sources.get("poller", "option poller")
        raise ConfigError(
            f"{origin}: expected a poller of this build, which has auto, {', '.join(POLLERS)}, "
            f"got {settings.poller!r}"
        )


class Balance:
    """How many connections each of the processes has that share the sockets (`pw_balance`).

    To be made before they are forked. Raises MemoryError.
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
    """What has happened to a request (`pw_incident`)."""

    what: int
    error: int
    unsent: int
    address: str
    port: str
    line: str
    request_id: str


class AccessOutput(NamedTuple):
    """Where the access log goes, and the program of its lines; `descriptor` -1: nowhere.

    `json`: the program makes JSON. `prompt`: a line is written at once. `request_ids`: each request
    gets an id, whether a line has it or not.
    """

    descriptor: int = -1
    program: bytes = b""
    json: bool = False
    prompt: bool = False
    request_ids: bool = False


_NO_ACCESS_LOG = AccessOutput()


class CoreServer:
    """Listening sockets and their event loop (`pw_server`).

    Raises OSError where the system refuses, ConfigError as `check_poller` does, PatchedError where
    a library has changed the system. In a forked child it has stopped (`system.fork_guard`).
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        settings: Settings,
        access: AccessOutput = _NO_ACCESS_LOG,
        balance: Balance | None = None,
    ) -> None:
        """`balance` is for processes that share the sockets."""
        refuse_patched()
        occupy_standard()
        check_poller(settings)
        directory = ffi.new("char[]", os.fsencode(tempfile.gettempdir()))
        health = ffi.new("char[]", settings.health.encode("ascii"))
        live = ffi.new("char[]", settings.health_live.encode("ascii"))
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
        }
        server = lib.pw_server_new(ffi.new("pw_settings *", fields))
        if server == ffi.NULL:
            number = ffi.errno
            raise OSError(number, f"the core could not be started: {os.strerror(number)}")
        #: What Python has lent to the core, by the number of the exchange, with the thread that has
        #: lent it. An item is put in before the core gets it, and taken out when the core has named
        #: its number (PW_NEWS_SENT), by nothing else.
        self.loans: dict[int, tuple[ref[CoreThread], object]] = {}
        # Both must outlive the server: it reads the one, and leaves the other at its end.
        self.pointer = ffi.gc(server, partial(_free_server, self.loans, balance), _SERVER_SIZE)
        self._sockets = list(sockets)
        fork_guard.guard(self)
        for sock in sockets:
            number = lib.pw_server_listen(self.pointer, sock.fileno())
            if number != 0:
                raise OSError(number, os.strerror(number))

    def before_fork(self) -> None:
        """Hold the core's lock, so that a child finds what it has to close in order."""
        lib.pw_server_hold(self.pointer)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        lib.pw_server_unhold(self.pointer)

    def after_fork_in_child(self) -> None:
        """Close all sockets in this process; from now on the server has stopped here."""
        lib.pw_server_forked(self.pointer)
        for sock in self._sockets:
            sock.close()

    def share(self, source: socket.socket, target: socket.socket) -> None:
        """Take connections from one end of a pair, and leave them to the other one at the end."""
        number = lib.pw_server_share(self.pointer, source.fileno(), target.fileno())
        if number != 0:
            raise OSError(number, os.strerror(number))

    def watch(self) -> tuple[int, int]:
        """Look after the serving threads; blocks until there is something to do.

        Returns WATCH_START, WATCH_INCIDENT, WATCH_SLOW or WATCH_STUCK and the number of a thread,
        or WATCH_STOP and how many threads will not come back, if only these have a request.
        One thread that serves no request calls this.
        """
        answer: int = lib.pw_watch(self.pointer)
        return answer & lib.PW_WATCH_MASK, answer >> lib.PW_WATCH_SHIFT

    def note_failed_thread(self) -> None:
        """Say that the thread of WATCH_START could not be started."""
        lib.pw_watch_failed(self.pointer)

    def incidents(self) -> Iterator[Incident]:
        """Take what has happened to requests that are not answered in full."""
        incident = ffi.new("pw_incident *")
        while lib.pw_incident_take(self.pointer, incident):
            texts = (incident.address, incident.port, incident.line, incident.id)
            address, port, line, name = (ffi.string(text).decode("latin-1") for text in texts)
            yield Incident(
                incident.what, incident.error, incident.unsent, address, port, line, name
            )

    def log_to(self, descriptor: int) -> None:
        """Write the access log to this descriptor from now on."""
        lib.pw_server_log_to(self.pointer, descriptor)

    @property
    def dropped_headers(self) -> int:
        """How many headers were not passed on because of an underscore in their name."""
        number: int = lib.pw_server_dropped(self.pointer)
        return number

    def end_log(self, most: float, quiet: float) -> int:
        """Write the lines of the access log that wait, once nothing serves.

        It stops after `most` seconds, or after `quiet` seconds in which the file takes nothing.
        Returns the number of dropped lines that no incident has reported.
        """
        lost: int = lib.pw_server_log_end(self.pointer, _milliseconds(most), _milliseconds(quiet))
        return lost

    @property
    def requests(self) -> int:
        """How many requests have been handed out."""
        number: int = lib.pw_server_requests(self.pointer)
        return number

    def fileno(self) -> int:
        """Return what is readable when there is something for `next_request` to do.

        -1 where the poller has no such descriptor.
        """
        descriptor: int = lib.pw_server_descriptor(self.pointer)
        return descriptor

    def wake(self) -> None:
        """End a wait of `next_request_within`. From any thread, or a signal handler."""
        lib.pw_server_wake(self.pointer)

    def announce_stop(self) -> None:
        """Be unready from now on, and serve as before. From any thread, or a signal handler."""
        lib.pw_server_announce_stop(self.pointer)

    def stop(self, how: int) -> None:
        """Stop: DRAIN, LEAVE or END (`pw_server_stop`). From any thread, or a signal handler."""
        lib.pw_server_stop(self.pointer, how)


def _free_server(
    _loans: object,
    _balance: Balance | None,
    server: Any,
    free: Callable[[Any], None] = lib.pw_server_free,
) -> None:
    free(server)  # not the module's, which may have been cleared at the end of the program


class CoreThread:
    """What one serving thread needs of the core (`pw_thread`); `number` is for `watch`.

    The server lives at least as long as `pointer`, which each response has: a thread of the
    application may be sending for one.
    """

    def __init__(self, server: CoreServer, number: int) -> None:
        pointer = lib.pw_thread_new(server.pointer, number)
        if pointer == ffi.NULL:
            raise MemoryError

        self.pointer: Any = ffi.gc(pointer, partial(_free_thread, server.pointer))
        #: For what this thread lends.
        self.owner = ref(self)
        self.request: Any = lib.pw_thread_request(pointer)
        block, size = lib.pw_thread_block(pointer), lib.pw_thread_block_size(pointer)
        self.block: Any = ffi.buffer(block, size)
        #: One number, `request.block_size`, which is read so in a third of the time.
        self.block_size = memoryview(
            ffi.buffer(ffi.addressof(self.request, "block_size"), ffi.sizeof("int64_t"))
        ).cast("q")


def _free_thread(
    _server: Any, thread: Any, free: Callable[[Any], None] = lib.pw_thread_free
) -> None:
    free(thread)


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 2**31 - 1)
