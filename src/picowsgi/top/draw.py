"""Turns a screen into lines of text for a terminal of any width. Never writes them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from picowsgi.top import units
from picowsgi.top.percentiles import SHARES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from picowsgi.top.monitor import History, Screen
    from picowsgi.top.percentiles import Durations, Percentile
    from picowsgi.top.view import View

#: Steps of a sparkline, from the lowest, and those for a terminal without Unicode.
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
_LABEL = 13
#: Below this width a label has a line of its own.
_NARROW = 40
_NARROW_INDENT = 2
_MOST_HISTORY = 60
# Values that change have a fixed width, so that lines do not move from one sample to the next.
_PERCENTILE_WIDTH = 31
_RATE_WIDTH = 10
_COLOURS = {
    "bold": "\x1b[1m",
    "faint": "\x1b[2m",
    "alarm": "\x1b[1;31m",
    "2xx": "\x1b[32m",
    "3xx": "\x1b[36m",
    "4xx": "\x1b[33m",
    "5xx": "\x1b[1;31m",
}
_RESET = "\x1b[0m"
#: Between the words of a sentence.
_BLANK = " "


class Part(NamedTuple):
    """A text that stays on one line if a line has room for it; `colour` is one of `_COLOURS`."""

    text: str
    colour: str = ""


class Row(NamedTuple):
    """A label and its values, which may continue on more lines."""

    label: str
    parts: Sequence[Part]
    gap: str = "  "


Line = tuple[Part, ...]


def draw(screen: Screen, width: int | None, blocks: str = BLOCKS) -> list[Line]:
    """Return the lines of a screen. None is wider than `width`; None: each row has one line."""
    rows = [_head(screen), *_state(screen)]
    if screen.view is not None:
        rows += _body(screen.view)
        rows += _history(screen.history, width, blocks)
    if width is None:
        return [(Part(_lead(row)), *_joined(row)) for row in rows]
    return [line for row in rows for line in _flow(row, max(width, 1))]


def paint(line: Line, *, colour: bool) -> str:
    """Return the text of a line, with the sequences for its colours."""
    text = ""
    for name, parts in groupby(line, key=lambda part: part.colour):
        same = "".join(part.text for part in parts)
        text += f"{_COLOURS[name]}{same}{_RESET}" if colour and name and same else same
    return text.rstrip(" ")


# Rows


def _head(screen: Screen) -> Row:
    view = screen.view
    name = f"picowsgi {view.version}".rstrip() if view is not None else "picowsgi"
    parts = [Part(f"{name} at {screen.address}", "bold")]
    if view is not None:
        parts += [Part(f"Python {view.python}")] if view.python else []
        parts += [Part(view.poller)] if view.poller else []
        parts.append(Part(f"up {units.uptime(view.uptime)}"))
    return Row("", parts)


def _state(screen: Screen) -> Iterator[Row]:
    if screen.error:
        yield _words(screen.error, "alarm")
        again = f"trying again every {screen.interval:g} s"
        if screen.age is not None:
            again += f"; the numbers are {units.uptime(screen.age)} old"
        yield _words(again)
    elif screen.note:
        yield _words(screen.note, "bold")


def _words(text: str, colour: str = "faint") -> Row:
    return Row("", [Part(word, colour) for word in text.split()], _BLANK)


def _body(view: View) -> list[Row]:
    waiting = Part(f"queue {units.number(view.queue_length)}", "alarm" if view.queue_length else "")
    return [
        Row("requests", [_rate("", view.requests, "bold"), *_statuses(view)]),
        Row("duration", _durations(view.duration)),
        Row("queue time", _durations(view.queue)),
        Row("threads", [_threads(view), waiting]),
        Row("workers", [Part(units.number(view.workers)), _total("restarts", view.restarts)]),
        Row(
            "connections",
            [
                Part(f"active {units.number(view.connections_active)}"),
                Part(f"idle {units.number(view.connections_idle)}"),
                Part(f"new {units.per_second(view.accepted)}"),
            ],
        ),
        Row(
            "bytes",
            [
                Part(f"received {_size_per_second(view.received)}"),
                Part(f"sent {_size_per_second(view.sent)}"),
            ],
        ),
        Row("refused", [_rate("", view.refused), _total("total", view.refused_total)]),
        *_dropped(view),
        Row("memory", [Part(units.size(view.memory))]),
        Row("CPU", [Part(units.UNKNOWN if view.cpu is None else f"{view.cpu * 100:.0f} %")]),
    ]


def _rate(label: str, value: float | None, colour: str = "") -> Part:
    return Part(f"{label} {units.per_second(value)}".lstrip().ljust(_RATE_WIDTH), colour)


def _statuses(view: View) -> list[Part]:
    return [
        _rate(status, rate, status if rate and status in _COLOURS else "")
        for status, rate in view.statuses.items()
        if rate or status != "1xx"  # which no usual application sends
    ]


def _durations(durations: Durations | None) -> list[Part]:
    found = {} if durations is None else durations.percentiles
    parts = [_percentile(name, found.get(name)) for name in SHARES]
    return [*parts, Part(f"mean {units.seconds(durations.mean if durations else None)}")]


def _percentile(name: str, found: Percentile | None) -> Part:
    if found is None:
        text = f"{name} {units.UNKNOWN}"
    elif found.high is None:
        text = f"{name} > {units.seconds(found.low)}"
    else:
        value, low, high = map(units.seconds, (found.value, found.low, found.high))
        text = f"{name} {value} ({low} to {high})"
    return Part(text.ljust(_PERCENTILE_WIDTH))


def _threads(view: View) -> Part:
    busy, threads = view.threads_busy, view.threads
    is_full = busy is not None and threads is not None and 0 < threads <= busy
    text = f"busy {units.number(busy)} of {units.number(threads)}"
    return Part(text, "alarm" if is_full else "")


def _total(label: str, counts: dict[str, float]) -> Part:
    text = f"{label} {units.number(sum(counts.values()))}"
    if counts:
        reasons = ", ".join(f"{reason} {units.number(count)}" for reason, count in counts.items())
        text += f" ({reasons})"
    return Part(text)


def _size_per_second(value: float | None) -> str:
    return units.UNKNOWN if value is None else f"{units.size(value)}/s"


def _dropped(view: View) -> list[Row]:
    if not view.dropped_log_lines:
        return []
    return [Row("log lines", [Part(f"dropped {units.number(view.dropped_log_lines)}", "alarm")])]


def _history(history: History, width: int | None, blocks: str) -> Iterator[Row]:
    indent = _LABEL if width is None or width >= _NARROW else _NARROW_INDENT
    room = _MOST_HISTORY if width is None else max(min(width - indent, _MOST_HISTORY), 1)
    for label, values, unit in (
        ("requests/s", history.requests, units.number),
        ("p99", history.p99, units.seconds),
    ):
        shown = values[-room:]
        known = [value for value in shown if value is not None]
        if known:
            parts = [Part(sparkline(shown, blocks)), Part(f"highest {unit(max(known))}")]
            yield Row(label, parts)


def sparkline(values: Sequence[float | None], blocks: str = BLOCKS) -> str:
    """Return a character for each value: its share of the highest one. A gap is a space."""
    highest = max((value for value in values if value is not None), default=0.0)
    text = ""
    for value in values:
        if value is None:
            text += " "
        elif highest <= 0:
            text += blocks[0]
        else:
            text += blocks[min(int(value / highest * len(blocks)), len(blocks) - 1)]
    return text


# Lines


def _lead(row: Row) -> str:
    return row.label and row.label.ljust(_LABEL)


def _joined(row: Row) -> Iterator[Part]:
    for number, part in enumerate(row.parts):
        if number:
            yield Part(row.gap)
        yield part


def _flow(row: Row, width: int) -> Iterator[Line]:
    """Yield the lines of a row. A part without room begins a line; a wider one is cut."""
    lead = _lead(row)
    if row.label and width < _NARROW:
        yield (Part(row.label[:width], "faint"),)
        lead = " " * min(_NARROW_INDENT, width - 1)
    room = width - len(lead)
    line, used = [Part(lead, "faint")], 0
    for part in _cut(row.parts, room):
        gap = row.gap if used else ""
        # Blanks at the end need no room.
        if used and used + len(gap) + len(part.text.rstrip()) > room:
            yield tuple(line)
            line, used, gap = [Part(" " * len(lead))], 0, ""
        text = part.text[: room - used - len(gap)]
        # A blank between words has their colour, so that a sentence is coloured at once.
        line += [Part(gap, part.colour if gap == _BLANK else ""), Part(text, part.colour)]
        used += len(gap) + len(text)
    yield tuple(line)


def _cut(parts: Sequence[Part], room: int) -> Iterator[Part]:
    for text, colour in parts:
        if len(text.rstrip()) <= room:
            yield Part(text, colour)
        else:
            yield from (Part(text[at : at + room], colour) for at in range(0, len(text), room))
