"""Parses the Prometheus text format, version 0.0.4. Never fetches a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from picowsgi.log import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The labels of one series, sorted by name.
Labels = tuple[tuple[str, str], ...]
#: The values of each metric, by the labels of the series.
Page = dict[str, dict[Labels, float]]

_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*[ \t]*=[ \t]*"(?:[^"\\]|\\.)*"'
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    rf"(?:[ \t]*\{{[ \t]*(?P<labels>(?:{_LABEL}[ \t]*,[ \t]*)*(?:{_LABEL}[ \t]*)?)\}}[ \t]*|[ \t]+)"
    r"(?P<value>[^ \t{}]+)(?:[ \t]+-?[0-9]+)?"  # and a time, which no server of ours sends
)
_PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan)", re.IGNORECASE
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}
_MOST_SHOWN = 60


def parse_page(text: str) -> Page:
    """Return the samples of a page. Raises ValueError, whose text names the line."""
    page: Page = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith("#"):
            continue
        sample = _parse_sample(stripped)
        if sample is None:
            shown = printable(stripped[:_MOST_SHOWN])
            raise ValueError(f"line {number}: expected NAME{{LABELS}} VALUE, got {shown}")
        name, labels, value = sample
        series = page.setdefault(name, {})
        if labels in series:
            raise ValueError(f"line {number}: {name} has the same labels twice")
        series[labels] = value
    return page


def _parse_sample(line: str) -> tuple[str, Labels, float] | None:
    match = _SAMPLE.fullmatch(line)
    if match is None or not _NUMBER.fullmatch(match["value"]):
        return None
    pairs = _PAIR.findall(match["labels"] or "")
    labels = {
        name: _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), value)
        for name, value in pairs
    }
    if len(labels) < len(pairs):
        return None
    return match["name"], tuple(sorted(labels.items())), float(match["value"])


def labels_of(page: Page, name: str) -> Mapping[str, str]:
    """Return the labels of the first series of a metric."""
    for labels in page.get(name, ()):
        return dict(labels)
    return {}
