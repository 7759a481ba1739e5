"""What a server did between two samples of its metrics, and its state at the second one.

A counter that has restarted has no rate: the value is None, as that of a metric that the page does
not have. Never reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from picowsgi.log import printable
from picowsgi.top.page import Labels, Page, labels_of
from picowsgi.top.percentiles import Durations, summarize

INFO = "picowsgi_info"
#: A larger number is no count of a server.
_MOST = 2.0**63
#: Between two samples; a rate over less time says nothing.
_LEAST_SECONDS = 0.001


@dataclass(frozen=True)
class Sample:
    """A page, and when it was fetched: in seconds of a steady clock, and since 1970."""

    page: Page
    at: float
    since_1970: float


@dataclass(frozen=True)
class View:
    """The numbers of the display. Rates are per second, durations in seconds, memory in bytes."""

    version: str
    python: str
    poller: str
    uptime: float | None
    #: Time between the two samples; None: there is one sample, so no rate is known.
    seconds: float | None
    requests: float | None
    statuses: dict[str, float]
    duration: Durations | None
    queue: Durations | None
    threads: float | None
    threads_busy: float | None
    queue_length: float | None
    workers: float | None
    #: Counts since the server's start, by their reason.
    restarts: dict[str, float]
    connections_idle: float | None
    connections_active: float | None
    accepted: float | None
    received: float | None
    sent: float | None
    refused: float | None
    refused_total: dict[str, float]
    dropped_log_lines: float | None
    memory: float | None
    #: CPU seconds per second: 1.0 is one CPU.
    cpu: float | None


def compare(before: Sample | None, after: Sample) -> View:
    """Return the view of two samples. Without the first one, or after a restart, rates are None."""
    page = after.page
    if before is not None and has_restarted(before.page, page):
        before = None
    change = _Change(before, after)
    info = labels_of(page, INFO)
    start = _value(page, "process_start_time_seconds")
    requests = change.rates("picowsgi_requests_total")
    return View(
        version=printable(info.get("version", "")),
        python=printable(info.get("python", "")),
        poller=printable(info.get("poller", "")),
        uptime=None if start is None else max(after.since_1970 - start, 0.0),
        seconds=change.seconds,
        requests=None if requests is None else sum(requests.values()),
        statuses=_by_label(requests or {}, "status"),
        duration=change.durations("picowsgi_request_duration_seconds"),
        queue=change.durations("picowsgi_queue_seconds"),
        threads=_value(page, "picowsgi_threads"),
        threads_busy=_value(page, "picowsgi_threads_busy"),
        queue_length=_value(page, "picowsgi_queue_length"),
        workers=_value(page, "picowsgi_workers"),
        restarts=_counts(page, "picowsgi_worker_restarts_total"),
        connections_idle=_value(page, "picowsgi_connections", state="idle"),
        connections_active=_value(page, "picowsgi_connections", state="active"),
        accepted=change.rate("picowsgi_connections_accepted_total"),
        received=change.rate("picowsgi_received_bytes_total"),
        sent=change.rate("picowsgi_sent_bytes_total"),
        refused=change.rate("picowsgi_refused_total"),
        refused_total=_counts(page, "picowsgi_refused_total"),
        dropped_log_lines=_value(page, "picowsgi_dropped_log_lines_total"),
        memory=_value(page, "process_resident_memory_bytes"),
        cpu=change.rate("process_cpu_seconds_total"),
    )


def has_restarted(before: Page, after: Page) -> bool:
    """Return whether the two pages are of two servers."""
    name = "process_start_time_seconds"
    return before.get(name) != after.get(name)


class _Change:
    """The growth of counters from one sample to the next."""

    def __init__(self, before: Sample | None, after: Sample) -> None:
        self._before: Page = {} if before is None else before.page
        self._after = after.page
        seconds = 0.0 if before is None else after.at - before.at
        self.seconds = seconds if seconds >= _LEAST_SECONDS else None

    def rates(self, name: str) -> dict[Labels, float] | None:
        """Return the rate of each series of a counter; None: the counter has no rate."""
        growth = self._growth(name)
        if growth is None or self.seconds is None:
            return None
        return {labels: value / self.seconds for labels, value in growth.items()}

    def rate(self, name: str) -> float | None:
        """Return the rate of all series of a counter together."""
        rates = self.rates(name)
        return None if rates is None else sum(rates.values())

    def durations(self, name: str) -> Durations | None:
        """Return what a histogram has counted between the samples."""
        growth = self._growth(f"{name}_bucket")
        if not growth or self.seconds is None:
            return None
        buckets: dict[float, float] = {}
        for labels, value in growth.items():
            bound = _bound(dict(labels).get("le", ""))
            if bound is not None:
                buckets[bound] = buckets.get(bound, 0.0) + value
        total = self._growth(f"{name}_sum")
        return summarize(sorted(buckets.items()), sum(total.values()) if total else None)

    def _growth(self, name: str) -> dict[Labels, float] | None:
        """Return by how much each series has grown; None: one has restarted, or there is none.

        A series that appears has counted from 0.
        """
        before = self._before.get(name, {})
        after = self._after.get(name)
        if after is None or not before.keys() <= after.keys():
            return None
        growth = {labels: value - before.get(labels, 0.0) for labels, value in after.items()}
        return growth if all(0 <= value <= _MOST for value in growth.values()) else None


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def _value(page: Page, name: str, **labels: str) -> float | None:
    """Return the sum of the series with these labels; None: the page has none of them."""
    wanted = labels.items()
    values = [value for each, value in page.get(name, {}).items() if wanted <= dict(each).items()]
    total = sum(values)
    return total if values and math.isfinite(total) else None


def _counts(page: Page, name: str) -> dict[str, float]:
    """Return the counts above zero by their reason, the largest first."""
    series = {labels: value for labels, value in page.get(name, {}).items() if 0 < value <= _MOST}
    counts = _by_label(series, "reason")
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _by_label(series: Mapping[Labels, float], name: str) -> dict[str, float]:
    """Return the sums of the series with the same value of a label, sorted by that value."""
    sums: dict[str, float] = {}
    for labels, value in series.items():
        key = printable(dict(labels).get(name, ""))
        sums[key] = sums.get(key, 0.0) + value
    return dict(sorted(sums.items()))
