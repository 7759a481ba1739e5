"""How much can run at once: the CPUs this process may use, and whether Python's threads use them.

Never counts CPUs that the machine has and the process may not use.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_ROOT = Path("/")


def has_gil() -> bool:
    """Return whether this Python has a lock that lets one thread run at a time (PEP 703)."""
    enabled = getattr(sys, "_is_gil_enabled", None)  # from 3.13 on
    return enabled is None or bool(enabled())


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the CPUs of the process's affinity, bounded by its control groups' quotas.

    A quota of a part of a CPU counts as a whole one. `root` is where /proc and /sys are.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not every system can say
        count = os.cpu_count() or 1
    quota = _quota(root)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Return the least quota, in CPUs, of the process's control group and those it is in."""
    quotas: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            read, top = _quota_v2, root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            read, top = _quota_v1, root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the name may be the host's, and its own group is mounted at the top.
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
        return path.read_text("utf-8")  # whose codec need not be imported
    except (OSError, ValueError):
        return ""
