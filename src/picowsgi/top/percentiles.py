"""Estimates percentiles from the buckets of a histogram.

A histogram has only counts, so the true percentile can be anywhere in its bucket. An estimate
always comes with the bounds of the bucket. Never estimates a value above the last finite bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Percentile:
    """A percentile: its bucket, and a linear interpolation within the bucket.

    `high` and `value` are None in the last bucket, which has no upper bound.
    """

    low: float
    high: float | None
    value: float | None


@dataclass(frozen=True)
class Durations:
    """The durations that a histogram has counted: how many, their mean and their percentiles."""

    count: float
    mean: float | None
    percentiles: dict[str, Percentile]


def percentile(buckets: Sequence[tuple[float, float]], share: float) -> Percentile | None:
    """Return the value that this share of the durations does not exceed; None: there are none.

    `buckets` has the upper bound of each bucket, in ascending order and with infinity at the end,
    and the number of durations up to it.
    """
    total = max((count for _, count in buckets), default=0.0)
    if total <= 0:
        return None
    rank = share * total
    low, below = 0.0, 0.0
    for bound, count in buckets:
        # The counts may be read while the server counts, so they may be out of order.
        reached = max(count, below)
        if reached >= rank:
            if bound == float("inf"):
                return Percentile(low, None, None)
            part = (rank - below) / (reached - below)
            return Percentile(low, bound, min(low + (bound - low) * part, bound))
        low, below = bound, reached
    return None


def summarize(buckets: Sequence[tuple[float, float]], total: float | None) -> Durations | None:
    """Return the durations of these buckets, whose sum is `total`; None: there are none."""
    found = {name: percentile(buckets, share) for name, share in SHARES.items()}
    percentiles = {name: value for name, value in found.items() if value is not None}
    if len(percentiles) < len(found):
        return None
    count = max(count for _, count in buckets)
    return Durations(count, None if total is None else total / count, percentiles)
