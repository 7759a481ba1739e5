"""Compares the results of one server in two results files, and separates changes from noise.

Never measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bench.document import Table, markdown
from bench.process import BenchError
from bench.results import METRICS, MORE_IS_BETTER, Results, Summary

#: A smaller change does not count, even if the rounds differ less. The second limit is for files
#: with one round, which does not show any noise.
NOISE_LEAST = 0.02
NOISE_UNKNOWN = 0.10

_Number: TypeAlias = Callable[[Results, str, str], "Summary | None"]
Verdict = Literal["slower", "faster", "same"]


@dataclass(frozen=True)
class Change:
    """A number before and after. `change` and `noise` are relative; a positive change is worse."""

    scenario: str
    metric: str
    before: float
    after: float
    change: float
    noise: float

    @property
    def verdict(self) -> Verdict:
        if abs(self.change) <= self.noise:
            return "same"
        return "slower" if self.change > 0 else "faster"


def changes(before: Results, after: Results, server: str) -> list[Change]:
    """Return all numbers that both files have. Raises BenchError if there are none."""
    return _changes(
        before,
        after,
        lambda results, scenario, metric: results.summary(scenario, server, metric),
        server,
    )


def ratio_changes(before: Results, after: Results, server: str, against: str) -> list[Change]:
    """Return the same for the ratios to another server in the same round. Raises BenchError."""
    return _changes(
        before,
        after,
        lambda results, scenario, metric: results.ratio(scenario, metric, server, against),
        server,
    )


def text(found: Iterable[Change]) -> str:
    """Return a table that begins with the numbers that became slower."""
    order: dict[Verdict, int] = {"slower": 0, "faster": 1, "same": 2}
    ordered = sorted(found, key=lambda change: order[change.verdict])
    rows = []
    for change in ordered:
        what, unit, divisor = METRICS[change.metric]
        rows.append(
            [
                change.scenario,
                f"{what}, {unit}",
                f"{change.before / divisor:.4g}",
                f"{change.after / divisor:.4g}",
                f"{change.after / change.before - 1:+.1%}",
                f"± {change.noise:.1%}",
                change.verdict,
            ]
        )
    header = ("scenario", "number", "before", "after", "change", "noise", "")
    counts = {verdict: sum(change.verdict == verdict for change in ordered) for verdict in order}
    counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return markdown([Table(header, rows, frozenset({1, 6}))]) + f"\n{counted}"


def _changes(before: Results, after: Results, number: _Number, server: str) -> list[Change]:
    found = []
    for scenario in before.scenarios:
        if scenario not in after.scenarios:
            continue
        for metric in METRICS:
            old, new = (number(results, scenario, metric) for results in (before, after))
            if old is not None and new is not None and old.median > 0 and new.median > 0:
                found.append(_change(scenario, metric, old, new))
    if not found:
        raise BenchError(f"the two files have no result of {server} in common")
    return found


def _change(scenario: str, metric: str, old: Summary, new: Summary) -> Change:
    change = new.median / old.median - 1
    if metric in MORE_IS_BETTER:
        change = old.median / new.median - 1
    noise = max(NOISE_LEAST, old.spread + new.spread)
    if min(old.count, new.count) < 2:
        noise = max(noise, NOISE_UNKNOWN)
    return Change(scenario, metric, old.median, new.median, change, noise)
