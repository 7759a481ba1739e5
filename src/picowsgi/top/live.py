"""The live display: a thread takes samples, and the main thread draws them and handles signals.

The main thread never waits for the server. So keys, signals and a new size of the terminal have
their effect at once.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from picowsgi.system.terminal import wants_colour
from picowsgi.top.display import Display
from picowsgi.top.draw import draw, paint
from picowsgi.top.fetch import PageError, UnreachableError
from picowsgi.top.monitor import Monitor, take_sample
from picowsgi.top.view import Sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from picowsgi.top.address import Address

    _Result = Sample | UnreachableError | PageError

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_OTHERS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_SIGNALLED = 128  # plus the number of the signal, as shells count
#: Seconds after which the age of the numbers is drawn again.
_REDRAW = 1.0


def watch(address: Address, interval: float) -> int:
    """Show the server until the user presses q or Ctrl-C, or a signal comes.

    Returns the exit status. Raises PageError if the first response is no page of picowsgi, and
    OSError if the terminal fails.
    """
    colour = wants_colour(in_terminal=True)
    monitor = Monitor(address, interval)
    with (
        _Signals() as signals,
        _Sampler(address, interval) as sampler,
        Display(sys.stdin, sys.stdout) as display,
    ):
        while True:
            screen = monitor.screen(time.monotonic())
            lines = draw(screen, display.size().columns, display.blocks)
            signals.write(display.show, [paint(line, colour=colour) for line in lines])
            if _wait(signals, sampler, display) and b"q" in display.read_keys().lower():
                return 0
            for number in signals.take():
                if number in _ENDS:
                    return 0 if number == signal.SIGINT else _SIGNALLED + number
                _handle(number, display)
            for result in sampler.take():
                if isinstance(result, PageError) and screen.view is None and not screen.error:
                    raise result
                monitor.add(result)


def _wait(signals: _Signals, sampler: _Sampler, display: Display) -> bool:
    """Wait until there is something to do. Return whether a key was pressed."""
    readers = [signals.reader.fileno(), sampler.reader.fileno()]
    if display.keys is not None:
        readers.append(display.keys)
    return display.keys in select.select(readers, [], [], _REDRAW)[0]


def _handle(number: int, display: Display) -> None:
    """Stop the process for Ctrl-Z, or draw on a new screen when it continues."""
    if number == signal.SIGTSTP:
        display.leave()
        # The system does not stop a process that no shell could continue.
        handler = signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, handler)
    if number != signal.SIGWINCH:
        display.enter()


class _Interrupted(Exception):  # noqa: N818 (no error: it ends a write)
    """A signal that ends the display came while the terminal took no bytes."""


class _Signals:
    """Collects signals. An exception at any time could leave the terminal half restored."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._came: list[int] = []
        self._interrupts = False

    def __enter__(self) -> _Signals:
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (*_ENDS, *_OTHERS)
            if signal.getsignal(number) != signal.SIG_IGN  # as nohup sets it
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self.reader.close()
        self._writer.close()

    def take(self) -> list[int]:
        """Return the signals that have come."""
        with suppress(BlockingIOError):
            while self.reader.recv(1024):
                pass
        came, self._came = self._came, []
        return came

    def write(self, show: Callable[[list[str]], None], lines: list[str]) -> None:
        """Show lines with a function that a signal interrupts if the signal ends the display.

        Without that, a terminal that takes no bytes (Ctrl-S) would hold up the end.
        """
        with suppress(_Interrupted):
            self._interrupts = True
            try:
                if not any(number in _ENDS for number in self._came):
                    show(lines)
            finally:
                self._interrupts = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        if self._interrupts and number in _ENDS:
            self._interrupts = False
            raise _Interrupted


class _Sampler:
    """Takes a sample each interval, in a thread of its own."""

    def __init__(self, address: Address, interval: float) -> None:
        self._address = address
        self._interval = interval
        self._results: SimpleQueue[_Result] = SimpleQueue()
        self._over = threading.Event()
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)

    def __enter__(self) -> _Sampler:
        # A daemon, because a connection attempt may take seconds at the end.
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self.reader.close()

    def take(self) -> list[_Result]:
        """Return the results since the last call."""
        with suppress(BlockingIOError):
            self.reader.recv(1024)
        results = []
        with suppress(Empty):
            while True:
                results.append(self._results.get_nowait())
        return results

    def _run(self) -> None:
        following = time.monotonic()
        with self._writer, suppress(OSError):  # the reader is closed at the end
            while not self._over.wait(max(following - time.monotonic(), 0.0)):
                self._results.put(_try_sample(self._address))
                self._writer.send(b"\0")
                following = max(following + self._interval, time.monotonic())


def _try_sample(address: Address) -> _Result:
    try:
        return take_sample(address)
    except (UnreachableError, PageError) as error:
        return error
