"""The parser of the Prometheus text format."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowsgi.top.page import labels_of, parse_page
from support.metrics_server import page
from support.properties import PROPERTY


def test_a_page_has_the_values_by_name_and_labels() -> None:
    text = (
        "# HELP a Something.\n# TYPE a counter\n\n"
        'a 1\n a{} 2\r\nb{x="1"} 3.5\nb{ y = "2" , x="1", } -4e2 1700000000000\nc:d\t+Inf\ne NaN\n'
    ).replace(" a{} 2\r\n", " f{} 2\r\n")
    found = parse_page(text)
    assert math.isnan(found.pop("e")[()])
    assert found == {
        "a": {(): 1.0},
        "f": {(): 2.0},
        "b": {(("x", "1"),): 3.5, (("x", "1"), ("y", "2")): -400.0},
        "c:d": {(): math.inf},
    }


def test_escapes_in_labels_are_read() -> None:
    assert labels_of(parse_page(r'a{b="\"x\\n\n\t,} 1"} 1'), "a") == {"b": '"x\\n\n\\t,} 1'}
    assert labels_of({}, "a") == {}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("<html>", "<html>"),
        ("a", "a"),
        ("a b", "a b"),
        ("a 1_000", "a 1_000"),
        ("a 0x1", "a 0x1"),
        ("a infinity", "a infinity"),
        ("1a 1", "1a 1"),
        ('a{b="c} 1', 'a{b="c} 1'),
        ('a{b="c"', 'a{b="c"'),
        ("a{b=c} 1", "a{b=c} 1"),
        ('a{b="c" d="e"} 1', 'a{b="c" d="e"} 1'),
        ('a{b="c",b="d"} 1', 'a{b="c",b="d"} 1'),
        ("a 1 x", "a 1 x"),
        ("a 1 1 1", "a 1 1 1"),
        ("a \x1b[31m", r"a \x1b[31m"),
        ("x" * 100, "x" * 60),
    ],
)
def test_a_malformed_line_is_refused_with_its_number_and_printable_text(
    line: str, shown: str
) -> None:
    with pytest.raises(ValueError, match="line 2: ") as refused:
        parse_page(f"b 1\n{line}\n")
    assert str(refused.value) == f"line 2: expected NAME{{LABELS}} VALUE, got {shown}"


def test_a_series_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^line 2: a has the same labels twice$"):
        parse_page('a{b="c",d="e"} 1\na{d="e",b="c"} 2\n')


def test_a_line_of_blanks_or_quotes_takes_no_longer_than_others() -> None:
    # With a pattern that tries each division of the blanks, this would take hours.
    for line in ("a" + " " * 1_000_000 + "{", 'a{b="' + "\\" * 1_000_001 + '"} 1', 'a{b="",' * 9):
        with pytest.raises(ValueError, match=r"^line 1: "):
            parse_page(line)


NAMES = st.sampled_from(("a", "B_1", "_c", "le", "status"))
PAGES = st.dictionaries(
    NAMES,
    st.dictionaries(
        st.dictionaries(NAMES, st.text(max_size=5), max_size=3).map(
            lambda each: tuple(sorted(each.items()))
        ),
        st.floats(allow_nan=False),
        min_size=1,
        max_size=3,
    ),
    max_size=3,
)


@PROPERTY
@given(PAGES)
def test_what_is_written_in_the_format_is_read_back(
    wanted: dict[str, dict[tuple[tuple[str, str], ...], float]],
) -> None:
    def escape(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    lines = []
    for name, series in wanted.items():
        for labels, value in series.items():
            inner = ",".join(f'{label}="{escape(text)}"' for label, text in labels)
            lines.append(f"{name}{{{inner}}} {value!r}")
    assert parse_page("\n".join(lines)) == wanted


@PROPERTY
@given(st.text())
def test_any_text_is_a_page_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        parse_page(text)


def test_the_page_of_a_server_is_read() -> None:
    found = parse_page(page(3))
    assert labels_of(found, "picowsgi_info")["version"] == "1.2.3"
    assert found["picowsgi_requests_total"][(("method", "GET"), ("status", "2xx"))] == 210
