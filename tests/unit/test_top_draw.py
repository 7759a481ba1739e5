"""The lines of a screen, for terminals of any size."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowsgi.top import units
from picowsgi.top.draw import ASCII_BLOCKS, BLOCKS, Line, draw, paint, sparkline
from picowsgi.top.monitor import History, Screen
from picowsgi.top.page import parse_page
from picowsgi.top.view import Sample, View, compare
from support.metrics_server import page
from support.properties import PROPERTY


def view_of(before: str, after: str) -> View:
    return compare(Sample(parse_page(before), 10.0, 0.0), Sample(parse_page(after), 11.0, 4661.0))


VIEW = view_of(page(3), page(4))
FULL = view_of(
    page(3),
    page(4)
    .replace("threads_busy 4", "threads_busy 16")
    .replace("queue_length 0", "queue_length 3")
    .replace("log_lines_total 0", "log_lines_total 12")
    .replace('method="other",status="1xx"} 0', 'method="other",status="1xx"} 2')
    .replace('method="other",status="5xx"} 0', 'method="other",status="5xx"} 1'),
)
HISTORY = History((None, 0.0, 50.0, 100.0), (None, None, 0.005, 0.0025))


def screen(view: View | None = VIEW, **more: object) -> Screen:
    return Screen("127.0.0.1:9000", 1.0, view, **{"note": "a note", "history": HISTORY, **more})  # type: ignore[arg-type]


def texts(lines: list[Line]) -> list[str]:
    return [paint(line, colour=False) for line in lines]


def test_the_screen_of_a_terminal_of_80_columns() -> None:
    assert texts(draw(screen(), 80)) == [
        "picowsgi 1.2.3 at 127.0.0.1:9000  Python 3.12.1  epoll  up 1 h 1 min",
        "a note",
        "requests     100/s       2xx 80/s    3xx 0/s     4xx 20/s    5xx 0/s",
        "duration     p50 1 ms (0.5 ms to 1 ms)        p90 4.54 ms (2.5 ms to 5 ms)",
        "             p99 5 ms (2.5 ms to 5 ms)        mean 602 ms",
        "queue time   p50 0.25 ms (0 ms to 0.5 ms)     p90 0.45 ms (0 ms to 0.5 ms)",
        "             p99 0.495 ms (0 ms to 0.5 ms)    mean 0.2 ms",
        "threads      busy 4 of 16  queue 0",
        "workers      2  restarts 1 (memory 1)",
        "connections  active 5  idle 7  new 3/s",
        "bytes        received 2 KiB/s  sent 1 MiB/s",
        "refused      1/s         total 4 (timeout_head 4)",
        "memory       100 MiB",
        "CPU          50 %",
        "requests/s    ▁▅█  highest 100",
        "p99            █▅  highest 5 ms",
    ]


def test_a_narrow_terminal_has_the_labels_on_lines_of_their_own() -> None:
    lines = texts(draw(screen(), 30))
    at = lines.index("threads")
    assert lines[at : at + 2] == ["threads", "  busy 4 of 16  queue 0"]
    at = lines.index("requests")
    assert lines[at : at + 4] == [
        "requests",
        "  100/s       2xx 80/s",
        "  3xx 0/s     4xx 20/s",
        "  5xx 0/s",
    ]


def test_a_terminal_of_a_few_columns_has_a_part_of_each_text_in_a_line() -> None:
    lines = texts(draw(screen(), 3))
    at = lines.index("thr")
    assert lines[at : at + 4] == ["thr", "  b", "  u", "  s"]
    lines = texts(draw(screen(), 1))
    assert sum(line in BLOCKS for line in lines if line) == 2, "expected the last step of each line"


def test_a_server_without_threads_is_no_alarm() -> None:
    text = page(3).replace("threads 16", "threads 0").replace("busy 4", "busy 0")
    painted = [paint(line, colour=True) for line in draw(screen(view_of(text, text)), 80)]
    assert any("busy 0 of 0  queue 0" in line for line in painted)


def test_without_a_width_each_label_has_one_line() -> None:
    lines = texts(draw(screen(), None))
    assert lines[3] == (
        "duration     p50 1 ms (0.5 ms to 1 ms)        p90 4.54 ms (2.5 ms to 5 ms)     "
        "p99 5 ms (2.5 ms to 5 ms)        mean 602 ms"
    )
    assert len(lines) == 14


def test_a_percentile_above_the_last_bound_has_no_value() -> None:
    more = "".join(
        line.replace(" 400", " 800").replace(" 4\n", " 404\n")
        for line in page(4).splitlines(keepends=True)
    )
    lines = texts(draw(screen(view_of(page(4), more)), 80))
    assert any(line.startswith("duration     p50 > 30 s ") for line in lines)


def test_values_that_are_not_known_are_dashes() -> None:
    lines = texts(draw(screen(compare(None, Sample(parse_page(page(4)), 1.0, 1.0))), 80))
    for line in (
        "requests     -",
        "duration     p50 -                            p90 -",
        "             p99 -                            mean -",
        "connections  active 5  idle 7  new -",
        "bytes        received -  sent -",
        "refused      -           total 4 (timeout_head 4)",
        "CPU          -",
    ):
        assert line in lines


def test_an_error_is_shown_with_the_age_of_the_numbers() -> None:
    shown = screen(error="no metrics from x: Connection refused", age=75.0)
    assert texts(draw(shown, 80))[1:3] == [
        "no metrics from x: Connection refused",
        "trying again every 1 s; the numbers are 1 min 15 s old",
    ]
    assert paint(draw(shown, 80)[1], colour=True) == (
        "\x1b[1;31mno metrics from x: Connection refused\x1b[0m"
    )
    first = screen(None, error="no metrics from x: Connection refused")
    assert texts(draw(first, 24)) == [
        "picowsgi at 127.0.0.1:90",
        "00",
        "no metrics from x:",
        "Connection refused",
        "trying again every 1 s",
    ]


def test_colours_mark_statuses_and_what_needs_attention() -> None:
    painted = "\n".join(paint(line, colour=True) for line in draw(screen(FULL), 80))
    for text in (
        "\x1b[1;31mbusy 16 of 16\x1b[0m",
        "\x1b[1;31mqueue 3\x1b[0m",
        "\x1b[1;31mdropped 12\x1b[0m",
        "  1xx 2/s     \x1b[32m2xx 80/s  \x1b[0m  3xx 0/s     \x1b[33m4xx 20/s  \x1b[0m  ",
        "\x1b[1;31m5xx 1/s",
    ):
        assert text in painted
    assert "\x1b[2m\x1b[0m" not in painted, "expected no colour for nothing"
    calm = "\n".join(paint(line, colour=True) for line in draw(screen(), 80))
    assert "\x1b[1;31m" not in calm
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted).count("\x1b") == 0
    assert all("\x1b" not in text for text in texts(draw(screen(FULL), 80)))


@pytest.mark.parametrize("shown", [screen(), screen(FULL, error="no metrics from x", age=1.0)])
@pytest.mark.parametrize("blocks", [BLOCKS, ASCII_BLOCKS])
def test_no_line_is_wider_than_the_terminal_and_no_text_is_lost(shown: Screen, blocks: str) -> None:
    words = set(" ".join(texts(draw(shown, None, blocks))).split())
    for width in (*range(-1, 200), 1000):
        lines = texts(draw(shown, width, blocks))
        assert max(map(len, lines)) <= max(width, 1), f"at {width} columns"
        if width >= 40:
            missing = words - set(" ".join(lines).split()) - {words_of_history(shown, blocks)}
            assert not missing, f"at {width} columns"


def words_of_history(shown: Screen, blocks: str) -> str:
    return sparkline(shown.history.requests, blocks).strip()


@PROPERTY
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e300)), max_size=80),
    st.integers(1, 150),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200),
)
def test_any_history_and_any_error_fit(values: list[float | None], width: int, error: str) -> None:
    shown = screen(history=History(values, values), error=error)
    for line in texts(draw(shown, width)):
        assert len(line) <= width


@PROPERTY
@given(st.lists(st.one_of(st.none(), st.floats(0, 1e300)), max_size=80))
def test_a_sparkline_has_a_step_for_each_value(values: list[float | None]) -> None:
    text = sparkline(values)
    assert len(text) == len(values)
    known = [
        (value, BLOCKS.index(step))
        for value, step in zip(values, text, strict=True)
        if value is not None
    ]
    assert [step for _, step in sorted(known)] == sorted(step for _, step in known)
    assert all(step == " " for value, step in zip(values, text, strict=True) if value is None)
    if any(value for value, _ in known):
        assert max(known)[1] == len(BLOCKS) - 1


def test_a_sparkline_begins_at_zero() -> None:
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([1.0, None, 7.0, 8.0]) == "▂ ██"
    assert sparkline([0.0, 1.0], ASCII_BLOCKS) == "_#"
    assert sparkline([]) == ""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (units.number(0.0), "0"),
        (units.number(0.1234), "0.123"),
        (units.number(12.34), "12.3"),
        (units.number(99.96), "100"),
        (units.number(1234.5), "1234"),
        (units.number(2e9), "2.00e+09"),
        (units.number(None), "-"),
        (units.per_second(12.0), "12/s"),
        (units.per_second(None), "-"),
        (units.size(999.0), "999 B"),
        (units.size(1000.0), "0.977 KiB"),
        (units.size(1536.0), "1.5 KiB"),
        (units.size(3.0 * (1 << 60)), "3072 PiB"),
        (units.size(None), "-"),
        (units.seconds(0.0), "0 ms"),
        (units.seconds(0.00074), "0.74 ms"),
        (units.seconds(1.0), "1 s"),
        (units.seconds(30.0), "30 s"),
        (units.seconds(None), "-"),
        (units.uptime(0.5), "0 s"),
        (units.uptime(59.0), "59 s"),
        (units.uptime(60.0), "1 min 0 s"),
        (units.uptime(3600.0), "1 h 0 min"),
        (units.uptime(90061.0), "1 d 1 h"),
        (units.uptime(None), "-"),
    ],
)
def test_numbers_have_three_digits_and_a_unit(text: str, wanted: str) -> None:
    assert text == wanted
