"""Percentiles from the buckets of a histogram."""

from __future__ import annotations

import math
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from picowsgi.top.percentiles import SHARES, Percentile, percentile, summarize
from support.properties import PROPERTY

BOUNDS = (0.001, 0.01, 0.1, 1.0, math.inf)


def test_a_percentile_is_interpolated_within_its_bucket() -> None:
    buckets = [(1.0, 10.0), (3.0, 30.0), (math.inf, 40.0)]
    assert percentile(buckets, 0.5) == Percentile(1.0, 3.0, 2.0)
    assert percentile(buckets, 0.25) == Percentile(0.0, 1.0, 1.0)
    assert percentile(buckets, 0.125) == Percentile(0.0, 1.0, 0.5)
    assert percentile(buckets, 0.75) == Percentile(1.0, 3.0, 3.0)


def test_above_the_last_bound_only_the_lower_bound_is_known() -> None:
    buckets = [(1.0, 10.0), (3.0, 30.0), (math.inf, 40.0)]
    assert percentile(buckets, 0.76) == Percentile(3.0, None, None)
    assert percentile([(math.inf, 1.0)], 0.5) == Percentile(0.0, None, None)


def test_an_empty_bucket_has_no_percentile() -> None:
    buckets = [(1.0, 0.0), (2.0, 10.0), (3.0, 10.0), (math.inf, 10.0)]
    assert percentile(buckets, 0.001) == Percentile(1.0, 2.0, 1.001)
    assert percentile(buckets, 1.0) == Percentile(1.0, 2.0, 2.0)


def test_without_durations_there_is_no_percentile() -> None:
    assert percentile([], 0.5) is None
    assert percentile([(1.0, 0.0), (math.inf, 0.0)], 0.5) is None
    assert summarize([(1.0, 0.0), (math.inf, 0.0)], 0.0) is None


def test_a_summary_has_the_number_the_mean_and_three_percentiles() -> None:
    found = summarize([(1.0, 50.0), (2.0, 100.0), (math.inf, 100.0)], 120.0)
    assert found is not None
    assert (found.count, found.mean) == (100.0, 1.2)
    assert found.percentiles == {
        "p50": Percentile(0.0, 1.0, 1.0),
        "p90": Percentile(1.0, 2.0, 1.8),
        "p99": Percentile(1.0, 2.0, 1.98),
    }
    without = summarize([(math.inf, 1.0)], None)
    assert without is not None
    assert without.mean is None


@PROPERTY
@given(st.lists(st.floats(0, 5), min_size=1), st.floats(0.001, 1))
def test_the_true_percentile_is_within_the_bounds(durations: list[float], share: float) -> None:
    buckets = [(bound, float(sum(d <= bound for d in durations))) for bound in BOUNDS]
    found = percentile(buckets, share)
    assert found is not None
    ranked = sorted(durations)
    true = ranked[min(math.ceil(share * len(ranked)), len(ranked)) - 1]
    high = math.inf if found.high is None else found.high
    assert found.low <= true <= high
    assert high == BOUNDS[bisect_left(BOUNDS, true)]
    if found.value is not None:
        assert found.low <= found.value <= high


@PROPERTY
@given(
    st.lists(st.floats(0, 1e12), min_size=len(BOUNDS), max_size=len(BOUNDS)),
    st.lists(st.floats(0.001, 1), min_size=2, max_size=5),
)
def test_a_larger_share_never_has_a_smaller_percentile_even_if_the_counts_are_out_of_order(
    counts: list[float], shares: list[float]
) -> None:
    buckets = list(zip(BOUNDS, counts, strict=True))
    found = [percentile(buckets, share) for share in sorted(shares)]
    if max(counts) <= 0:
        assert found == [None] * len(shares)
        return
    values = []
    for each in found:
        assert each is not None
        assert each.value is None or each.low <= each.value <= (each.high or math.inf)
        values.append(math.inf if each.value is None else each.value)
    assert values == sorted(values)


def test_the_shares_are_those_of_the_display() -> None:
    assert SHARES == {"p50": 0.5, "p90": 0.9, "p99": 0.99}
