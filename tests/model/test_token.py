"""No request and no token is lost, in any order of the threads, the watcher and the rule."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from model.token import RIGHT, Model, Rule, explore

#: The answers of the rule: never, always, and either at any time.
PAYS = [(False,), (True,), (False, True)]


@pytest.fixture(autouse=True)
def _without_collection() -> Iterator[None]:
    """The model keeps every state, so the collector looks at them again and again for nothing."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("pays", PAYS, ids=["never", "always", "either"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threads": 1},
        {"threads": 3, "requests": 3},
        {"stuck": 1},
        {"threads": 1, "stuck": 1},
        {"threads": 3, "requests": 3, "stuck": 1},
        {"stops": True},
        {"stops": True, "stuck": 1},
        {"threads": 3, "stops": True, "stuck": 2},
        {"news": True},
        {"threads": 3, "news": True, "stuck": 1},
        {"news": True, "stops": True},
        {"news": True, "held_up": True},
        {"threads": 3, "news": True, "held_up": True, "stops": True},
        {"slow": 1, "requests": 3},
        {"threads": 1, "slow": 1},
        {"slow": 1, "stops": True},
    ],
    ids=str,
)
def test_every_request_is_taken_in_its_order_and_every_stop_ends(options, pays):
    outcome = explore(Model(RIGHT, **options, pays=pays))
    assert not outcome.wrong, f"{outcome.wrong}, after:\n" + "\n".join(outcome.trace)
    assert outcome.states > 50


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Rule(carry_is_out=False), {"news": True, "held_up": True}),
        (Rule(stop_wakes_all=False), {"stops": True}),
        (Rule(watch_is_woken=False), {"stuck": 1}),
        (Rule(retiring_passes_on=False), {"slow": 1, "requests": 3}),
        (Rule(hold_wakes_loop=False), {"slow": 2, "requests": 3}),
    ],
)
def test_the_model_finds_the_fault_when_a_rule_is_left_out(rule, options):
    assert not explore(Model(RIGHT, **options, pays=(False,))).wrong
    assert explore(Model(rule, **options, pays=(False,))).wrong == "it never ends"
