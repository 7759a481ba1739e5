"""The targets of picowsgi. None of these numbers is a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import Results

FASTEST = ("fastpysgi", "bjoern", "granian")


@dataclass(frozen=True)
class Target:
    """`most` limits the ratio of picowsgi's `metric` to that of the best server in `against`.

    Without `against`, all peers count.
    """

    scenario: str
    metric: str
    most: float
    against: tuple[str, ...] = ()
    server: str = "picowsgi"


TARGETS = (
    Target("hello", "cpu", 0.80, FASTEST),
    Target("fields", "cpu", 0.60, FASTEST),
    Target("varied", "cpu", 0.85, FASTEST),
    Target("hello", "cpu", 1.00, ("nginx",)),
    Target("pipelined", "cpu", 0.50),
    Target("close", "cpu", 0.85),
    Target("post_1k", "cpu", 0.80),
    Target("post_1k_chunked", "cpu", 0.80),
    Target("post_1m", "cpu", 0.80),
    Target("post_1m_chunked", "cpu", 0.80),
    Target("response_1m", "cpu", 0.90),
    Target("file_10m", "cpu", 0.90),
    Target("stream", "cpu", 0.80),
    Target("flask", "cpu", 0.97),
    Target("django", "cpu", 0.97),
    Target("hello", "memory_start", 1.10),
    Target("one", "p50", 1.00),
    Target("hello", "p99", 1.00),
)


@dataclass(frozen=True)
class Outcome:
    """The result for a target. `ratio` is None if it was not measured."""

    target: Target
    against: str | None
    ratio: float | None
    spread: float = 0.0

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= self.target.most


def judge(results: Results, target: Target) -> Outcome:
    """Compare picowsgi with the best of the measured servers of a target."""
    measured = [name for name in target.against or results.peers() if name in results.servers]
    other = results.best(target.scenario, target.metric, measured)
    if other is None or target.server not in results.servers:
        return Outcome(target, other, None)
    ratio = results.ratio(target.scenario, target.metric, target.server, other)
    if ratio is None:
        return Outcome(target, other, None)
    return Outcome(target, other, ratio.median, ratio.spread)
