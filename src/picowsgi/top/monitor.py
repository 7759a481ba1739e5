"""Takes samples, and keeps what the display shows of them. Never writes to a terminal."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from picowsgi.log import printable
from picowsgi.top.fetch import PageError, UnreachableError, fetch
from picowsgi.top.page import parse_page
from picowsgi.top.view import INFO, Sample, View, compare, has_restarted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from picowsgi.top.address import Address

#: Samples that the history keeps: more than a line of a wide terminal shows.
HISTORY = 300


def take_sample(address: Address) -> Sample:
    """Fetch and parse the page of a server. Raises UnreachableError and PageError."""
    begin = time.monotonic()
    text = fetch(address)
    # The server reads its counters at some time within the exchange.
    at = (begin + time.monotonic()) / 2
    name = printable(address.text)
    try:
        page = parse_page(text)
    except ValueError as error:
        raise PageError(f"the page of {name} is no metrics page: {error}") from None
    if INFO not in page:
        raise PageError(f"the page of {name} has no metrics of picowsgi: {INFO} is missing")
    return Sample(page, at, time.time())


@dataclass(frozen=True)
class History:
    """The last values, oldest first; None where a value is not known."""

    requests: Sequence[float | None] = ()
    p99: Sequence[float | None] = ()


@dataclass(frozen=True)
class Screen:
    """All that the display shows.

    `note`: a line for the user. `error`: instead of the note, why the view is not the current
    state. `age`: the seconds since the last sample; None: there was none.
    """

    address: str
    interval: float
    view: View | None = None
    note: str = ""
    error: str = ""
    age: float | None = None
    history: History = field(default_factory=History)


class Monitor:
    """Turns the samples of one server into screens."""

    def __init__(self, address: Address, interval: float) -> None:
        self._address = printable(address.text)
        self._interval = interval
        self._last: Sample | None = None
        self._view: View | None = None
        self._error = ""
        self._note = "waiting for the first sample"
        self._requests: deque[float | None] = deque(maxlen=HISTORY)
        self._p99: deque[float | None] = deque(maxlen=HISTORY)

    def add(self, result: Sample | UnreachableError | PageError) -> None:
        """Take the next sample, or the reason why there is none."""
        if not isinstance(result, Sample):
            self._error = str(result)
            self._requests.append(None)
            self._p99.append(None)
            return
        self._note = f"every {self._interval:g} s; press q to quit"
        before = self._last
        if before is not None and has_restarted(before.page, result.page):
            self._note = f"the server has restarted; {self._note}"
        elif self._error:
            before = None  # a mean over the time without a sample is no rate of an interval
        self._error = ""
        self._last = result
        self._view = compare(before, result)
        self._requests.append(self._view.requests)
        self._p99.append(_longest(self._view))

    def screen(self, now: float) -> Screen:
        """Return what to show at this time of the steady clock."""
        return Screen(
            self._address,
            self._interval,
            self._view,
            self._note,
            self._error,
            None if self._last is None else now - self._last.at,
            History(tuple(self._requests), tuple(self._p99)),
        )


def _longest(view: View) -> float | None:
    if view.duration is None:
        return None
    found = view.duration.percentiles["p99"]
    return found.low if found.value is None else found.value  # the last bucket has no value
