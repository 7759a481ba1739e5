"""The addresses of this machine, to show where a server that listens on all of them is reached.

Never asks a name server, and sends nothing.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path

_SIOCGIFADDR = 0x8915  # of Linux: the IPv4 address of an interface
_ADDRESS_AT = 20  # bytes of struct ifreq before the address
_LINK_LOCAL = "20"  # the scope in /proc/net/if_inet6
_ANY_PORT = 9
# Addresses for documentation (RFC 5737 and 3849). The system chooses its own address for a
# connection to them.
_FAR = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """Return the addresses of this machine that others can connect to; the loopback one is first.

    Link-local addresses, which need a zone, are left out.
    """
    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    found = _ipv4() if family == socket.AF_INET else _ipv6()
    return list(dict.fromkeys([loopback, *found, *_for_connections(family)]))


def _ipv4() -> list[str]:
    found = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # the interface has none, or this is another system
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(answer[_ADDRESS_AT : _ADDRESS_AT + 4]))
    return [one for one in found if not one.startswith("127.")]


def _ipv6() -> list[str]:
    with suppress(OSError):
        lines = Path("/proc/net/if_inet6").read_text("ascii").splitlines()
        fields = [line.split() for line in lines]
        return [str(IPv6Address(bytes.fromhex(one[0]))) for one in fields if one[3] != _LINK_LOCAL]
    return []


def _for_connections(family: socket.AddressFamily) -> list[str]:
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((_FAR[family], _ANY_PORT))  # this sends nothing
        return [str(sock.getsockname()[0])]
    return []
