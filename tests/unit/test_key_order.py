"""picowsgi.wsgi.key_order puts values into an environ, by the order of their keys."""

from __future__ import annotations

import pytest

from picowsgi import core
from picowsgi.wsgi.key_order import _KNOWN, _OFTEN, Orders

KEYS = ("REQUEST_URI", "HTTP_HOST", "PATH_INFO")
ORDER = "".join(chr(core.KEYS.index(key)) for key in KEYS)


def test_a_generated_function_for_an_order_gives_the_same_result_as_the_general_one() -> None:
    orders = Orders([{"SERVER_NAME": "a"}, {"SERVER_NAME": "b"}])
    functions = set()
    for number in range(2 * _OFTEN):
        fill, blanks = orders.known.get(ORDER) or orders.learn(ORDER)
        functions.add(fill)
        for wrong in ([ORDER], [ORDER, "/"], [ORDER, "/", "h", "/", "more"]):
            environ = blanks[0].copy()
            with pytest.raises(ValueError):  # noqa: PT011
                fill(environ, wrong)
            assert environ == blanks[0], "expected no generated function"
        environ = blanks[1].copy()
        fill(environ, [ORDER, f"/{number}", "h", "/p"])
        assert environ == {
            "SERVER_NAME": "b",
            "REQUEST_URI": f"/{number}",
            "RAW_URI": f"/{number}",
            "HTTP_HOST": "h",
            "PATH_INFO": "/p",
        }
    assert len(functions) == 2, "expected one for a rare order and one for a usual one"


def test_the_number_of_remembered_orders_is_limited() -> None:
    orders = Orders([{}])
    others = [chr(core.KEYS.index(key)) for key in core.KEYS[14:]]
    for first in others[:60]:
        for second in others[:60]:
            orders.learn(ORDER + first + second)
            assert len(orders.known) <= _KNOWN
