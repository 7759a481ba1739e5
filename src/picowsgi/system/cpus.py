"""The number of CPUs that this process may use, and whether Python's threads run at once.

Never counts a CPU that the process may not use.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_ROOT = Path("/")


def has_gil() -> bool:
    """Return whether this Python has the GIL, which lets one thread run at a time (PEP 703)."""
    enabled = getattr(sys, "_is_gil_enabled", None)  # new in Python 3.13
    return enabled is None or bool(enabled())


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the number of CPUs in the process's affinity, limited by its control groups' quotas.

    A quota of a part of a CPU counts as a whole CPU. `root` is the directory of /proc and /sys.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        count = os.cpu_count() or 1
    quota = _quota(root)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Return the least quota, in CPUs, of the process's control group and its parents."""
    quotas: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            read, top = _quota_v2, root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            read, top = _quota_v1, root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the name may be that of the host, and the container's group is at the top.
        group = top / name.lstrip("/")
        for directory in (group, *group.parents):
            if not directory.is_relative_to(top):
                break
            found = read(directory)
            if found is not None:
                quotas.append(found)
    return min(quotas, default=None)


def _quota_v2(directory: Path) -> float | None:
    words = _read(directory / "cpu.max").split()
    if len(words) != 2 or words[0] == "max":
        return None
    return _divide(words[0], words[1])


def _quota_v1(directory: Path) -> float | None:
    quota = _read(directory / "cpu.cfs_quota_us").strip()
    if not quota or quota == "-1":
        return None
    return _divide(quota, _read(directory / "cpu.cfs_period_us").strip())


def _divide(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")  # Python has imported this codec already
    except (OSError, ValueError):
        return ""
