"""Parses the texts of options: addresses, directories, prefixes and paths.

Never checks whether a file, directory or host exists.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple

from picowsgi.errors import ConfigError
from picowsgi.system.sockets import Bind

_FORMS = "HOST:PORT, :PORT, [V6]:PORT, unix:PATH or fd://N"
_METRICS_FORMS = "HOST:PORT, [V6]:PORT or unix:PATH"
_STATIC = re.compile(r"(/[^=?#]*)=(.+)", re.DOTALL)
_PREFIX = "a path such as /api: a slash before each segment, none at the end"


def parse_host(text: str) -> str:
    """Return the host that `text` names, an IPv6 address without its brackets.

    Raises ValueError, whose text says what was expected.
    """
    host = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if not host or re.search(r"[\s/\[\]\x00]", host):
        raise ValueError("a host name or an IP address")
    if host.count(":") == 1:
        raise ValueError("a host name or an IP address without a port")
    return host


def parse_bind(text: str) -> Bind:
    """Return the address that `text` names: `HOST:PORT`, `[V6]:PORT`, `unix:PATH`, `fd://N`.

    `:PORT` is all IPv4 addresses of this machine.

    Raises ValueError, whose text says what was expected.
    """
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path or "\0" in path:
            raise ValueError("the path of a socket after unix:")
        return Bind("unix", path=path)
    if text.startswith("fd:"):
        if not re.fullmatch(r"fd://[0-9]{1,9}", text):
            raise ValueError("a descriptor's number after fd://")
        return Bind("fd", fd=int(text[len("fd://") :]))
    host, colon, digits = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65535:
        raise ValueError(f"{_FORMS}, with a port from 0 to 65535")
    if not host:  # as for gunicorn and uWSGI
        return Bind("tcp", host="0.0.0.0", port=int(digits))  # noqa: S104 (the user asks for it)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{_FORMS}; an IPv6 address stands in brackets")
    return Bind("tcp", host=parse_host(host), port=int(digits))


def parse_metrics(text: str) -> Bind:
    """Return the address that `text` names: `HOST:PORT`, `[V6]:PORT`, `unix:PATH`.

    Raises ValueError, whose text says what was expected.
    """
    if text.startswith("fd:"):
        raise ValueError(_METRICS_FORMS)
    try:
        return parse_bind(text)
    except ValueError as error:
        raise ValueError(str(error).replace(_FORMS, _METRICS_FORMS)) from None


def check_metrics(text: str) -> None:
    """Raise ValueError if a text is not an address for `--metrics`; an empty text is allowed."""
    if text:
        parse_metrics(text)


def parse_static(text: str) -> tuple[str, str]:
    """Return the path and the directory of `URL=DIR`.

    Raises ValueError, whose text says what was expected.
    """
    match = _STATIC.fullmatch(text)
    if match is None:
        raise ValueError("URL=DIR, a path and a directory, such as /static/=public")
    return match[1], match[2]


def check_prefix(prefix: str) -> str:
    """Return the prefix. Raises ConfigError."""
    segments = prefix.split("/")
    if segments[0] or len(segments) < 2 or not all(segments[1:]) or {".", ".."} & {*segments}:
        raise ConfigError(f"a prefix must be {_PREFIX}; not {prefix!r}")
    if not prefix.isprintable() or "?" in prefix or "#" in prefix or "%" in prefix:
        raise ConfigError(
            f"a prefix must be a printable decoded path without %, ? and #; not {prefix!r}"
        )
    return prefix


def parse_mount(text: str) -> tuple[str, str]:
    """Return the prefix and the name of the application in `PREFIX=APP`.

    Raises ValueError, whose text says what was expected.
    """
    prefix, equals, spec = text.partition("=")
    try:
        check_prefix(prefix)
    except ConfigError:
        equals = ""
    if not equals or not spec:
        raise ValueError("PREFIX=APP, such as /api=mysite:api, without a slash before the =")
    return prefix, spec


class Trusted(NamedTuple):
    """Peers that are trusted to say who their client is; `bits` of the address have to agree."""

    kind: Literal["all", "unix", "v4", "v6"]
    bits: int = 0
    address: bytes = b""


_TRUSTED = "IP addresses, networks such as 10.0.0.0/8, unix, * or none"


def parse_trusted(text: str) -> Trusted | None:
    """Return the peers that an item of `forwarded_allow_ips` names; `none` names none.

    Raises ValueError, whose text says what was expected.
    """
    if text in ("*", "unix", "none"):
        return None if text == "none" else Trusted("all" if text == "*" else "unix")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{_TRUSTED}; {text!r} is none of them") from None
    if "%" in text:
        raise ValueError(f"{_TRUSTED}; {text!r} has a zone")
    address, slash, _ = text.partition("/")
    if slash and ip_address(address) != network.network_address:
        raise ValueError(f"{_TRUSTED}; {text!r} is an address in the network {network}")
    packed, bits = network.network_address.packed, network.prefixlen
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is not None and bits >= 96:
        packed, bits = mapped.packed, bits - 96
    return Trusted("v4" if len(packed) == 4 else "v6", bits, packed)


def check_root_path(path: str) -> None:
    """Raise ValueError, whose text says what was expected, where this is no path of a proxy."""
    if path:
        try:
            check_prefix(path)
        except ConfigError:
            raise ValueError(f"{_PREFIX}, without ?, # and %") from None


def check_health(path: str) -> None:
    """Raise ValueError, whose text says what was expected, if this is no path for `--health`."""
    if (path and not re.fullmatch(r"/[!-~]*", path)) or "?" in path or "#" in path:
        raise ValueError("a path of printable ASCII that begins with /, without ? and #")


def check_module(name: str) -> None:
    """Raise ValueError if a text is not the name of a module; an empty text is allowed."""
    if name and not all(part.isidentifier() for part in name.split(".")):
        raise ValueError("the name of a module, such as mysite.hooks")
