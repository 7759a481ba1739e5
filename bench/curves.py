"""Draws lines over a logarithmic axis as SVG, with the standard library alone.

The same numbers give the same bytes. Never decides what to draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

# Colours that differ for readers who are colour-blind, too (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_WIDTH, _HEIGHT = 860, 420
_TOP, _BOTTOM, _LEFT, _GAP = 58, 372, 58, 122  # of a panel, and to the right of it
_TICKS = (1, 2, 5)


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]


def draw(title: str, panels: Sequence[Panel], axes: tuple[str, str]) -> str:
    """Return the panels side by side, over the same two axes, with these names."""
    points = [point for panel in panels for line in panel.lines for point in line.points]
    xs, ys = zip(*points, strict=True)
    scale = _Scale((min(xs), max(xs)), (min(ys), max(ys)))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="14" font-weight="600">{escape(title)}</text>',
        (
            f'<text transform="translate(16 {(_TOP + _BOTTOM) // 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(axes[1])}</text>'
        ),
    ]
    width = (_WIDTH - _LEFT) // len(panels)
    for number, panel in enumerate(panels):
        left = _LEFT + number * width
        parts += _panel(panel, scale, left, left + width - _GAP, axes[0])
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


class _Scale:
    """Places of values: a linear axis from left to right, a logarithmic one from bottom to top."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self.xs = xs
        self.ys = (ys[0] / 1.15, ys[1] * 1.15)

    def x(self, value: float, left: int, right: int) -> float:
        low, high = self.xs
        return left + (right - left) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = map(math.log, self.ys)
        return _BOTTOM - (_BOTTOM - _TOP) * (math.log(value) - low) / (high - low)

    def ticks(self) -> list[float]:
        low, high = self.ys
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [step * 10.0**power for power in powers for step in _TICKS]
        return [value for value in every if low <= value <= high]


def _panel(panel: Panel, scale: _Scale, left: int, right: int, axis: str) -> Iterable[str]:
    yield f'<text x="{left}" y="{_TOP - 10}">{escape(panel.title)}</text>'
    for value in scale.ticks():
        y = scale.y(value)
        yield f'<path d="M{left} {y:.1f}H{right}" stroke="#d7dde2"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in range(math.ceil(scale.xs[0] / 10) * 10, int(scale.xs[1]) + 1, 10):
        x = scale.x(value, left, right)
        yield f'<path d="M{x:.1f} {_BOTTOM}v4" stroke="#455a64"/>'
        yield f'<text x="{x:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{value}</text>'
    yield f'<path d="M{left} {_TOP}V{_BOTTOM}H{right}" fill="none" stroke="#455a64"/>'
    yield (
        f'<text x="{(left + right) // 2}" y="{_BOTTOM + 38}" text-anchor="middle">'
        f"{escape(axis)}</text>"
    )
    names: list[tuple[float, str, str]] = []
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(scale.x(x, left, right), scale.y(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        names.append((places[-1][1], line.name, colour))
    for y, name, colour in _apart(names):
        yield f'<text x="{right + 6}" y="{y + 4:.1f}" fill="{colour}">{escape(name)}</text>'


def _apart(names: Iterable[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Return the names at the ends of lines, moved so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for y, name, colour in sorted(names, reverse=True):  # from the bottom
        placed.append((min(y, placed[-1][0] - 14) if placed else min(y, _BOTTOM), name, colour))
    return placed
