"""Parses the ADDRESS of `picowsgi top`. Never connects to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from picowsgi.config.values import parse_bind

TARGET = "/metrics"
_EXPECTED = "the address of a server's --metrics: HOST:PORT, http://HOST:PORT/metrics or unix:PATH"
_URL = re.compile(r"http://([^/?#]+)(/[!\"$-~]*)?", re.IGNORECASE)
_HTTP_PORT = 80


@dataclass(frozen=True)
class Address:
    """The place of a page of metrics: a TCP port, or a unix socket if `path` is not empty."""

    text: str
    target: str = TARGET
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def authority(self) -> str:
        """The value of the request's Host header."""
        if self.path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address that `text` names.

    Raises ValueError, whose text says what was expected.
    """
    target = TARGET
    authority = text
    if not text.startswith("unix:") and "://" in text:
        match = _URL.fullmatch(text)
        if match is None:
            raise ValueError(_EXPECTED)
        authority = match[1]
        if match[2] not in (None, "/"):
            target = match[2]
        if authority.endswith("]") or ":" not in authority:
            authority += f":{_HTTP_PORT}"
        if authority.startswith(":"):
            raise ValueError(_EXPECTED)
    elif text.startswith(":"):  # as in --metrics :9100
        authority = f"127.0.0.1{text}"
    try:
        bind = parse_bind(authority)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if bind.kind == "unix":
        return Address(text, path=bind.path)
    # A name with other characters would reach the request's Host header.
    if bind.kind != "tcp" or not bind.port or not re.fullmatch(r"[!-~]+", bind.host):
        raise ValueError(_EXPECTED)
    return Address(text, target, bind.host, bind.port)
