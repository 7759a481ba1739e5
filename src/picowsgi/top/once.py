"""`picowsgi top --once`: the view of one interval, as text or JSON. Never uses the terminal."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from picowsgi.log import printable
from picowsgi.top.draw import draw, paint
from picowsgi.top.monitor import Screen, take_sample
from picowsgi.top.view import compare

if TYPE_CHECKING:
    from picowsgi.top.address import Address


def describe_once(address: Address, interval: float, *, as_json: bool) -> str:
    """Take two samples, and return the text. Raises UnreachableError and PageError."""
    before = take_sample(address)
    time.sleep(interval)
    view = compare(before, take_sample(address))
    if as_json:
        return json.dumps({"address": address.text, **asdict(view)}) + "\n"
    note = "the server has restarted between the two samples, so no rate is known"
    if view.seconds is not None:
        note = f"rates of {view.seconds:.2f} s"
    screen = Screen(printable(address.text), interval, view, note)
    return "".join(f"{paint(line, colour=False)}\n" for line in draw(screen, None))
