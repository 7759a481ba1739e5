"""`wsgi.input` and `wsgi.errors` (PEP 3333, "Input and Error Streams").

The input is the complete content of a request, without a transfer coding.

Never reads from a socket.
"""

from __future__ import annotations

import io
import os
import threading
from typing import Any, BinaryIO, NoReturn

from picowsgi.log import write_complaint, writes_lines


class _NoContent:
    """The input that all requests without content share.

    It has no state, not even a position, and takes no attributes, so a request cannot pass data to
    another request by it. It stays open after `close`.
    """

    __slots__ = ()

    closed = False
    mode = "rb"

    def read(self, _size: int | None = -1, /) -> bytes:
        """Return no bytes: the input is at its end."""
        return b""

    read1 = readline = read

    def readinto(self, _buffer: Any, /) -> int:
        """Read no bytes. Returns 0."""
        return 0

    readinto1 = readinto

    def readlines(self, _hint: int | None = -1, /) -> list[bytes]:
        """Return no lines."""
        return []

    def getvalue(self) -> bytes:
        """Return no bytes. The io.BytesIO of a small content has this method too."""
        return b""

    def __iter__(self) -> _NoContent:
        return self

    def __next__(self) -> NoReturn:
        raise StopIteration

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        """Return 0, the only position."""
        return 0

    def tell(self) -> int:
        """Return 0."""
        return 0

    def readable(self) -> bool:
        """Return True."""
        return True

    seekable = readable

    def writable(self) -> bool:
        """Return False."""
        return False

    isatty = writable

    def fileno(self) -> NoReturn:
        """Raise UnsupportedOperation: the input is no file of the system."""
        raise io.UnsupportedOperation("wsgi.input has no descriptor")

    def write(self, _data: object, /) -> NoReturn:
        """Raise UnsupportedOperation: an input cannot be written."""
        raise io.UnsupportedOperation("wsgi.input is for reading")

    writelines = truncate = write

    def flush(self) -> None:
        """Do nothing."""

    close = flush

    def __enter__(self) -> _NoContent:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


io.BufferedIOBase.register(_NoContent)

NO_CONTENT: Any = _NoContent()


def open_spooled(request: Any) -> BinaryIO:
    """Return the input for content in a temporary file of the core. The input owns the file.

    The function first removes the descriptor from the core's `request`, so that only one owner
    closes it, even if a signal handler raises an exception here.
    """
    os.lseek(request.content_file, 0, os.SEEK_SET)
    descriptor, request.content_file = request.content_file, -1
    return open(descriptor, "rb")  # noqa: PTH123 (not a path)


#: The incomplete line of each thread, by the thread's number.
_begun: dict[int, str] = {}
_BEGUN_MOST = 8192  # characters; a longer line is written before its end is there


class ErrorStream:
    """`wsgi.errors`: a stream into the error log, which never blocks the application for long.

    The stream writes a line when it is complete, or at a flush. If the log is closed or full, the
    line is lost, so that an application that reports an error does not fail. The stream takes no
    attributes, because all requests share it.
    """

    __slots__ = ()

    def write(self, text: str) -> int:
        """Write `text`. Returns its length."""
        if not writes_lines():
            write_complaint(text)
            return len(text)
        thread = threading.get_ident()
        begun = _begun.pop(thread, "") + text
        if "\n" in text or len(begun) > _BEGUN_MOST:
            lines, end, begun = begun.rpartition("\n")
            if len(begun) > _BEGUN_MOST:
                lines, end, begun = lines + end, begun, ""
            write_complaint(lines + end)
        if begun:
            _begun[thread] = begun
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write the incomplete line of this thread."""
        begun = _begun.pop(threading.get_ident(), "")
        if begun:
            write_complaint(begun)
