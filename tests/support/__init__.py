"""Helpers for several folders of tests. This module has the names that most tests use."""

from __future__ import annotations

from support.client import (
    TIMEOUT,
    Addressed,
    RawClient,
    Response,
    connect,
    exchange,
    raw,
    slow_client,
)
from support.marks import (
    INTERRUPTS,
    PYPY,
)
from support.observe import (
    cpu_seconds,
    descriptors_at_rest,
    open_descriptors,
    outer_environ,
    references,
    resident_bytes,
    wait_until,
)
from support.sites import (
    PING,
    ping,
    site,
)

__all__ = [
    "INTERRUPTS",
    "PING",
    "PYPY",
    "TIMEOUT",
    "Addressed",
    "RawClient",
    "Response",
    "connect",
    "cpu_seconds",
    "descriptors_at_rest",
    "exchange",
    "open_descriptors",
    "outer_environ",
    "ping",
    "raw",
    "references",
    "resident_bytes",
    "site",
    "slow_client",
    "wait_until",
]
