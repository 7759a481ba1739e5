# ruff: noqa: T201 (it prints its results)
"""Collects failures and describes them, and counts the checked exchanges."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from stress.exchanges import PIECES, WRITERS, Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 3  # failures of one sort that are printed; the others are counted
_REMEMBERED = 2_000  # exchanges
_SEARCH = 5.0  # seconds to find the response that bytes belong to
_EQUAL_AGAIN = 8  # right bytes that end a stretch of wrong ones
_FREED = b"\xdd" * 4  # Python writes this over freed memory with PYTHONMALLOC=debug


class Findings:
    """Failures by their sort, and the outcomes of exchanges. All threads use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: deque[Exchange] = deque(maxlen=_REMEMBERED)
        self.failures: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    def ask(self, exchange: Exchange) -> None:
        """Remember an exchange, to find it when another response has its bytes."""
        with self._lock:
            self._asked.append(exchange)

    def count(self, *outcomes: str) -> None:
        with self._lock:
            self.outcomes.update(outcomes)

    def fail(self, sort: str, *lines: str) -> None:
        with self._lock:
            self.failures[sort] += 1
            if self.failures[sort] <= SHOWN:
                print("\n  ".join([f"FAILURE ({sort})", *lines]), flush=True)

    def wants_more(self, sort: str) -> bool:
        """Whether another failure of this sort would be described."""
        return self.failures[sort] < SHOWN

    def owner(self, wrong: bytes, but: Exchange) -> str:
        """Say which response these bytes belong to."""
        if len(wrong) < 4:
            return "too few to say which response they belong to"
        if _FREED in wrong:
            return "they are of memory that Python has freed"
        until = time.monotonic() + _SEARCH
        with self._lock:
            asked = list(self._asked)
        for exchange in reversed(asked):
            for name, content in _contents(exchange):
                at = content.find(wrong)
                if at >= 0:
                    whose = "this response" if exchange.id == but.id else str(exchange)
                    where = f"{name}, from its byte {at} on"
                    return f"they are of {whose} (connection {exchange.connection}), {where}"
            if time.monotonic() > until:
                break
        return f"they are of none of the last {len(asked)} responses"


def _contents(exchange: Exchange) -> Iterator[tuple[str, bytes]]:
    yield "content", exchange.content()
    if exchange.writes_pieces:
        for writer in range(WRITERS):
            for number in range(PIECES):
                yield f"piece {number} of writer {writer}", exchange.piece(writer, number)


def first_difference(expected: bytes, got: bytes) -> int:
    """The index of the first byte that differs; -1: the shorter one is a prefix of the other."""
    size = min(len(expected), len(got))
    if expected[:size] == got[:size]:
        return -1
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        if expected[low:middle] == got[low:middle]:
            low = middle
        else:
            high = middle
    return low


def wrong_stretch(expected: bytes, got: bytes, at: int) -> int:
    """The number of wrong bytes from `at` on; a few of them may be right by chance."""
    end, equal = at, 0
    for end in range(at, min(len(expected), len(got))):
        equal = equal + 1 if expected[end] == got[end] else 0
        if equal == _EQUAL_AGAIN:
            return end + 1 - equal - at
    return end + 1 - equal - at
