"""`wsgi.input` (PEP 3333, "Input and Error Streams"): a request's content, complete and decoded.

Never reads from a socket.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO, NoReturn


class _NoContent(io.BytesIO):
    """The input of all requests without content; it cannot be changed or closed, so one will do."""

    def close(self) -> None:
        """Stay open: other requests have it, too."""

    def write(self, _data: object) -> NoReturn:
        raise io.UnsupportedOperation("wsgi.input is for reading")

    def writelines(self, _lines: object) -> NoReturn:
        raise io.UnsupportedOperation("wsgi.input is for reading")


NO_CONTENT: BinaryIO = _NoContent()


def open_spooled(descriptor: int) -> BinaryIO:
    """Return the input for content that the core has put into a file, which is closed with it."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return open(descriptor, "rb")


class ErrorStream:
    """`wsgi.errors`: whatever `sys.stderr` is when it is written to."""

    def write(self, text: str) -> int:
        """Write `text`; returns its length."""
        return int(_stderr().write(text))

    def writelines(self, lines: Any) -> None:
        """Write each of the lines."""
        _stderr().writelines(lines)

    def flush(self) -> None:
        """Flush the stream."""
        _stderr().flush()


def _stderr() -> Any:
    return sys.stderr if sys.stderr is not None else io.StringIO()
