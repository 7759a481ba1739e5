"""Texts for numbers: three digits, and a unit that fits. Never longer than ten characters."""

from __future__ import annotations

UNKNOWN = "-"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_TIMES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None) -> str:
    """Return a count or a rate; large ones without a fraction."""
    if value is None:
        return UNKNOWN
    if value >= 1e9:
        return f"{value:.2e}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def per_second(value: float | None) -> str:
    """Return a rate."""
    return UNKNOWN if value is None else f"{number(value)}/s"


def size(value: float | None) -> str:
    """Return a number of bytes."""
    if value is None:
        return UNKNOWN
    power = 0
    while value >= 1000 and power < len(_SIZES) - 1:
        value /= 1024
        power += 1
    return f"{number(value)} {_SIZES[power]}"


def seconds(value: float | None) -> str:
    """Return a duration of a request."""
    if value is None:
        return UNKNOWN
    return f"{number(value * 1000)} ms" if value < 1 else f"{number(value)} s"


def uptime(value: float | None) -> str:
    """Return a long time, in its two largest units."""
    if value is None:
        return UNKNOWN
    left = int(value)
    parts: list[str] = []
    for length, unit in _TIMES:
        if left >= length or parts or unit == "s":
            parts.append(f"{left // length} {unit}")
        left %= length
    return " ".join(parts[:2])
