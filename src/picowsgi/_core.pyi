# Made by tools/stub.py of the compiled core; csrc/api.h says what each function does.
# A pointer to a struct has the struct's name, one to text is _Text. NULL is of every type.
from typing import Any

class _FFI:
    NULL: Any
    errno: int
    def new(self, kind: str, value: object = ...) -> Any: ...
    def buffer(self, pointer: Any, size: int = ...) -> Any: ...
    def unpack(self, pointer: Any, size: int) -> bytes: ...
    def string(self, pointer: Any) -> bytes: ...
    def gc(self, pointer: Any, destructor: Any, size: int = ...) -> Any: ...
    def addressof(self, pointer: Any, field: str) -> Any: ...
    def from_buffer(self, data: bytes) -> Any: ...
    def sizeof(self, kind: str) -> int: ...

class _Text: ...

class pw_balance: ...

class pw_incident:
    what: int
    error: int
    unsent: int
    address: _Text
    port: _Text
    id: _Text
    line: _Text

class pw_network:
    kind: int
    bits: int
    address: _Text

class pw_request:
    exchange: int
    content_length: int
    content: _Text
    content_file: int
    listener: int
    sent: int
    lends: int
    block_size: int
    id: _Text

class pw_server: ...

class pw_settings:
    max_head_size: int
    head_memory_total: int
    max_body_size: int
    body_memory: int
    body_memory_total: int
    response_buffer: int
    response_spool: int
    response_spool_total: int
    max_fields: int
    max_connections: int
    threads: int
    gil: int
    underscore_fields: int
    timeout_head: int
    timeout_body: int
    timeout_write: int
    timeout_keep_alive: int
    timeout_drain: int
    timeout_graceful: int
    timeout_request: int
    timeout_queue: int
    access_file: int
    access_json: int
    access_prompt: int
    access_program_size: int
    request_ids: int
    request_seed_1: int
    request_seed_2: int
    drop_forwarded: int
    trusted_count: int
    balance: pw_balance
    access_program: _Text
    health_path: _Text
    live_path: _Text
    root_path: _Text
    temporary_directory: _Text
    trusted: pw_network
    poller: _Text

class pw_thread: ...

