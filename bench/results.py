"""Reads and writes the results file, and computes medians and ratios from it.

Never measures. Reports, comparisons and targets use only this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.process import BenchError

FORMAT = 1

#: The numbers of a run, by name: description, unit, and the divisor for that unit.
METRICS: dict[str, tuple[str, str, float]] = {
    "cpu": ("CPU time for one request", "µs", 1),
    "rate": ("requests a second", "/s", 1),
    "share": ("share of the ideal throughput", "%", 0.01),
    "p50": ("latency, median", "µs", 1),
    "p90": ("latency, 90th percentile", "µs", 1),
    "p99": ("latency, 99th percentile", "µs", 1),
    "p99.9": ("latency, 99.9th percentile", "µs", 1),
    "max": ("latency, greatest", "µs", 1),
    "memory_start": ("memory after start", "MiB", 1 << 20),
    "memory_end": ("memory after the load", "MiB", 1 << 20),
    "memory_peak": ("greatest memory", "MiB", 1 << 20),
    "memory_idle": ("memory for one idle connection", "KiB", 1 << 10),
}
#: The metrics for which more is better. For all others, less is better.
MORE_IS_BETTER = frozenset({"rate", "share"})


@dataclass(frozen=True)
class Summary:
    """The median of several rounds, and half the distance of the extremes as part of the median."""

    median: float
    spread: float
    count: int


def summary(values: Iterable[float]) -> Summary:
    """Return the summary of these values. Raises ValueError if there are none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    middle = median(ordered)
    spread = (ordered[-1] - ordered[0]) / 2 / middle if middle else 0.0
    return Summary(middle, spread, len(ordered))


class Results:
    """One results file. `data` is its JSON. bench/README.md describes the members."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a results file. Raises BenchError if the file has no results."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BenchError(f"{path} cannot be read: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BenchError(f"{path} is not a results file of format {FORMAT}")
        return cls(data)

    def write(self, path: Path) -> None:
        """Replace the file in one step, so a reader always finds a complete file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.data, indent=1, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(path)

    @property
    def scenarios(self) -> list[str]:
        """The scenarios with a result or a void one, in the order of the table."""
        seen = {run["scenario"] for run in self.data["runs"] + self.data["voids"]}
        return [name for name in self.data["scenarios"] if name in seen]

    @property
    def servers(self) -> list[str]:
        return list(self.data["servers"])

    def kind(self, server: str) -> str:
        kind: str = self.data["servers"][server]["kind"]
        return kind

    def load(self, scenario: str) -> str:
        """Return the kind of load: closed, rate or idle."""
        kind: str = self.data["scenarios"][scenario]["kind"]
        return kind

    def threads(self, scenario: str) -> int:
        """Return the number of threads that servers with an option for threads got."""
        threads: int = self.data["scenarios"][scenario]["threads"]
        return threads

    def void(self, scenario: str, server: str) -> str | None:
        """Return the reason why the results of a server in a scenario are void, or None."""
        for void in self.data["voids"]:
            if (void["scenario"], void["server"]) == (scenario, server):
                reason: str = void["reason"]
                return reason
        return None

    def values(self, scenario: str, server: str, metric: str) -> dict[int, float]:
        """Return the values by round. There are none if any round was void."""
        if self.void(scenario, server) is not None:
            return {}
        return {
            run["round"]: run[metric]
            for run in self.data["runs"]
            if (run["scenario"], run["server"]) == (scenario, server) and metric in run
        }

    def summary(self, scenario: str, server: str, metric: str) -> Summary | None:
        values = self.values(scenario, server, metric)
        return summary(values.values()) if values else None

    def ratio(self, scenario: str, metric: str, server: str, other: str) -> Summary | None:
        """Return the ratio of `server` to `other`, computed within each round."""
        ours, theirs = (self.values(scenario, name, metric) for name in (server, other))
        ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
        return summary(ratios) if ratios else None

    def best(self, scenario: str, metric: str, servers: Iterable[str]) -> str | None:
        """Return the server with the best median, or None."""
        medians = {
            name: found.median
            for name in servers
            if (found := self.summary(scenario, name, metric)) is not None
        }
        if not medians:
            return None
        choose = max if metric in MORE_IS_BETTER else min
        return choose(medians, key=lambda name: medians[name])

    def peers(self) -> list[str]:
        return [name for name in self.servers if self.kind(name) == "peer"]
