"""A response as the application makes it: `start_response`, `write`, and the file wrapper.

Never decides when to ask the application for the next item: the gateway does.
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
    """One response: its head, and how much of it has been sent.

    Several threads of the application may call `write` at the same time, and after the end of the
    response. The core accepts one part at a time, and counts the bytes. The attributes are for the
    serving thread.
    """

    # Slots, because Python reads such attributes fastest, and allows no weak reference to the
    # object: see Gateway.serve.
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
    #: The functions that send head and content; a subclass may have others.
    send_first: ClassVar[Callable[..., int]] = core.send_first
    send_data: ClassVar[Callable[..., int]] = core.send_data
    check_client: ClassVar[Callable[..., int]] = core.check_client
    current_exchange: ClassVar[Callable[..., int]] = core.current_exchange
    is_detached: ClassVar[Callable[..., int]] = core.is_detached

    def __init__(self, thread: Any, encode: Callable[[str, list[tuple[str, str]]], Head]) -> None:
        self._thread = thread
        self._encode = encode
        #: None until start_response is called.
        self.head: Head | None = None
        #: The core has the head, which cannot be changed any more.
        self.started = False
        #: No more content is needed: the response has none (HEAD, 204, 304), or there was too much.
        self.enough = False
        #: The application gave more content than its Content-Length.
        self.overflow = False
        #: The core has got as many bytes as the Content-Length says.
        self.complete = False
        #: The request is over: start_response and write come too late. It is set before the call of
        #: the core that ends the response.
        self.over = False
        #: The number of the exchange, for the core; 0 before a part is sent.
        self.exchange = 0

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], object]:
        """Set the head, and return `write` (PEP 3333, "The start_response() Callable").

        PEP 3333 has positional arguments. Other servers also take these keywords, so this does too.

        Args:
            status: the status, as `200 OK`.
            headers: pairs of name and value.
            exc_info: the result of `sys.exc_info()`, to replace a head that was not sent yet.

        Raises:
            ResponseError: the status or a header is not valid, or the call comes too late.
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
        """Send content at once (PEP 3333, "The write() Callable"). Any thread may call this.

        Args:
            data: the content.

        Raises:
            ResponseError: the request is over, or `data` is not bytes.
            ClientGoneError: the client has disconnected.
        """
        # The order matters: if the response is not over after the read, the number is its own.
        exchange = self.current_exchange(self._thread)
        if self.over:
            raise ResponseError(_LATE_WRITE)
        self.exchange = exchange
        self.send(data)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send content, and before the first content the head. Wait for a slow client.

        Raises ClientGoneError. Raises ResponseError after the end of the request.
        """
        if type(data) is not bytes:
            data = to_bytes(data)
        self.send_sized(data, len(data), flags)

    def send_sized(self, data: Any, size: int, flags: int) -> None:
        """Send content of this size: bytes, or the result of `core.pin` for them."""
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
        """Hand the head to the core, which sends it with the first content, or at the end."""
        self._note(self._send_first(b"", 0, 0))

    def _send_first(self, data: Any, size: int, flags: int) -> int:
        head = self.head
        if head is None and self.is_detached(self._thread, self.exchange):
            return core.UNWANTED
        if head is None:
            raise ResponseError("the application has not called start_response")
        fields, head_flags, length = head.data, head.flags, head.length
        outcome = self.send_first(
            self._thread, self.exchange, fields, len(fields), length, head_flags, data, size, flags
        )
        self.started = True
        return outcome

    def _send_nothing(self) -> None:
        """Check the client for an empty item, which cannot show that the client is gone."""
        outcome = self.check_client(self._thread, self.exchange)
        if outcome:
            self._note(outcome)
        if self.head is not None and self.head.has_no_content:
            self.enough = True

    def _note(self, outcome: int) -> None:
        """Handle the core's result for a part of the content."""
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
    """Return content as bytes. Raises ResponseError for an object of another type."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ResponseError(f"content must be bytes, not {type(data).__name__}")
    return bytes(data)


def real_file(filelike: Any) -> io.BufferedReader | io.BufferedRandom | io.FileIO | None:
    """Return the regular file whose bytes `filelike` reads; None: the server must call `read`.

    A `fileno` is not enough: gzip.GzipFile has one, but reads other bytes than the file has.
    """
    if type(filelike) is _NamedTemporaryFile:
        filelike = filelike.file
    if type(filelike) not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
        return None
    if type(getattr(filelike, "raw", filelike)) is not io.FileIO or filelike.closed:
        return None
    if not filelike.readable():
        return None  # `read` raises an error that the application should see
    return filelike if _has_its_size(filelike.fileno()) else None


def _has_its_size(descriptor: int) -> bool:
    """Return whether this is a regular file with as many bytes as the system reports.

    The system makes the files of /proc and /sys at the read, and reports a size of 0 or of a page.
    These files have no blocks, and few other files have none.
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

    The core sends a real file, from its position. The server iterates over other objects.

    Args:
        filelike: a file, or another object with `read`.
        block_size: bytes for one call of `read`.
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
        """Return an attribute of the file: `close`, or `seek` and `tell` for range requests."""
        return getattr(self.filelike, name)
