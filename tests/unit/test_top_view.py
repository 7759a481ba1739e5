"""Rates and counts from two samples of a page."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowsgi.top.page import parse_page
from picowsgi.top.percentiles import Percentile
from picowsgi.top.view import Sample, View, compare, has_restarted
from support.metrics_server import INFO, page
from support.properties import PROPERTY

#: Fields that need two samples.
RATES = {"requests", "accepted", "received", "sent", "refused", "cpu"}


def sample(text: str, at: float = 0.0) -> Sample:
    return Sample(parse_page(text), at, 4600.0)


def test_the_rates_are_the_growth_of_the_counters_by_the_time_between_the_samples() -> None:
    view = compare(sample(page(3), 10.0), sample(page(4), 12.0))
    assert (view.version, view.python, view.poller) == ("1.2.3", "3.12.1", "epoll")
    assert (view.uptime, view.seconds) == (3600.0, 2.0)
    assert view.requests == 50.0
    assert view.statuses == {"1xx": 0.0, "2xx": 40.0, "3xx": 0.0, "4xx": 10.0, "5xx": 0.0}
    assert (view.received, view.sent) == (1024.0, 524288.0)
    assert (view.accepted, view.refused, view.cpu) == (1.5, 0.5, 0.25)
    assert (view.connections_idle, view.connections_active) == (7.0, 5.0)
    assert (view.threads, view.threads_busy, view.queue_length) == (16.0, 4.0, 0.0)
    assert (view.workers, view.memory, view.dropped_log_lines) == (2.0, 104857600.0, 0.0)


def test_counts_by_reason_leave_out_zeros_and_begin_with_the_largest() -> None:
    view = compare(None, sample(page(4)))
    assert view.restarts == {"memory": 1.0}
    assert view.refused_total == {"timeout_head": 4.0}
    text = INFO + "".join(
        f'picowsgi_refused_total{{reason="{reason}"}} {count}\n'
        for reason, count in (("a", 1), ("b", 3), ("c", 2), ("d", 3), ("e", 0))
    )
    counts = compare(None, sample(text)).refused_total
    assert list(counts.items()) == [("b", 3), ("d", 3), ("c", 2), ("a", 1)]


def test_the_durations_are_those_between_the_samples() -> None:
    view = compare(sample(page(3), 10.0), sample(page(4), 11.0))
    assert view.duration is not None
    assert view.queue is not None
    assert view.duration.count == 100
    assert view.duration.mean == pytest.approx(0.60231)
    assert view.duration.percentiles["p50"] == Percentile(0.0005, 0.001, 0.001)
    assert view.duration.percentiles["p99"] == Percentile(0.0025, 0.005, 0.005)
    assert view.queue.percentiles["p50"] == Percentile(0.0, 0.0005, 0.00025)


def test_one_sample_has_no_rates() -> None:
    view = compare(None, sample(page(4)))
    assert view.seconds is None
    assert view.statuses == {}
    assert {name for name in RATES if getattr(view, name) is not None} == set()
    assert (view.duration, view.queue) == (None, None)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_samples_without_time_between_them_have_no_rates(seconds: float) -> None:
    view = compare(sample(page(3), 10.0), sample(page(4), 10.0 + seconds))
    assert (view.seconds, view.requests, view.duration) == (None, None, None)


def test_after_a_restart_there_are_no_rates_even_if_the_counters_are_larger() -> None:
    before, after = sample(page(3), 1.0), sample(page(4, start=2000.0), 2.0)
    assert has_restarted(before.page, after.page)
    view = compare(before, after)
    assert (view.seconds, view.requests, view.duration) == (None, None, None)
    assert view.threads == 16.0


def test_only_a_counter_that_falls_loses_its_rate() -> None:
    fallen = page(4).replace("process_cpu_seconds_total 2.0", "process_cpu_seconds_total 0.1")
    fallen = fallen.replace('method="POST",status="2xx"} 40', 'method="POST",status="2xx"} 29')
    assert fallen.count(" 29\n") == 1
    view = compare(sample(page(3), 1.0), sample(fallen, 2.0))
    assert (view.cpu, view.requests, view.statuses) == (None, None, {})
    assert view.received == 2048.0


def test_a_series_that_disappears_takes_the_rate_of_its_counter() -> None:
    gone = page(4).replace('picowsgi_refused_total{reason="malformed"} 0\n', "")
    view = compare(sample(page(3), 1.0), sample(gone, 2.0))
    assert view.refused is None
    assert compare(sample(gone, 1.0), sample(page(5), 2.0)).refused == 1.0


def test_a_page_with_nothing_else_than_the_server_is_shown_without_numbers() -> None:
    view = compare(sample(INFO, 1.0), sample(INFO, 2.0))
    unknown = {each.name for each in fields(View)} - {"version", "python", "poller", "seconds"}
    for name in unknown:
        assert getattr(view, name) in (None, {}), name


def test_labels_cannot_control_the_terminal() -> None:
    text = 'picowsgi_info{version="\x1b[31m"} 1\npicowsgi_refused_total{reason="a\\nb"} 1\n'
    view = compare(None, sample(text))
    assert view.version == r"\x1b[31m"
    assert view.refused_total == {r"a\nb": 1.0}


@pytest.mark.parametrize("bound", ["x", "NaN", ""])
def test_a_bucket_without_a_bound_is_left_out(bound: str) -> None:
    more = f'picowsgi_queue_seconds_bucket{{le="{bound}"}} 1000\n'
    view = compare(sample(page(3) + more, 1.0), sample(page(4) + more, 2.0))
    assert view.queue is not None
    assert view.queue.count == 100


VALUES = st.one_of(st.floats(), st.integers(0, 100).map(float))
COUNTERS = st.fixed_dictionaries(
    {
        name: st.lists(VALUES, min_size=1, max_size=3)
        for name in (
            "picowsgi_requests_total",
            "picowsgi_request_duration_seconds_bucket",
            "picowsgi_request_duration_seconds_sum",
            "picowsgi_received_bytes_total",
            "picowsgi_refused_total",
            "picowsgi_threads",
            "process_cpu_seconds_total",
        )
    }
)


def built(values: dict[str, list[float]]) -> dict[str, Any]:
    bounds = ("0.1", "1", "+Inf")
    return {
        name: {
            (("le", bounds[n]), ("reason", str(n)), ("status", f"{n}xx")): value
            for n, value in enumerate(each)
        }
        for name, each in values.items()
    }


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    return [value] if isinstance(value, float) else []


@PROPERTY
@given(COUNTERS, COUNTERS, st.floats(0, 1e6))
def test_no_rate_is_negative_or_infinite_no_matter_what_the_pages_have(
    before: dict[str, list[float]], after: dict[str, list[float]], seconds: float
) -> None:
    view = asdict(compare(Sample(built(before), 0.0, 0.0), Sample(built(after), seconds, seconds)))
    view.pop("threads")  # a gauge may have any sign
    for number in numbers(view):
        assert math.isfinite(number)
        assert number >= 0
    json.dumps(view, allow_nan=False)


@PROPERTY
@given(st.lists(st.integers(0, 10**9), min_size=3, max_size=3), st.floats(0.01, 100))
def test_the_rate_times_the_seconds_is_the_growth(growth: list[int], seconds: float) -> None:
    before = {"picowsgi_received_bytes_total": [5.0] * 3}
    after = {"picowsgi_received_bytes_total": [5.0 + each for each in growth]}
    view = compare(Sample(built(before), 0.0, 0.0), Sample(built(after), seconds, 0.0))
    assert view.received is not None
    assert view.received * seconds == pytest.approx(sum(growth))
