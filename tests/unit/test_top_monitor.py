"""The state of the live display: what it shows after each sample, or without one."""

from __future__ import annotations

from picowsgi.top.address import parse_address
from picowsgi.top.fetch import UnreachableError
from picowsgi.top.monitor import HISTORY, History, Monitor
from picowsgi.top.page import parse_page
from picowsgi.top.view import Sample
from support.metrics_server import page

GONE = UnreachableError("no metrics from x: Connection refused")


def sample(step: int, at: float, start: float = 1000.0) -> Sample:
    return Sample(parse_page(page(step, start=start)), at, 5000.0 + at)


def monitor() -> Monitor:
    return Monitor(parse_address("127.0.0.1:9000"), 2.0)


def test_before_the_first_sample_the_display_waits() -> None:
    screen = monitor().screen(1.0)
    assert (screen.address, screen.interval) == ("127.0.0.1:9000", 2.0)
    assert screen.note == "waiting for the first sample"
    assert (screen.view, screen.error, screen.age, screen.history) == (None, "", None, History())


def test_the_history_has_the_requests_and_the_longest_durations() -> None:
    shown = monitor()
    for step in range(3):
        shown.add(sample(step, float(step)))
    screen = shown.screen(5.0)
    assert screen.note == "every 2 s; press q to quit"
    assert screen.age == 3.0
    assert screen.history == History((None, 100.0, 100.0), (None, 0.005, 0.005))
    assert screen.view is not None
    assert screen.view.requests == 100.0


def test_the_history_has_the_lower_bound_of_the_last_bucket() -> None:
    shown = monitor()
    before, after = sample(1, 1.0), sample(1, 2.0)
    bucket = after.page["picowsgi_request_duration_seconds_bucket"]
    bucket[(("le", "+Inf"),)] += 10
    shown.add(before)
    shown.add(after)
    assert shown.screen(2.0).history.p99 == (None, 30.0)


def test_the_history_is_limited() -> None:
    shown = monitor()
    for step in range(HISTORY + 10):
        shown.add(sample(step, float(step)))
    history = shown.screen(0.0).history
    assert (len(history.requests), len(history.p99)) == (HISTORY, HISTORY)
    assert None not in history.requests


def test_a_server_that_goes_away_leaves_a_gap_and_its_last_numbers() -> None:
    shown = monitor()
    shown.add(sample(1, 1.0))
    shown.add(sample(2, 2.0))
    shown.add(GONE)
    screen = shown.screen(4.0)
    assert (screen.error, screen.age) == (str(GONE), 2.0)
    assert screen.view is not None
    assert screen.view.requests == 100.0
    assert screen.history.requests == (None, 100.0, None)
    shown.add(sample(9, 5.0))
    screen = shown.screen(5.0)
    assert screen.error == ""
    assert screen.view is not None
    assert screen.view.requests is None, "expected no rate over the time without samples"
    shown.add(sample(10, 6.0))
    assert shown.screen(6.0).history.requests == (None, 100.0, None, None, 100.0)


def test_a_server_that_restarts_has_no_negative_rates() -> None:
    shown = monitor()
    shown.add(sample(8, 1.0))
    shown.add(sample(9, 2.0))
    shown.add(sample(0, 3.0, start=2000.0))
    screen = shown.screen(3.0)
    assert screen.note == "the server has restarted; every 2 s; press q to quit"
    assert screen.view is not None
    assert screen.view.requests is None
    shown.add(sample(1, 4.0, start=2000.0))
    screen = shown.screen(4.0)
    assert screen.note == "every 2 s; press q to quit"
    assert screen.history.requests == (None, 100.0, None, 100.0)


def test_a_restart_is_noticed_across_a_gap() -> None:
    shown = monitor()
    shown.add(sample(8, 1.0))
    shown.add(GONE)
    shown.add(sample(9, 2.0, start=2000.0))
    assert "restarted" in shown.screen(3.0).note
