"""The application under stress: each request says how the application makes the response.

The application writes lines to the file `events` in the current directory: one for each iterable
that it makes, for each that the server closes, and for each write() that raises an error.

The environment decides what disturbs the server: STRESS_INTERVAL is the switch interval of the
interpreter in seconds, STRESS_COMPUTE is the number of threads that compute, and STRESS_DELAYS=1
delays the server's threads when a call into the core returns.
"""

from __future__ import annotations

import _thread
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
    """Raise the error that the request asks for."""


def note(*words: object) -> None:
    os.write(_events, (" ".join(map(str, words)) + "\n").encode())


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    exchange = Exchange.from_environ(environ)
    pause(exchange)
    items: Iterable[bytes] = ANSWERS[exchange.kind](exchange, environ, start_response)
    return items


def pause(exchange: Exchange) -> None:
    """Sleep, or compute and hold the interpreter's lock, as the request says."""
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
    """The headers, in the form that the request says."""
    fields = exchange.fields
    if exchange.length >= 0:
        fields.append(("Content-Length", str(exchange.length)))
    if exchange.headers == "iterator":
        return iter(fields)
    if exchange.headers != "in-place":
        return fields
    # One list for each thread: the thread changes it when it has sent the response before.
    lists = _of_thread.__dict__.setdefault("headers", {}).setdefault(
        len(fields), [[name, ""] for name, _ in fields]
    )
    for pair, (_, value) in zip(lists, fields, strict=True):
        pair[1] = value
    return lists


class Noted:
    """An iterable that writes an event when it is made, and when it is closed."""

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
    if exchange.id[0] == "0" and exchange.size > 16_384:  # the server may keep smaller ones
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
    """Send the rest of a file, or of an object in memory that has the methods of a file."""
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
    """Several threads write at once, and end before the application returns."""
    give = start_response("200 OK", headers(exchange))
    ends = [_start_writer(exchange, give, writer, PIECES) for writer in range(WRITERS)]
    for end in ends:
        end.acquire()
    return []


def late(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """A thread writes until write() raises an error, also when the application has returned."""
    give = start_response("200 OK", headers(exchange))
    _start_writer(exchange, give, 0, None)
    pause(exchange)
    return []


def _start_writer(
    exchange: Exchange, give: Callable[[bytes], object], writer: int, most: int | None
) -> _thread.LockType:
    """Start a thread that writes; it releases the lock when it ends.

    `threading` is not used here because it does not survive a signal handler that raises.
    """
    end = _thread.allocate_lock()
    end.acquire()
    _thread.start_new_thread(_write_pieces, (exchange, give, writer, most, end))
    return end


def _write_pieces(
    exchange: Exchange,
    give: Callable[[bytes], object],
    writer: int,
    most: int | None,
    end: _thread.LockType,
) -> None:
    try:
        for number in count() if most is None else range(most):
            give(exchange.piece(writer, number))
    except Exception as error:
        note(exchange.kind, type(error).__name__)
    finally:
        end.release()


def quiet(exchange: Exchange, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """After all clients have disconnected, check that the server has freed all content."""
    until = time.monotonic() + 5
    while _watched:
        id_, content = _watched.pop()
        while REFERENCES(content) > _FREE and time.monotonic() < until:
            time.sleep(0.01)
        if REFERENCES(content) > _FREE:
            note("kept", id_)
    start_response("200 OK", [])
    return []


#: Some of the contents that have been sent, with the ids of their exchanges.
_watched: list[tuple[str, bytes]] = []
_FREE = 2  # references: a local variable, and the argument of REFERENCES
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


# ---------------------------------------------------------------- disturbances


def _compute() -> None:
    """Take the interpreter's lock again and again, each time for a moment."""
    while True:
        spin(0.00005)
        time.sleep(0)


def _delay(frame: FrameType, event: str, argument: object) -> None:
    """Delay some returns from the core, as a thread that waits for the interpreter's lock is."""
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
    sys.setprofile(_delay)  # simple_server serves in the main thread
for _ in range(int(os.environ.get("STRESS_COMPUTE", "0"))):
    threading.Thread(target=_compute, daemon=True).start()
