"""The loans of responses to the core are correct in every state that can be reached."""

from __future__ import annotations

from itertools import product

import pytest

from model.lifetimes import FORMER, RIGHT, Model, Rule, explore

ITEMS = list(product((0, 1, 2), repeat=2))


@pytest.mark.parametrize("signals", [0, 1, 2])
@pytest.mark.parametrize("items", ITEMS)
def test_the_core_never_reads_a_freed_piece_and_frees_each_one_in_the_end(
    items: tuple[int, int], signals: int
) -> None:
    outcome = explore(Model(RIGHT, items, signals))
    assert not outcome.wrong, f"{outcome.wrong}, after:\n" + "\n".join(outcome.trace)
    assert outcome.states > 50


def test_every_kind_of_step_is_tried() -> None:
    seen: set[str] = set()
    explore(Model(RIGHT, (1, 2), signals=1), lambda label: seen.add(label.split(": ", 1)[-1]))
    for step in (
        "request.lends = 1",
        "loans[1] = ((1, 0),)",
        "loans[2] = ()",
        "loans[2] = ((2, 0), (2, 1))",
        "pw_respond((1, 0)): the socket takes it",
        "pw_respond((1, 0)): borrowed",
        "pw_send_data((2, 1)): borrowed",
        "pw_send_end",
        "pw_news says 1",
        "loans.pop(2)",
        "pw_news_done",
        "a signal's handler raises",
        "pw_thread_free",
        "the socket takes (2, 0)",
        "the client leaves",
    ):
        assert step in seen, f"expected {step!r} among the steps"


@pytest.mark.parametrize("rule", [FORMER, Rule(by_exchange=False)])
def test_with_the_number_of_the_connection_a_later_response_loses_its_piece(rule: Rule) -> None:
    outcome = explore(Model(rule, (1, 1)))
    assert outcome.wrong == "the core may read (2, 0), which is freed"


def test_a_piece_that_is_registered_after_the_call_is_freed_by_a_signal() -> None:
    rule = Rule(before=False)
    assert not explore(Model(rule, (1, 1))).wrong, "expected no fault without a signal"
    outcome = explore(Model(rule, (1, 1), signals=1))
    assert outcome.wrong == "the core may read (1, 0), which is freed"
    assert outcome.trace[-1] == "A: a signal's handler raises"


def test_a_loan_stays_after_a_signal_when_news_are_sent_once() -> None:
    rule = Rule(said_again=False)
    assert not explore(Model(rule, (1, 1))).wrong, "expected no fault without a signal"
    outcome = explore(Model(rule, (1, 1), signals=1))
    assert outcome.wrong.startswith("never dropped: ")
    assert "A: a signal's handler raises" in outcome.trace
