"""The compiled core: its numbers and its functions. No module outside this package imports it.

The other modules have the objects that live longer than a call, and `__all__` has their names.
Never decides anything about a request or a response: it passes numbers and bytes on.
"""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

from picowsgi._core import ffi, lib
from picowsgi.core.metrics import Exporter, Metrics
from picowsgi.core.poller import POLLERS, check_poller
from picowsgi.core.server import AccessOutput, Balance, CoreServer, CoreThread, Incident
from picowsgi.system.cpus import has_gil

__all__ = [
    "POLLERS",
    "AccessOutput",
    "Balance",
    "CoreServer",
    "CoreThread",
    "Exporter",
    "Incident",
    "Metrics",
    "check_poller",
]

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
