"""`wsgi.input` (PEP 3333, "Input and Error Streams"): a request's content, complete and decoded.

Never reads from a socket.
"""

from __future__ import annotations

import io
import os
import threading
from typing import Any, BinaryIO, NoReturn

from picowsgi.log import write_complaint


class _NoContent:
    """The input of all requests without content, together.

    It has no state, not even a position, and takes no attributes, so a request cannot leave
    anything in it for another one. It stays open when it is closed.
    """

    __slots__ = ()

    closed = False
    mode = "rb"

    def read(self, _size: int | None = -1, /) -> bytes:
        """Return nothing: it is at its end."""
        return b""

    read1 = readline = read

    def readinto(self, _buffer: Any, /) -> int:
        """Read nothing; returns how many bytes that is."""
        return 0

    readinto1 = readinto

    def readlines(self, _hint: int | None = -1, /) -> list[bytes]:
        """Return no lines."""
        return []

    def getvalue(self) -> bytes:
        """Return nothing, as the io.BytesIO of a small content returns all of it."""
        return b""

    def __iter__(self) -> _NoContent:
        return self

    def __next__(self) -> NoReturn:
        raise StopIteration

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        """Stay where it is; returns 0."""
        return 0

    def tell(self) -> int:
        """Return 0."""
        return 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    seekable = readable

    def writable(self) -> bool:
        """Tell that it cannot be written."""
        return False

    isatty = writable

    def fileno(self) -> NoReturn:
        """Raise: it is no file of the system."""
        raise io.UnsupportedOperation("wsgi.input has no descriptor")

    def write(self, _data: object, /) -> NoReturn:
        """Raise: an input cannot be written."""
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
    """Return the input for content that the core has put into a file, which is closed with it.

    The file is taken out of the core's `request` first: a descriptor is closed by one owner alone,
    also when a signal handler raises an exception here.
    """
    os.lseek(request.content_file, 0, os.SEEK_SET)
    descriptor, request.content_file = request.content_file, -1
    return open(descriptor, "rb")  # noqa: PTH123 (not a path)


#: The line that a thread has begun, by the thread.
_begun: dict[int, str] = {}
_BEGUN_MOST = 8192  # characters; of a longer line that much is written without its end


class ErrorStream:
    """`wsgi.errors`: a part of the error log, which never holds up the application.

    Lines are written as they are complete, or flushed. A closed or full log loses them: an
    application that reports an error does not fail. It takes no attributes, because all requests
    have the same one.
    """

    __slots__ = ()

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
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
        """Write a line that has been begun."""
        begun = _begun.pop(threading.get_ident(), "")
        if begun:
            write_complaint(begun)
