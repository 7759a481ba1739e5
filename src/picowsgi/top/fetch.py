"""Fetches a page of metrics over HTTP.

It has a client of its own because http.client cannot limit the time of a whole exchange. Never
reads what the page means.
"""

from __future__ import annotations

import re
import socket
from time import monotonic
from typing import TYPE_CHECKING

from picowsgi.errors import PicowsgiError
from picowsgi.log import printable

if TYPE_CHECKING:
    from picowsgi.top.address import Address

#: Seconds for a whole exchange.
TIMEOUT = 3.0
#: Bytes of a response. A server's page has a few kilobytes.
MOST_BYTES = 4 << 20
_MOST_HEAD = 1 << 16
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([ -~]*))?")
_OK = b"200"


class UnreachableError(PicowsgiError):
    """The server sends no response. It may be starting or stopping, so another try can succeed."""


class PageError(PicowsgiError):
    """The address sends something that is not the metrics of a picowsgi server."""


def fetch(address: Address, timeout: float = TIMEOUT) -> str:
    """Return the page. Raises UnreachableError and PageError."""
    name = printable(address.text)
    # A response to HTTP/1.0 is never chunked.
    request = (
        f"GET {address.target} HTTP/1.0\r\nHost: {address.authority}\r\n"
        "Accept: text/plain;version=0.0.4\r\nConnection: close\r\n\r\n"
    )
    deadline = monotonic() + timeout
    try:
        with _connect(address, timeout) as sock:
            sock.sendall(request.encode("ascii"))
            data = _receive(sock, deadline)
    except TimeoutError:
        raise UnreachableError(f"no response from {name} within {timeout:g} s") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that DNS does not allow
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(f"no metrics from {name}: {reason}") from None
    if data is None:
        raise PageError(f"{name} sends more than {MOST_BYTES >> 20} MiB, which is no metrics page")
    return _body(name, address.target, data)


def _connect(address: Address, timeout: float) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _receive(sock: socket.socket, deadline: float) -> bytes | None:
    """Return the bytes up to the end of the response; None: there are too many.

    Raises TimeoutError after the deadline.
    """
    data = bytearray()
    size: int | None = None
    while size is None or len(data) < size:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        part = sock.recv(65536)
        if not part:
            break
        data += part
        if len(data) > MOST_BYTES:
            return None
        size = size or _size(data)
    return bytes(data)


def _size(data: bytearray) -> int | None:
    """Return the size of the whole response, if its beginning gives it."""
    end = data.find(b"\r\n\r\n", 0, _MOST_HEAD)
    length = None if end < 0 else _content_length(bytes(data[:end]))
    return None if length is None else end + 4 + length


def _content_length(head: bytes) -> int | None:
    match = re.search(
        rb"\r\nContent-Length:[ \t]*([0-9]{1,12})[ \t]*(?:\r\n|\Z)", head, re.IGNORECASE
    )
    return int(match[1]) if match else None


def _body(name: str, target: str, data: bytes) -> str:
    """Return the body of a complete response with status 200. Raises the errors of `fetch`."""
    if not data:
        raise UnreachableError(f"{name} has closed the connection without a response")
    head, blank, body = data.partition(b"\r\n\r\n")
    match = _STATUS.fullmatch(head.partition(b"\r\n")[0])
    if match is None:
        raise PageError(f"{name} does not send an HTTP response")
    if match[1] != _OK:
        status = b" ".join(part for part in match.groups() if part).decode("ascii")
        raise PageError(
            f"{name} responds to GET {target} with {status}; "
            "name the address of the server's --metrics"
        )
    length = _content_length(head)
    if not blank or (length is not None and len(body) < length):
        raise UnreachableError(f"{name} has closed the connection within the response")
    try:
        return body[:length].decode("utf-8")
    except UnicodeDecodeError:
        raise PageError(f"the page of {name} is not UTF-8, so it is no metrics page") from None
