"""Debuggers at a prompt: one at a time in a terminal, for all processes of a server.

Pdb, ipdb, pudb and other debuggers are subclasses of `bdb.Bdb`, and read the terminal in their
method `interaction`. Never imports a debugger, and never starts one.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from picowsgi.log import get_logger
from picowsgi.system.terminal import is_foreground

#: Seconds between two checks whether a prompt has ended.
CHECK = 0.2

_INPUT = 0
_OUTPUT = 1
_STEP = 1.0  # seconds that a debugger that steps has until its next prompt
_SHOWN = b"\x1b[?25h\x1b[?2004l"  # the cursor is visible, and pasted text has no marks


class _Prompt:
    """The turn to read the terminal. A thread that steps keeps its turn until its next prompt."""

    def __init__(self) -> None:
        #: A file without a name. The process of the open prompt has locked it (POSIX), so the lock
        #: ends with the process. -1: this process has no guard.
        self.descriptor = -1
        #: The settings of the terminal at the start; None: there is no terminal.
        self.settings: list[Any] | None = None
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._text = ""  # of the open prompt
        self._depth = 0
        self._kept: threading.Timer | None = None

    @property
    def is_open(self) -> bool:
        """Whether a debugger of this process has the turn."""
        return self._owner is not None

    def enter(self, text: object) -> None:
        """Wait for the turn of a debugger with the prompt `text`."""
        with self._changed:
            self._kept = None
            if self._owner == threading.get_ident():
                self._depth += 1
                return
            if self._owner is not None:
                _say_that_it_waits(self._text)
                self._changed.wait_for(lambda: self._owner is None)
            self._owner = threading.get_ident()
            self._depth = 1
            self._text = text if isinstance(text, str) else ""
        self._lock()

    def _lock(self) -> None:
        if self.descriptor < 0:
            return
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say_that_it_waits()
            with suppress(OSError):
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX)

    def leave(self, *, steps: bool) -> None:
        """Give the turn back; `steps`: not yet, because the next prompt most likely comes soon."""
        with self._changed:
            self._depth -= 1
            if self._depth:
                return
            if steps:
                timer = threading.Timer(_STEP, lambda: self._end(timer))
                timer.daemon = True
                self._kept = timer
                timer.start()
            else:
                self._release()

    def _end(self, timer: threading.Timer) -> None:
        with self._changed:
            if self._kept is timer and not self._depth:
                self._release()

    def _release(self) -> None:
        self._owner = self._kept = None
        if self.descriptor >= 0:
            with suppress(OSError):
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
        self._changed.notify_all()


_prompt = _Prompt()


def _say_that_it_waits(prompt: str = "") -> None:
    """Say why a request waits, and show the open prompt again, which the line follows."""
    get_logger().info("a request waits for the terminal until the open debugger's prompt has ended")
    if prompt and os.isatty(_OUTPUT):
        with suppress(OSError):
            os.write(_OUTPUT, prompt.encode())


def prepare(descriptor: int = -1) -> int:
    """Let debuggers of this process and its forked children wait for their turn at the terminal.

    `descriptor`: the result of this function in another process that has the terminal. Returns a
    descriptor; -1: standard input is no terminal.
    """
    if _prompt.descriptor >= 0:
        return _prompt.descriptor
    try:
        _prompt.settings = termios.tcgetattr(_INPUT)
    except (OSError, termios.error):
        return -1
    if descriptor < 0:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    _prompt.descriptor = descriptor
    _guard_debuggers()
    return descriptor


def is_open_here() -> bool:
    """Return whether a debugger of this process is at its prompt."""
    return _prompt.is_open


def is_open() -> bool:
    """Return whether a debugger of any process of the server is at its prompt."""
    if _prompt.is_open:
        return True
    if _prompt.descriptor < 0:
        return False
    try:
        fcntl.lockf(_prompt.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(_prompt.descriptor, fcntl.LOCK_UN)
    except OSError:
        return True
    return False


def restore_terminal(*, unless_open: bool = False) -> None:
    """Give the terminal the settings that it had at the start. A killed debugger changes them.

    `unless_open`: do nothing while a debugger of another process is at its prompt.
    """
    if _prompt.settings is None or (unless_open and is_open()) or not is_foreground():
        return
    with suppress(OSError, termios.error):
        if termios.tcgetattr(_INPUT) != _prompt.settings:
            termios.tcsetattr(_INPUT, termios.TCSANOW, _prompt.settings)
            os.write(_INPUT, _SHOWN)


def _guard_debuggers() -> None:
    """Wrap `interaction` of all debuggers: of those that exist, and of those defined later."""
    from bdb import Bdb  # only a terminal needs it

    def guard_subclass(cls: type[Bdb], **options: Any) -> None:
        super(Bdb, cls).__init_subclass__(**options)
        _guard(cls)

    Bdb.__init_subclass__ = classmethod(guard_subclass)  # type: ignore[assignment, arg-type]
    classes = [Bdb]
    for one in classes:
        _guard(one)
        classes += one.__subclasses__()


def _guard(cls: type) -> None:
    interaction: Callable[..., object] | None = vars(cls).get("interaction")
    if interaction is None or hasattr(interaction, "waits_for_its_turn"):
        return

    @wraps(interaction)
    def interact(self: Any, *arguments: Any, **options: Any) -> object:
        _prompt.enter(getattr(self, "prompt", ""))
        try:
            return interaction(self, *arguments, **options)
        finally:
            # Bdb.set_continue and set_quit set stoplineno to -1 or quitting.
            steps = getattr(self, "stoplineno", -1) != -1 and not getattr(self, "quitting", False)
            _prompt.leave(steps=steps)

    interact.waits_for_its_turn = True  # type: ignore[attr-defined]
    cls.interaction = interact  # type: ignore[attr-defined]
