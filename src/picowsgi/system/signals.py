"""The signals of the process, as numbers that a loop can wait for.

Never acts on a signal: the caller that takes a number decides what it means.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from picowsgi.system import fork_guard

_STANDARD_ERROR = 2
_INIT = 1  # the first process of a container
_END = 5.0  # seconds for the end of a process whose server has ended

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
#: What a server understands that can neither start itself again nor has workers.
FEW = STOP | {signal.SIGQUIT, signal.SIGUSR1}
ALL = FEW | {
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
}


def _end(number: int, _frame: FrameType | None) -> None:
    """End the process: the system does not, by a signal, where it is the first one of all."""
    os._exit(128 + number)


def _end_late(until: float, process: int, number: int, _frame: FrameType | None) -> None:
    """Let the process end by itself until then; later, or in a child of it, end it."""
    if time.monotonic() >= until or os.getpid() != process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _ignore_stop() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the number stands in the pipe by now."""


class DefaultInChildren:
    """Gives each forked child the default handlers of these signals, as long as this object lives.

    They are held back around the fork. A signal that is sent to a child at once would otherwise
    find the handler of its parent, and be written to the pipe of the parent.
    """

    def __init__(self, numbers: Iterable[int], close: Callable[[], object]) -> None:
        """`close` closes in the child what the handlers need."""
        self._numbers = frozenset(numbers)
        self._close = close
        self._mask: set[int] | set[signal.Signals] = set()
        self._is_held = False
        self._is_child = False  # whose own children have what it gives them
        fork_guard.guard(self)

    def before_fork(self) -> None:
        """Hold them back in the thread that forks."""
        if self._is_child:
            return
        if not self._is_held:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            self._is_held = True
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def after_fork_in_parent(self) -> None:
        """Let them come again."""
        if self._is_held:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._is_held = False

    def after_fork_in_child(self) -> None:
        """Give them their defaults, and let them come again."""
        if self._is_child:
            return
        signal.set_wakeup_fd(-1)
        faulthandler.unregister(signal.SIGQUIT)
        for number in self._numbers:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
        self._close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask - self._numbers)
        self._is_held = False
        self._is_child = True


class Signals:
    """A pipe into which the system writes the number of each signal that comes.

    A child that the application forks has the default handlers, and not the pipe. Outside the
    main thread, where Python allows no handlers, nothing but `wake` comes. SIGQUIT also has the
    stacks of all threads written to standard error, whatever they are doing.
    `whole_process`: the process is there for the server alone. Then SIGTERM, which may come again
    when the server has ended, does not disturb the end of the process for some seconds.
    `earlier`: the reading end of the pipe of the program that this process executed before, or -1.
    Its numbers come first, and it is closed.
    """

    def __init__(
        self, numbers: Iterable[int], *, whole_process: bool = False, earlier: int = -1
    ) -> None:
        self._numbers = frozenset(numbers)
        self._whole_process = whole_process
        self._previous: dict[int, Any] = {}
        self._wakeup = -1
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        if earlier >= 0:
            os.write(self._writer, os.read(earlier, 4096))
            os.close(earlier)
        self._in_children: DefaultInChildren | None = None

    def fileno(self) -> int:
        """Return what is readable once there is a number."""
        return self._reader

    def expect(self) -> None:
        """Note those that need not be answered before `install`, but would end the process."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._in_children = DefaultInChildren(self._numbers, self._close)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if self._whole_process:
            atexit.register(_ignore_stop)  # before the application's, so it is called after them
            if os.getpid() == _INIT:
                signal.signal(signal.SIGTERM, _end)
        for number in self._numbers - STOP - {signal.SIGQUIT, signal.SIGCHLD}:
            self._previous[number] = signal.signal(number, _note)

    def install(self) -> None:
        """Begin to take all signals; those that were noted or blocked until now come first."""
        if threading.current_thread() is not threading.main_thread():
            return
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        faulthandler.unregister(signal.SIGQUIT)  # a parent's; it would believe it is there still
        for number in self._numbers:
            self._previous.setdefault(number, signal.signal(number, _note))
        if signal.SIGQUIT in self._numbers and sys.stderr is not None:
            faulthandler.register(signal.SIGQUIT, file=_STANDARD_ERROR, chain=True)
        self.unblock()

    def unblock(self) -> None:
        """Let the signals come again."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

    def block(self) -> None:
        """Hold the signals back in this thread, past an exec too.

        Other threads still take them, so the pipe has to outlive the exec as well (`earlier`).
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def take(self) -> list[int]:
        """Return the numbers that have come since, in their order."""
        try:
            return [number for number in os.read(self._reader, 4096) if number in self._numbers]
        except BlockingIOError:
            return []

    def wake(self) -> None:
        """Make the pipe readable, from any thread."""
        with suppress(OSError):  # full, which wakes as well, or closed: nobody waits any more
            os.write(self._writer, b"\0")

    def forget(self) -> None:
        """Release the parent's pipe in a forked process; its handlers stay, and do nothing."""
        if self._previous:
            signal.set_wakeup_fd(-1)
            # Until the process has loaded its application there is nothing to drain.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._close()

    def outlive_exit(self) -> None:
        """Take signals after the functions of `atexit` have run, too: the process goes on."""
        atexit.unregister(_ignore_stop)

    def restore(self) -> None:
        """Put back what the process did with the signals before."""
        if self._previous:
            if signal.SIGQUIT in self._numbers:
                faulthandler.unregister(signal.SIGQUIT)
            if self._whole_process:
                until = time.monotonic() + _END
                self._previous[signal.SIGTERM] = partial(_end_late, until, os.getpid())
            for number, handler in self._previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(self._wakeup)
        self._close()

    def _close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
        self._in_children = None
