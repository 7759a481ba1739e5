"""Linux data about a process, in addition to `support`.

Never changes the process, except for the mark of its maximum memory.
"""

from __future__ import annotations

from pathlib import Path

MEBIBYTE = 1 << 20


def greatest_memory(process: int) -> int:
    """The maximum resident memory since the start or the last `forget_greatest_memory`."""
    return _status(process, "VmHWM") * 1024


def forget_greatest_memory(process: int) -> None:
    """Restart `greatest_memory` from the current resident memory (proc(5), clear_refs)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def threads(process: int) -> int:
    return _status(process, "Threads")


def open_files(process: int | str = "self") -> list[str]:
    """The target of each open descriptor: "/tmp/#17 (deleted)", "socket:[1234]"."""
    found = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue  # closed in the meantime
    return found


def run_seconds(process: int) -> float:
    """The CPU time of all threads so far, far finer than the clock ticks of /proc/PID/stat."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _status(process: int, name: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise LookupError(f"no {name} in the status of process {process}")
