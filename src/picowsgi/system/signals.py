"""The signals of the process, as numbers in a pipe that a loop can wait for.

Never acts on a signal: the caller that takes a number decides what to do.
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
_END = 5.0  # seconds for the end of the process after the end of its server

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
#: The signals of a server that can neither start itself again nor has workers.
FEW = STOP | {signal.SIGQUIT, signal.SIGUSR1}
ALL = FEW | {
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
}


def _end(number: int, _frame: FrameType | None) -> None:
    """End the process. For process 1 the system ignores a signal without a handler."""
    os._exit(128 + number)


def _end_late(until: float, process: int, number: int, _frame: FrameType | None) -> None:
    """Do nothing before `until`, because the process is ending. Later, or in a child, end it."""
    if time.monotonic() >= until or os.getpid() != process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _ignore_stop() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: Python has written the number to the pipe."""


class DefaultInChildren:
    """Gives each forked child the default handlers of these signals, while this object exists.

    The signals are blocked during the fork. Otherwise a signal that is sent to the child at once
    would run the handler of its parent, and Python would write it to the pipe of the parent.
    """

    def __init__(self, numbers: Iterable[int], close: Callable[[], object]) -> None:
        """`close` closes the descriptors of the handlers in the child."""
        self._numbers = frozenset(numbers)
        self._close = close
        self._mask: set[int] | set[signal.Signals] = set()
        self._is_held = False
        self._is_child = False  # a child of a child inherits the default handlers
        fork_guard.guard(self)

    def before_fork(self) -> None:
        """Block the signals in the thread that forks."""
        if self._is_child:
            return
        if not self._is_held:
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            self._is_held = True
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def after_fork_in_parent(self) -> None:
        """Restore the signal mask."""
        if self._is_held:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        self._is_held = False

    def after_fork_in_child(self) -> None:
        """Set the default handlers, and unblock the signals."""
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
    """A pipe into which Python writes the number of each signal.

    A child that the application forks has the default handlers, and not the pipe. Outside of the
    main thread Python allows no handlers, and only `wake` writes to the pipe. At SIGQUIT, the
    process also writes the stacks of all threads to standard error, even if the threads are stuck.

    `whole_process`: the process exists only for the server. A SIGTERM that comes again after the
    server's end then does not disturb the end of the process, for some seconds.

    `earlier`: the reading end of the pipe of the program that this process executed before; -1:
    none. Its numbers come first. This object closes it.
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
        """Return a descriptor that is readable when a number has come."""
        return self._reader

    def expect(self) -> None:
        """Collect the signals that would end the process by default, before `install`.

        The signals that stop the server still end the process.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._in_children = DefaultInChildren(self._numbers, self._close)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if self._whole_process:
            # Registered before the application's functions, so Python calls it after them.
            atexit.register(_ignore_stop)
            if os.getpid() == _INIT:
                signal.signal(signal.SIGTERM, _end)
        for number in self._numbers - STOP - {signal.SIGQUIT, signal.SIGCHLD}:
            self._previous[number] = signal.signal(number, _note)

    def install(self) -> None:
        """Begin to take all signals. Those that came earlier, or are blocked, come first."""
        if threading.current_thread() is not threading.main_thread():
            return
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # A parent may have registered it. Then `register` would not set the handler again.
        faulthandler.unregister(signal.SIGQUIT)
        for number in self._numbers:
            self._previous.setdefault(number, signal.signal(number, _note))
        if signal.SIGQUIT in self._numbers and sys.stderr is not None:
            faulthandler.register(signal.SIGQUIT, file=_STANDARD_ERROR, chain=True)
        self.unblock()

    def unblock(self) -> None:
        """Unblock the signals in this thread."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

    def block(self) -> None:
        """Block the signals in this thread, also across an exec.

        Other threads still take signals, so the pipe has to outlive the exec too (`earlier`).
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def take(self) -> list[int]:
        """Return the numbers since the last call, oldest first."""
        try:
            return [number for number in os.read(self._reader, 4096) if number in self._numbers]
        except BlockingIOError:
            return []

    def wake(self) -> None:
        """Make the pipe readable. Any thread may call this."""
        with suppress(OSError):  # a full pipe is readable already; a closed one has no reader
            os.write(self._writer, b"\0")

    def forget(self) -> None:
        """Close the parent's pipe in a forked worker. The handlers stay, and do nothing."""
        if self._previous:
            signal.set_wakeup_fd(-1)
            # SIGTERM ends a worker that loads its application: it has nothing to drain.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._close()

    def outlive_exit(self) -> None:
        """Take signals even after the functions of `atexit` have run, because the process stays."""
        atexit.unregister(_ignore_stop)

    def restore(self) -> None:
        """Restore the handlers that the process had before."""
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
