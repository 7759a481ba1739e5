"""The outside view of a server: its descriptors, memory and CPU time."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from support.client import TIMEOUT
from support.marks import PYPY

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], object], wanted: str, timeout: float = TIMEOUT) -> None:
    """Wait until `condition()` is true; `wanted` describes it in a failure."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"expected {wanted} within {timeout:g} s"
        time.sleep(0.005)


def references(data: bytes) -> int:
    """Return the number of references to these bytes; on PyPy only those of the core."""
    if not PYPY:
        return sys.getrefcount(data)
    from picowsgi._core import ffi

    gc.collect()
    lent = [each for each in gc.get_objects() if isinstance(each, ffi.CData)]
    arrays = [each for each in lent if ffi.typeof(each).kind == "array"]
    return sum(len(each) == len(data) for each in arrays)


def open_descriptors(process: int | str = "self") -> int:
    """Return how many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def descriptors_at_rest() -> int:
    """Return how many descriptors this process has open after a collection of its garbage."""
    gc.collect()
    return open_descriptors()


def outer_environ() -> dict[str, str]:
    """Return the environment without options of picowsgi, except for the poller."""
    return {
        name: value
        for name, value in os.environ.items()
        if "PICOWSGI_" not in name or name == "PICOWSGI_POLLER"
    }


def resident_bytes(process: int | str = "self") -> int:
    """Return how much memory of a process is in RAM."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process: int | str = "self") -> float:
    """Return the CPU time that all threads of a process have used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
