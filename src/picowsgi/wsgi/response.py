"""A response as the application makes it: `start_response`, `write`, and the file wrapper.

Never decides when the application is asked for more; that is the gateway's.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from picowsgi import core
from picowsgi.errors import ClientGoneError, ResponseError

if TYPE_CHECKING:
    from _typeshed import OptExcInfo

    from picowsgi.wsgi.response_head import Head


_LATE_WRITE = "write is called after the end of the request"
_NamedTemporaryFile = tempfile._TemporaryFileWrapper


class Response:
    """What the application says about one response, and how far it has been sent.

    Threads of the application may call `write` at once, and when the response is over. The core
    keeps them apart, and counts the bytes; what stands here is for the thread that serves.
    """

    # With slots, because attributes of these are read the fastest, and no weak reference can be
    # made: see Gateway.serve.
    __slots__ = (
        "_encode",
        "_thread",
        "complete",
        "enough",
        "exchange",
        "head",
        "over",
        "overflow",
        "started",
    )
    #: Where head and content go; a subclass may have another place.
    send_first: ClassVar[Callable[..., int]] = core.send_first
    send_data: ClassVar[Callable[..., int]] = core.send_data
    check_client: ClassVar[Callable[..., int]] = core.check_client
    current_exchange: ClassVar[Callable[..., int]] = core.current_exchange

    def __init__(self, thread: Any, encode: Callable[[str, list[tuple[str, str]]], Head]) -> None:
        self._thread = thread
        self._encode = encode
        #: None until start_response is called.
        self.head: Head | None = None
        #: The core has the head: it cannot be changed any more.
        self.started = False
        #: No more content is wanted: the client gets none (HEAD, 204, 304), or it was too much.
        self.enough = False
        #: The application gave more content than its Content-Length.
        self.overflow = False
        #: As much content has been sent as the Content-Length says.
        self.complete = False
        #: The request is over: start_response and write come too late. Set before the core is told.
        self.over = False
        #: The number of the exchange, for the core; 0 until something is sent in parts.
        self.exchange = 0

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], object]:
        """Set the head (PEP 3333); returns `write`.

        PEP 3333 wants positional arguments; other servers take these keywords, so this does.
        """
        if exc_info is not None:
            try:
                if self.started and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no reference cycle
        elif self.head is not None:
            raise ResponseError("start_response is called again without exc_info")
        if self.over:
            raise ResponseError("start_response is called after the end of the request")
        encode = self._encode
        self.head = encode(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send content at once (PEP 3333, "The write() Callable"). From any thread.

        Raises ResponseError after the end of the request, ClientGoneError.
        """
        # In this order: if the response is not over now, the number read before is its own.
        exchange = self.current_exchange(self._thread)
        if self.over:
            raise ResponseError(_LATE_WRITE)
        self.exchange = exchange
        self.send(data)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send content, and the head before the first of it; waits for a slow client.

        Raises ClientGoneError, and ResponseError after the end of the request.
        """
        if type(data) is not bytes:
            data = to_bytes(data)
        self.send_sized(data, len(data), flags)

    def send_sized(self, data: Any, size: int, flags: int) -> None:
        """Send content of this size: bytes, or what `core.pin` has made of them."""
        if not size:
            self._send_nothing()
            return
        if self.started:
            outcome = self.send_data(self._thread, self.exchange, data, size, flags)
        else:
            outcome = self._send_first(data, size, flags)
        if outcome:
            self._note(outcome)

    def begin(self) -> None:
        """Hand the head to the core; it leaves with the first content, or at the end."""
        self._note(self._send_first(b"", 0, 0))

    def _send_first(self, data: Any, size: int, flags: int) -> int:
        head = self.head
        if head is None:
            raise ResponseError("the application has not called start_response")
        fields, head_flags, length = head.data, head.flags, head.length
        outcome = self.send_first(
            self._thread, self.exchange, fields, len(fields), length, head_flags, data, size, flags
        )
        self.started = True
        return outcome

    def _send_nothing(self) -> None:
        """Look at the client, because sending nothing does not show that it has gone."""
        outcome = self.check_client(self._thread, self.exchange)
        if outcome:
            self._note(outcome)
        if self.head is not None and self.head.has_no_content:
            self.enough = True

    def _note(self, outcome: int) -> None:
        """Act upon what the core has said of content."""
        if outcome == core.COMPLETE:
            self.complete = True
        elif outcome == core.UNWANTED:
            self.enough = True
        elif outcome == core.OVERFLOW:
            self.enough = self.overflow = True
        elif outcome == core.GONE:
            raise ClientGoneError
        elif outcome == core.OVER:
            raise ResponseError(_LATE_WRITE)


def to_bytes(data: Any) -> bytes:
    """Return content as bytes. Raises ResponseError for what is none."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ResponseError(f"content must be bytes, not {type(data).__name__}")
    return bytes(data)


def real_file(filelike: Any) -> io.BufferedReader | io.BufferedRandom | io.FileIO | None:
    """Return the regular file whose bytes are what `filelike` reads, or None: it is to be read.

    That it has a fileno() does not say so: gzip.GzipFile has one, and reads something else.
    """
    if type(filelike) is _NamedTemporaryFile:
        filelike = filelike.file
    if type(filelike) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
        return None
    if type(getattr(filelike, "raw", filelike)) is not io.FileIO or filelike.closed:
        return None
    if not filelike.readable():
        return None  # reading it raises what the application has to see
    return filelike if _has_its_size(filelike.fileno()) else None


def _has_its_size(descriptor: int) -> bool:
    """Return whether this is a regular file with as many bytes as the system says.

    Those of /proc and /sys are made as they are read: they say 0, or a page. They hold no blocks,
    as only few others do.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return False
    if status.st_blocks:
        return True
    try:
        last = os.pread(descriptor, 1, max(status.st_size - 1, 0))
    except OSError:
        return False
    return len(last) == min(status.st_size, 1)


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

    A real file is sent by the core from where it stands; anything else with `read` is iterated.
    """

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def __getattr__(self, name: str) -> Any:
        """Have what the file has: close, and seek and tell for frameworks that answer ranges."""
        return getattr(self.filelike, name)