class _Lib:
    PW_ADD_DATE: int
    PW_ADD_SERVER: int
    PW_ATOM_ADDRESS: int
    PW_ATOM_BYTES: int
    PW_ATOM_BYTES_OR_DASH: int
    PW_ATOM_CLOCK: int
    PW_ATOM_DECIMAL_SECONDS: int
    PW_ATOM_DURATION: int
    PW_ATOM_FIELD: int
    PW_ATOM_HEAD: int
    PW_ATOM_IF_SLOW: int
    PW_ATOM_IF_STATUS: int
    PW_ATOM_LITERAL: int
    PW_ATOM_METHOD: int
    PW_ATOM_MICROSECONDS: int
    PW_ATOM_MILLISECONDS: int
    PW_ATOM_PATH: int
    PW_ATOM_PROTOCOL: int
    PW_ATOM_QUERY: int
    PW_ATOM_QUEUE: int
    PW_ATOM_REQUEST_ID: int
    PW_ATOM_RESPONSE_FIELD: int
    PW_ATOM_SECONDS: int
    PW_ATOM_SLOW_SIZE: int
    PW_ATOM_STATUS: int
    PW_ATOM_STATUS_SIZE: int
    PW_ATOM_TARGET: int
    PW_ATOM_TIME: int
    PW_ATOM_USER: int
    PW_CHANGED: int
    PW_CLOSE: int
    PW_COMPLETE: int
    PW_CONTENT: int
    PW_COPY_MOST: int
    PW_DRAIN: int
    PW_END: int
    PW_ENTRY_MASK: int
    PW_ENTRY_SHIFT: int
    PW_FINISHED: int
    PW_GONE: int
    PW_HALF_CLOSED_MS: int
    PW_HAS_LENGTH: int
    PW_IDLE: int
    PW_INCIDENT_ABANDONED: int
    PW_INCIDENT_BACKLOG: int
    PW_INCIDENT_ERROR: int
    PW_INCIDENT_HEADS: int
    PW_INCIDENT_LINE: int
    PW_INCIDENT_LOG: int
    PW_INCIDENT_LOST: int
    PW_INCIDENT_MEMORY: int
    PW_INCIDENT_QUEUE: int
    PW_INCIDENT_SHORT: int
    PW_INCIDENT_STOP: int
    PW_INCIDENT_STORAGE: int
    PW_INCIDENT_STUCK: int
    PW_INCIDENT_UNDERSCORE: int
    PW_INCIDENT_WRITE_TIMEOUT: int
    PW_IN_FILE: int
    PW_KIND: int
    PW_LEAVE: int
    PW_NETWORK_ALL: int
    PW_NETWORK_UNIX: int
    PW_NETWORK_V4: int
    PW_NETWORK_V6: int
    PW_NEW: int
    PW_NEWS: int
    PW_NEWS_ENTRY: int
    PW_NEWS_MASK: int
    PW_NEWS_SENT: int
    PW_NEWS_SHIFT: int
    PW_OTHER_NAME: int
    PW_OTHER_NAMES: int
    PW_OVER: int
    PW_OVERFLOW: int
    PW_REFUSED: int
    PW_REQUEST_BEGUN: int
    PW_REQUEST_ID_SIZE: int
    PW_REQUEST_NONE: int
    PW_REQUEST_WAITS: int
    PW_RETURN: int
    PW_SAME: int
    PW_STARTED: int
    PW_STOP: int
    PW_STORE: int
    PW_UNDERSCORE_ALLOW: int
    PW_UNDERSCORE_DROP: int
    PW_UNDERSCORE_REFUSE: int
    PW_UNWANTED: int
    PW_WATCH_INCIDENT: int
    PW_WATCH_MASK: int
    PW_WATCH_SHIFT: int
    PW_WATCH_SLOW: int
    PW_WATCH_START: int
    PW_WATCH_STOP: int
    PW_WATCH_STUCK: int
    def pw_balance_forget(self, _0: pw_balance, _1: int, /) -> None: ...
    def pw_balance_free(self, _0: pw_balance, /) -> None: ...
    def pw_balance_new(self) -> pw_balance: ...
    def pw_build(self) -> _Text: ...
    def pw_check_client(self, _0: pw_thread, _1: int, /) -> int: ...
    def pw_client_gone(self, _0: pw_thread, /) -> int: ...
    def pw_content_missing(self, _0: pw_thread, /) -> int: ...
    def pw_die_with_parent(self, _0: int, /) -> int: ...
    def pw_finish(self, _0: pw_thread, _1: int, /) -> int: ...
    def pw_gets_orphans(self) -> int: ...
    def pw_incident_take(self, _0: pw_server, _1: pw_incident, /) -> int: ...
    def pw_key(self, _0: int, /) -> _Text: ...
    def pw_news(self, _0: pw_thread, /) -> int: ...
    def pw_news_done(self, _0: pw_thread, /) -> None: ...
    def pw_next(self, _0: pw_thread, /) -> int: ...
    def pw_next_within(self, _0: pw_thread, _1: int, /) -> int: ...
    def pw_poller_name(self, _0: int, /) -> _Text: ...
    def pw_request_state(self, _0: pw_thread, /) -> int: ...
    def pw_respond(
        self, _0: pw_thread, _1: bytes | _Text, _2: int, _3: bytes | _Text, _4: int, _5: int, /
    ) -> int: ...
    def pw_send_data(
        self, _0: pw_thread, _1: int, _2: bytes | _Text, _3: int, _4: int, /
    ) -> int: ...
    def pw_send_end(self, _0: pw_thread, _1: int, /) -> None: ...
    def pw_send_file(self, _0: pw_thread, _1: int, _2: int, _3: int, /) -> int: ...
    def pw_send_first(
        self, _0: pw_thread, _1: int, _2: bytes | _Text, _3: int, _4: int, _5: int, _6: bytes | _Text, _7: int, _8: int, /
    ) -> int: ...
    def pw_send_interim(self, _0: pw_thread, _1: bytes | _Text, _2: int, /) -> int: ...
    def pw_server_announce_stop(self, _0: pw_server, /) -> None: ...
    def pw_server_descriptor(self, _0: pw_server, /) -> int: ...
    def pw_server_dropped(self, _0: pw_server, /) -> int: ...
    def pw_server_forked(self, _0: pw_server, /) -> None: ...
    def pw_server_free(self, _0: pw_server, /) -> None: ...
    def pw_server_hold(self, _0: pw_server, /) -> None: ...
    def pw_server_listen(self, _0: pw_server, _1: int, /) -> int: ...
    def pw_server_log_end(self, _0: pw_server, _1: int, _2: int, /) -> int: ...
    def pw_server_log_to(self, _0: pw_server, _1: int, /) -> None: ...
    def pw_server_new(self, _0: pw_settings, /) -> pw_server: ...
    def pw_server_requests(self, _0: pw_server, /) -> int: ...
    def pw_server_share(self, _0: pw_server, _1: int, _2: int, /) -> int: ...
    def pw_server_stop(self, _0: pw_server, _1: int, /) -> None: ...
    def pw_server_unhold(self, _0: pw_server, /) -> None: ...
    def pw_server_wake(self, _0: pw_server, /) -> None: ...
    def pw_settle(self, _0: pw_thread, _1: int, /) -> int: ...
    def pw_share_heap(self) -> None: ...
    def pw_thread_block(self, _0: pw_thread, /) -> _Text: ...
    def pw_thread_block_size(self, _0: pw_thread, /) -> int: ...
    def pw_thread_exchange(self, _0: pw_thread, /) -> int: ...
    def pw_thread_free(self, _0: pw_thread, /) -> None: ...
    def pw_thread_new(self, _0: pw_server, _1: int, /) -> pw_thread: ...
    def pw_thread_nudge(self, _0: pw_thread, /) -> None: ...
    def pw_thread_request(self, _0: pw_thread, /) -> pw_request: ...
    def pw_watch(self, _0: pw_server, /) -> int: ...
    def pw_watch_failed(self, _0: pw_server, /) -> None: ...

ffi: _FFI
lib: _Lib
