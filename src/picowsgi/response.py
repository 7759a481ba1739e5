"""A response as the application makes it: `start_response`, `write`, and the file wrapper.

Never decides when the application is asked for more; that is the gateway's.
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from picowsgi import core
from picowsgi.errors import ClientGoneError, ResponseError

if TYPE_CHECKING:
    from _typeshed import OptExcInfo

    from picowsgi.head import Head


_NamedTemporaryFile = tempfile._TemporaryFileWrapper


class Response:
    """What the application says about one response, and how far it has been sent."""

    #: None until start_response is called.
    head: Head | None = None
    #: The head has been handed to the core: it cannot be changed any more.
    started = False
    #: The client gets content; known once started. Not for HEAD, 204, 304.
    wanted = True
    #: Bytes of content that the Content-Length still allows; -1: it does not say.
    left = -1
    #: The application gave more content than its Content-Length.
    overflow = False
    #: The request is over: start_response and write come too late.
    over = False
    #: Where head and content go; a subclass may have another place.
    send_head: ClassVar[Callable[..., int]] = core.send_head
    send_data: ClassVar[Callable[..., int]] = core.send_data
    send_first: ClassVar[Callable[..., int]] = core.send_first
    #: Whether send_data may read large content after it has returned, where that would move.
    lends: ClassVar[bool] = core.BYTES_MOVE

    def __init__(self, thread: Any, encode: Callable[[str, list[tuple[str, str]]], Head]) -> None:
        self._thread = thread
        self._encode = encode
        #: Large content that the core may still read, the oldest first.
        self.held: deque[bytes] | None = None

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
        self.head = self._encode(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send content at once (PEP 3333, "The write() Callable")."""
        if self.over:
            raise ResponseError("write is called after the end of the request")
        self.send(data)

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send content, and the head before the first of it; waits for a slow client.

        Raises ClientGoneError.
        """
        if type(data) is not bytes:
            data = _to_bytes(data)
        if not data:
            return
        head = None
        if not self.started:
            head = self._take_head()
        if self.left >= 0:
            if len(data) > self.left:
                self.overflow = True
                data = data[: self.left]
            self.left -= len(data)
        size = len(data)
        if size > core.COPY_MOST and self.lends:
            data = core.lend(data)
        if head is None:
            borrowed = self.send_data(self._thread, data, size, flags)
        else:
            fields, head_flags, length = head.data, head.flags, head.length
            borrowed = self.send_first(
                self._thread, fields, len(fields), length, head_flags, data, size, flags
            )
        if borrowed:
            if borrowed == core.GONE:
                raise ClientGoneError
            if borrowed == core.UNWANTED:
                self._unwant()
                return
        if borrowed or self.held:
            self._hold(data, borrowed)

    def begin(self) -> None:
        """Hand the head to the core; it leaves with the first content."""
        head = self._take_head()
        data, flags, length = head.data, head.flags, head.length
        wanted = self.send_head(self._thread, data, len(data), length, flags)
        if wanted < 0:
            raise ClientGoneError
        if not wanted:
            self._unwant()

    def _take_head(self) -> Head:
        head = self.head
        if head is None:
            raise ResponseError("the application has not called start_response")
        self.started = True
        self.left = head.length
        return head

    def _unwant(self) -> None:
        self.wanted = self.overflow = False
        self.left = -1

    def _hold(self, data: bytes, borrowed: int) -> None:
        """Keep what the core may still read, and let go of the rest (csrc/api.h)."""
        if self.held is None:
            self.held = deque()
        if len(data) > core.COPY_MOST:
            self.held.append(data)
        while len(self.held) > borrowed:
            self.held.popleft()


def _to_bytes(data: Any) -> bytes:
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
    return filelike if _has_its_size(filelike.fileno()) else None


def _has_its_size(descriptor: int) -> bool:
    """Tell whether this is a regular file with as many bytes as the system says.

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
