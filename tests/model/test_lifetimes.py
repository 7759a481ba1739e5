"""The lifetimes of what responses lend to the core hold in every state that can be reached."""

from __future__ import annotations

from itertools import product

import pytest

from model.lifetimes import RIGHT, Model, Rule, explore

ITEMS = list(product((0, 1, 2), repeat=2))
BOTH_LEND = (1, 1)


@pytest.mark.parametrize("signals", [0, 1, 2])
@pytest.mark.parametrize("items", ITEMS)
def test_the_core_never_reads_a_freed_piece_and_each_is_dropped_in_the_end(
    items: tuple[int, int], signals: int
) -> None:
    outcome = explore(Model(RIGHT, items, signals))
    assert not outcome.wrong, f"{outcome.wrong}, after:\n" + "\n".join(outcome.trace)
    assert outcome.states > 100


def test_every_kind_of_step_is_tried() -> None:
    seen: set[str] = set()
    explore(Model(RIGHT, (1, 2), signals=1), seen.add)
    for step in (
        "A: request.lends = 1",
        "B: loans[1] = ((1, 0),)",
        "C: loans[2] = ((2, 0), (2, 1))",
        "A: pw_respond((1, 0)), all taken",
        "A: pw_respond((1, 0)), borrowed",
        "B: pw_send_data((2, 1)), borrowed",
        "B: pw_send_end",
        "C: pw_news and loans.pop(1)",
        "C: a signal's handler raises",
        "C: pw_thread_free",
        "the socket takes (2, 0)",
        "the client leaves",
    ):
        assert step in seen, f"expected {step!r} among the steps"


@pytest.mark.parametrize("before", [False, True])
def test_by_the_connection_a_later_response_loses_its_piece(before: bool) -> None:
    outcome = explore(Model(Rule(by_exchange=False, before=before), BOTH_LEND))
    assert outcome.wrong == "the core may read (2, 0), which is freed"


def test_registered_after_the_call_a_signal_frees_what_the_core_reads() -> None:
    rule = Rule(before=False)
    assert not explore(Model(rule, BOTH_LEND)).wrong, "without a signal it holds"
    outcome = explore(Model(rule, BOTH_LEND, signals=1))
    assert outcome.wrong == "the core may read (1, 0), which is freed"
    assert outcome.trace[-1] == "A: a signal's handler raises"


def test_a_signal_between_taking_news_and_dropping_the_loan_leaks_it() -> None:
    rule = Rule(at_once=False)
    assert not explore(Model(rule, BOTH_LEND)).wrong, "without a signal it holds"
    outcome = explore(Model(rule, BOTH_LEND, signals=1))
    assert outcome.wrong.startswith("never dropped: ")
    assert outcome.trace[-3:] == (
        "A: pw_news says 1",
        "A: a signal's handler raises",
        "A: pw_next",
    )
