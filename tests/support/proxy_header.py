"""Makes PROXY headers, as a proxy sends them before the bytes of its client."""

from __future__ import annotations

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"
UNKNOWN = b"PROXY UNKNOWN\r\n"

#: An address and a port.
End = tuple[str, int]


def v1(source: End, destination: End) -> bytes:
    """Return a header of version 1."""
    version = ipaddress.ip_address(source[0]).version
    ends = f"{source[0]} {destination[0]} {source[1]} {destination[1]}"
    return f"PROXY TCP{version} {ends}\r\n".encode()


def v2(source: End, destination: End, tlvs: bytes = b"", *, transport: int = 1) -> bytes:
    """Return a header of version 2. A transport of 2 is UDP."""
    version = ipaddress.ip_address(source[0]).version
    family = 0x10 if version == 4 else 0x20
    ends = b"".join(ipaddress.ip_address(end[0]).packed for end in (source, destination))
    body = ends + struct.pack("!HH", source[1], destination[1]) + tlvs
    return SIGNATURE + struct.pack("!BBH", 0x21, family | transport, len(body)) + body


def v2_unix(source: str = "/run/client", destination: str = "/run/proxy") -> bytes:
    """Return a header of version 2 for a client of a unix socket."""
    body = struct.pack("108s108s", source.encode(), destination.encode())
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x31, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    """Return a TLV of version 2."""
    return struct.pack("!BH", kind, len(value)) + value
