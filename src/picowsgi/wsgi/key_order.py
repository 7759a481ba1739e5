"""Puts the values of a block (csrc/api.h) into an environ, by the order in which their keys come.

Never sees a request of its own: only keys, and lists of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from picowsgi import core

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_KNOWN = 1024  # how many orders are remembered
#: An order that has been used so often gets a function of its own. It takes as long to make as 100
#: requests, so a client with ever new orders of its header fields must not have one for each.
_OFTEN = 64

#: Puts values into an environ, but for the first of them, which is the order. Raises ValueError,
#: and does nothing, where there are more or fewer of them than the order says.
Fill = Callable[["WSGIEnvironment", Sequence[str]], None]


class Orders:
    """The orders that one serving thread has met; `bases` as in `EnvironMaker`."""

    def __init__(self, bases: list[WSGIEnvironment]) -> None:
        self._bases = bases
        #: By the numbers of the keys: how they are filled in, and for each listening socket an
        #: environ that has them, so that no dict has to grow meanwhile.
        self.known: dict[str, tuple[Fill, list[WSGIEnvironment]]] = {}

    def learn(self, order: str) -> tuple[Fill, list[WSGIEnvironment]]:
        """Return what `known` has for this order from now on."""
        if len(self.known) >= _KNOWN:
            self.known.clear()
        keys = tuple(core.KEYS[ord(number)] for number in order)
        blank = dict.fromkeys((*keys, "RAW_URI"))
        blanks = [{**base, **blank} for base in self._bases]
        uri = 1 + keys.index("REQUEST_URI")
        left = _OFTEN

        def fill(environ: WSGIEnvironment, values: Sequence[str]) -> None:
            nonlocal left
            if len(values) != len(keys) + 1:
                raise ValueError
            environ.update(zip(keys, values[1:], strict=True))
            environ["RAW_URI"] = values[uri]
            left -= 1
            if left == 0:
                self.known[order] = make_fill(keys), blanks

        known = self.known[order] = fill, blanks
        return known


def make_fill(keys: Sequence[str]) -> Fill:
    """Return a function for these keys alone: half the work of `dict.update`."""
    targets = ", ".join(f"environ[{key!r}]" for key in keys)
    source = (
        "def fill(environ, values):\n"
        f"    _, {targets} = values\n"
        f'    environ["RAW_URI"] = values[{1 + keys.index("REQUEST_URI")}]\n'
    )
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 (of the core's own keys, never of what a client has sent)
    fill: Fill = names["fill"]
    return fill
