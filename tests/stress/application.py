"""The application under stress: answers each exchange in the way that its request asks for.

What it meets goes as lines into the file `events` of the current directory: each iterable that is
made, each that is closed, and what became of writes that failed. STRESS_INTERVAL is the switch
interval of the interpreter in seconds, STRESS_COMPUTE how many threads compute meanwhile; with
STRESS_DELAYS the server's threads are delayed when they come back from the core.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from stress.exchanges import PIECES, WRITERS, Exchange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType
    from wsgiref.types import StartResponse, WSGIEnvironment

_events = os.open("events", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
_of_thread = threading.local()


class MeantError(Exception):
    """Raised because the request asks for it."""


def note(*words: object) -> None:
    os.write(_events, (" ".join(map(str, words)) + "\n").encode())


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    exchange = Exchange.from_environ(environ)
    pause(exchange)
    items: Iterable[bytes] = ANSWERS[exchange.kind](exchange, environ, start_response)
    return items


def pause(exchange: Exchange) -> None:
    """Wait, or compute with the lock of the interpreter, as the request asks for."""
    seconds = Random(exchange.id).choice((0.0005, 0.001, 0.003, 0.008))
    if exchange.wait == "sleep":
        time.sleep(seconds)
    elif exchange.wait == "compute":
        spin(seconds)


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def headers(exchange: Exchange) -> Any:
    """The headers, in the way that the request asks for."""
    fields = exchange.fields
    if exchange.length >= 0:
        fields.append(("Content-Length", str(exchange.length)))
    if exchange.headers == "iterator":
        return iter(fields)
    if exchange.headers != "in-place":
        return fields
    # The list is this thread's, and is changed only when its last response has been sent.
    lists = _of_thread.__dict__.setdefault("headers", {}).setdefault(
        len(fields), [[name, ""] for name, _ in fields]
    )
    for pair, (_, value) in zip(lists, fields, strict=True):
        pair[1] = value
    return lists


class Noted:
    """An iterable that notes that it was made, and that it was closed."""

    def __init__(self, exchange: Exchange, items: Iterator[bytes], *, fails: bool = False) -> None:
        self._exchange = exchange
        self._items = items
        self._fails = fails
        note("opened", exchange.id)

    def __iter__(self) -> Iterator[bytes]:
        return self._items

    def close(self) -> None:
        note("closed", self._exchange.id)
        if self._fails:
            raise MeantError


# ---------------------------------------------------------------- the kinds


def whole(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    start_response("200 OK", headers(exchange))
    if exchange.size == 0 and exchange.parts == 1:
        return []
    content = exchange.content()
    if exchange.id[0] == "0" and exchange.size > 16_384:  # smaller ones may wait with a thread
        _watched.append((exchange.id, content))
    return [content] if exchange.parts % 2 else (content,)


def listed(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    start_response("200 OK", headers(exchange))
    return list(exchange.cut(exchange.content()))


def stream(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    if exchange.parts == 7:
        environ["wsgi.early_hints"]([("X-Id", exchange.id)])
    start_response("200 OK", headers(exchange))
    return Noted(exchange, _items(exchange))


def _items(exchange: Exchange) -> Iterator[bytes]:
    for number, part in enumerate(exchange.cut(exchange.content())):
        if number % 2:
            pause(exchange)
        yield part


def write(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    give = start_response("200 OK", headers(exchange))
    *most, last = exchange.cut(exchange.content())
    for part in most:
        give(part)
    return [last]


def file(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """Send a file from the middle of it, or what only looks like one."""
    before = b"not to be sent" * exchange.parts
    opened = io.BytesIO() if exchange.parts == 7 else tempfile.TemporaryFile()  # noqa: SIM115
    opened.write(before + exchange.content())
    opened.seek(len(before))
    start_response("200 OK", headers(exchange))
    return environ["wsgi.file_wrapper"](opened)


def echo(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    content = environ["wsgi.input"]
    start_response("200 OK", headers(exchange))
    if exchange.parts == 1:
        return [content.read()]
    return Noted(exchange, iter(lambda: content.read(20_000), b""))


def fail(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    failure = exchange.failure
    if failure == "before start_response":
        raise MeantError
    start_response("200 OK", headers(exchange))
    if failure == "after start_response":
        raise MeantError
    if failure == "exc_info":
        try:
            raise MeantError
        except MeantError:
            start_response("500 Meant", headers(exchange), sys.exc_info())
    items = _breaking(exchange) if failure == "in the stream" else _items(exchange)
    return Noted(exchange, items, fails=failure == "in close")


def _breaking(exchange: Exchange) -> Iterator[bytes]:
    yield b"begun"
    yield from exchange.cut(exchange.content())
    raise MeantError


def together(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """Have several threads write at once, which all end before the response does."""
    give = start_response("200 OK", headers(exchange))
    writers = [
        threading.Thread(target=_write_pieces, args=(exchange, give, writer, PIECES))
        for writer in range(WRITERS)
    ]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    return []


def late(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """Have a thread write for as long as it can: also when the response is over."""
    give = start_response("200 OK", headers(exchange))
    threading.Thread(target=_write_pieces, args=(exchange, give, 0, None), daemon=True).start()
    pause(exchange)
    return []


def _write_pieces(
    exchange: Exchange, give: Callable[[bytes], object], writer: int, most: int | None
) -> None:
    try:
        for number in count() if most is None else range(most):
            give(exchange.piece(writer, number))
    except Exception as error:
        note(exchange.kind, type(error).__name__)


def quiet(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """When all clients have gone: wait until nobody but this module refers to what was sent."""
    until = time.monotonic() + 5
    while _watched:
        id_, content = _watched.pop()
        while REFERENCES(content) > _FREE and time.monotonic() < until:
            time.sleep(0.01)
        if REFERENCES(content) > _FREE:
            note("kept", id_)
    start_response("200 OK", [])
    return []


_watched: list[tuple[str, bytes]] = []  # some contents, to see that they are not kept
_FREE = 2  # a local variable, and the argument
REFERENCES: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 0)  # PyPy has none

ANSWERS: dict[str, Callable[[Exchange, WSGIEnvironment, StartResponse], Any]] = {
    "whole": whole,
    "list": listed,
    "stream": stream,
    "write": write,
    "file": file,
    "echo": echo,
    "fail": fail,
    "together": together,
    "late": late,
    "quiet": quiet,
}


# ---------------------------------------------------------------- the interpreter is busy


def _compute() -> None:
    """Take the interpreter's lock again and again, for a short time."""
    while True:
        spin(0.00005)
        time.sleep(0)


def _delay(frame: FrameType, event: str, argument: object) -> None:
    """Have a thread that comes back from the core wait now and then, as for that lock."""
    if (
        event == "c_return"
        and frame.f_globals["__name__"].startswith("picowsgi.")
        and getattr(argument, "__name__", "").startswith("pw_")
        and _random.random() < 0.05
    ):
        time.sleep(_random.choice((0.001, 0.005, 0.02)))


_random = Random(0)
sys.setswitchinterval(float(os.environ.get("STRESS_INTERVAL", "0.005")))
if os.environ.get("STRESS_DELAYS"):
    threading.setprofile(_delay)
    sys.setprofile(_delay)  # simple_server serves in the thread that imports this
for _ in range(int(os.environ.get("STRESS_COMPUTE", "0"))):
    threading.Thread(target=_compute, daemon=True).start()
