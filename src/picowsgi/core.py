"""The compiled core as Python objects; the only module that imports it.

Never decides anything about a request or a response: it passes numbers and bytes on.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from picowsgi._core import ffi, lib

if TYPE_CHECKING:
    from picowsgi.config import Settings

# The numbers of csrc/api.h that the modules of a request use.
SAME: int = lib.PW_SAME
SAME_FIELDS: int = lib.PW_SAME_FIELDS
STORE: int = lib.PW_STORE
KIND: int = lib.PW_KIND
CONTENT: int = lib.PW_CONTENT
OTHER_NAMES: int = lib.PW_OTHER_NAMES
NEWS: int = lib.PW_NEWS
NEWS_SENT: int = lib.PW_NEWS_SENT
ENTRY_SHIFT: int = lib.PW_ENTRY_SHIFT
ENTRY_BITS: int = lib.PW_ENTRY_MASK << lib.PW_ENTRY_SHIFT
VALUES_SHIFT: int = lib.PW_VALUES_SHIFT
VALUES_MASK: int = lib.PW_VALUES_MASK
SIZE_SHIFT: int = lib.PW_SIZE_SHIFT
OTHER_NAME: int = lib.PW_OTHER_NAME
STOP: int = lib.PW_STOP
HOLD: int = lib.PW_HOLD
GONE: int = lib.PW_GONE
ADD_DATE: int = lib.PW_ADD_DATE
ADD_SERVER: int = lib.PW_ADD_SERVER
CLOSE: int = lib.PW_CLOSE
HAS_LENGTH: int = lib.PW_HAS_LENGTH
FINISHED: int = lib.PW_FINISHED
COPY_MOST: int = lib.PW_COPY_MOST

respond = lib.pw_respond
next_request = lib.pw_next
next_news = lib.pw_news
send_head = lib.pw_send_head
send_data = lib.pw_send_data
send_file = lib.pw_send_file
send_end = lib.pw_send_end
send_interim = lib.pw_send_interim
client_gone = lib.pw_client_gone
unpack = ffi.unpack

_UNDERSCORE = {
    "drop": lib.PW_UNDERSCORE_DROP,
    "refuse": lib.PW_UNDERSCORE_REFUSE,
    "allow": lib.PW_UNDERSCORE_ALLOW,
}


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


def build() -> str:
    """Return how the core was built: compiler, poller, parser."""
    return ffi.string(lib.pw_build()).decode("ascii")


class CoreServer:
    """Listening sockets and their event loop (`pw_server`).

    Raises OSError where the system refuses.
    """

    def __init__(self, sockets: Sequence[socket.socket], settings: Settings) -> None:
        directory = ffi.new("char[]", os.fsencode(tempfile.gettempdir()))
        fields = {
            "max_head_size": settings.max_head_size,
            "max_body_size": settings.max_body_size,
            "body_memory": settings.body_memory,
            "response_buffer": settings.response_buffer,
            "max_fields": settings.max_fields,
            "max_connections": settings.max_connections,
            # One at a time spreads them: a worker that is busy takes no more.
            "accept_batch": 64 if settings.workers == 1 else 1,
            "underscore_fields": _UNDERSCORE[settings.underscore_fields],
            "timeout_head": _milliseconds(settings.timeout_head),
            "timeout_body": _milliseconds(settings.timeout_body),
            "timeout_write": _milliseconds(settings.timeout_write),
            "timeout_keep_alive": _milliseconds(settings.timeout_keep_alive),
            "timeout_drain": _milliseconds(settings.timeout_drain),
            "timeout_graceful": _milliseconds(settings.timeout_graceful),
            "temporary_directory": directory,
        }
        server = lib.pw_server_new(ffi.new("pw_settings *", fields))
        if server == ffi.NULL:
            raise OSError("the core could not be started")
        self.pointer = ffi.gc(server, lib.pw_server_free)
        for sock in sockets:
            number = lib.pw_server_listen(self.pointer, sock.fileno())
            if number != 0:
                raise OSError(number, os.strerror(number))

    @property
    def requests(self) -> int:
        """How many requests have been handed out."""
        number: int = lib.pw_server_requests(self.pointer)
        return number

    def stop(self) -> None:
        """Drain and stop; a second call stops now. From any thread, or a signal handler."""
        lib.pw_server_stop(self.pointer)


class CoreThread:
    """What one serving thread needs of the core (`pw_thread`)."""

    def __init__(self, server: CoreServer) -> None:
        pointer = lib.pw_thread_new(server.pointer)
        if pointer == ffi.NULL:
            raise MemoryError
        self.server = server  # freed after this
        self.pointer: Any = ffi.gc(pointer, lib.pw_thread_free)
        self.request: Any = lib.pw_thread_request(pointer)
        self.block: Any = ffi.buffer(
            lib.pw_thread_block(pointer), lib.pw_thread_block_size(pointer)
        )


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 2**31 - 1)
