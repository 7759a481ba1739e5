"""Writes lines to files, pipes and terminals without waiting long for them.

A pipe without a reader, or a terminal that is stopped (Ctrl-S), can block a write without a limit.
A separate thread writes to them, so no other thread waits longer than `WAIT`. Never sets a flag of
an inherited descriptor: other processes share it. Never splits a line: see `write_lines`.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import select as select_module
import signal
import stat
import sys

# Imported by name, so that this module keeps the original functions if gevent or eventlet patches
# the modules later. The error log has to report the patching.
from _thread import LockType, RLock, allocate_lock, start_new_thread
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from select import PIPE_BUF, select
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Bytes that may wait in an output. Lines above this limit are dropped.
QUEUE_MOST = 256 * 1024
#: Seconds that a thread waits until its line is written. While an output is blocked, only the
#: thread with the first line waits.
WAIT = 0.1
#: Seconds at the end of the process for lines that still wait.
END_WAIT = 0.5
_STANDARD_ERROR = 2
#: None if eventlet has removed it, by patching before this import.
_poll = getattr(select_module, "poll", None)


def may_block(descriptor: int) -> bool:
    """Return whether a write to the descriptor may block. Raises OSError."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode):
        return os.isatty(descriptor)  # /dev/null is a character device too, and never blocks
    return not stat.S_ISREG(mode)


def open_log(path: str | os.PathLike[str], mode: int = 0o644) -> int:
    """Open a file for appending lines, and return its descriptor. Raises OSError.

    A FIFO needs no reader. Before there is one, it takes as many bytes as it has room for.
    """
    more = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    if not Path(path).is_fifo():
        return os.open(path, os.O_WRONLY | more, mode)
    try:
        return os.open(path, os.O_RDWR | more)
    except PermissionError:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | more)  # fails without a reader
        os.set_blocking(descriptor, True)  # opened here, so no other process shares it
        return descriptor


def write_lines(
    descriptor: int, data: bytes, note: Callable[[bytes], object] = lambda _lines: None
) -> int:
    """Write whole lines, without a time limit; return the number of lines that failed.

    After each part that is written, the function calls `note` with the lines of the part.

    The lines of several processes do not mix on a pipe. One call writes a line of at most PIPE_BUF
    bytes, and during the call this process holds a lock of the pipe itself. Each process of each
    server that writes there takes the same lock, so longer lines stay whole too.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return data.count(b"\n")
    is_pipe = stat.S_ISFIFO(status.st_mode)
    failed = 0
    with _locked(descriptor, (status.st_dev, status.st_ino)) if is_pipe else nullcontext():
        for part in split_lines(data, PIPE_BUF):
            failed += (not_written := _write(descriptor, part))
            if not not_written:
                note(part)
    return failed


def split_lines(data: bytes, most: int) -> Iterator[bytes]:
    """Split at line ends into parts of at most `most` bytes; a longer line is one part."""
    start = 0
    while len(data) - start > most:
        end = data.rfind(b"\n", start, start + most)
        if end < 0:
            end = data.find(b"\n", start)
        if end < 0:
            break
        yield data[start : end + 1]
        start = end + 1
    if start < len(data):
        yield data[start:]


def _write(descriptor: int, data: bytes) -> int:
    """Write all bytes; return the number of lines that failed."""
    try:
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # another process has set O_NONBLOCK
                _wait_for_room(descriptor, None)
    except OSError:
        return max(data.count(b"\n"), 1)
    return 0


def _wait_for_room(descriptor: int, seconds: float | None) -> bool:
    """Wait until the descriptor takes bytes. Return False after `seconds`; None: no limit."""
    if _poll is None:
        return bool(select([], [descriptor], [], seconds)[1])
    waiter = _poll()
    waiter.register(descriptor, select_module.POLLOUT)
    return bool(waiter.poll(None if seconds is None else seconds * 1000))


#: A lock for each pipe. The system's lock keeps out other processes only, not other threads.
_pipe_locks: dict[tuple[int, int], LockType] = {}


@contextmanager
def _locked(descriptor: int, pipe: tuple[int, int]) -> Iterator[None]:
    with _pipe_locks.setdefault(pipe, allocate_lock()):
        is_locked = False
        with suppress(OSError):  # not every system can lock a pipe
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            is_locked = True
        try:
            yield
        finally:
            if is_locked:
                with suppress(OSError):
                    fcntl.lockf(descriptor, fcntl.LOCK_UN)


def start_writer(run: Callable[[], object]) -> None:
    """Start a thread that writes. Raises RuntimeError if the system cannot start one.

    All signals are blocked in the thread. SIGPIPE would end the process if the application has set
    its default handler. The other signals are for the threads that block them at times.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        start_new_thread(run, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Item:
    """Lines for a descriptor (-1: none). `done` is unlocked when they are written."""

    __slots__ = ("data", "descriptor", "done", "is_own")

    def __init__(self, descriptor: int, data: bytes) -> None:
        self.data = data
        self.is_own = False
        if descriptor > _STANDARD_ERROR:
            # Before the thread writes, the program may close the file and reuse its number.
            with suppress(OSError):
                descriptor = os.dup(descriptor)
                self.is_own = True
        self.descriptor = descriptor
        self.done = allocate_lock()
        self.done.acquire()

    def finish(self) -> None:
        if self.is_own:
            with suppress(OSError):
                os.close(self.descriptor)
        self.done.release()


class LineOutput:
    """Lines for one place, such as standard error, from any thread.

    If a file does not take all bytes, because its disk is full, the output keeps the rest and
    writes it first the next time. If more than `QUEUE_MOST` bytes wait, the output drops whole
    lines and counts them. When a write succeeds again, the output adds the line that
    `describe_lost` makes from the number of dropped lines.
    """

    def __init__(self, describe_lost: Callable[[int], bytes]) -> None:
        self._describe_lost = describe_lost
        self.forget()
        _outputs.add(self)

    def forget(self) -> None:
        """Start empty in a forked process: the lines that wait belong to its parent."""
        # Reentrant, because a signal handler may log too.
        self._lock = RLock()
        self._waiting: deque[_Item] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._has_thread = False
        self._is_late = False
        self._is_over = False
        self._lost = 0
        #: Bytes that a file has not taken, and whether they begin within a line.
        self._rest = b""
        self._is_cut = False

    def write(self, descriptor: int, data: bytes) -> None:
        """Write whole lines, and wait for at most `WAIT`. Lines are lost if too many wait."""
        try:
            blocks = may_block(descriptor)
        except OSError:
            return
        if not blocks:
            self._write_file(descriptor, data)
        elif self._is_over or not self._start():
            self._write_now(descriptor, data)
        else:
            self._put(descriptor, data)

    def end(self, seconds: float = END_WAIT) -> None:
        """Wait at most `seconds` for unwritten lines. Later lines are written without a thread."""
        if self._has_thread and not self._is_over:
            item = _Item(-1, b"")
            with self._lock:
                self._waiting.append(item)
            self._wake.put(None)
            item.done.acquire(timeout=seconds)
        self._is_over = True

    def replace(self, descriptor: int, new: int) -> None:
        """Make `descriptor` refer to the file of `new`, and close `new`."""
        with self._lock:
            if self._rest:
                self._write_file(descriptor, b"")
            if self._rest and self._is_cut:  # another file must not begin with half a line
                self._rest = self._rest.partition(b"\n")[2]
                self._is_cut = False
                self._lost += 1
            os.dup2(new, descriptor, inheritable=False)
        os.close(new)

    # ---------------------------------------------------------------- pipes and terminals

    def _start(self) -> bool:
        with self._lock:
            if not self._has_thread:
                try:
                    start_writer(self._run)
                except RuntimeError:  # the system has no room, or the interpreter is ending
                    return False
                self._has_thread = True
        return True

    def _put(self, descriptor: int, data: bytes) -> None:
        with self._lock:
            if sum(len(one.data) for one in self._waiting) + len(data) > QUEUE_MOST:
                self._lost += data.count(b"\n")
                return
            item = _Item(descriptor, data)
            self._waiting.append(item)
            is_late = self._is_late
        self._wake.put(None)
        if not is_late and not item.done.acquire(timeout=WAIT):
            self._is_late = True

    def _run(self) -> None:
        while True:
            self._wake.get()
            with self._lock:
                item = self._waiting[0]
            with suppress(Exception):  # no caller is left that could report it
                self._write_item(item)
            with self._lock:
                self._waiting.popleft()
                if not self._waiting:
                    self._is_late = False
            item.finish()

    def _write_item(self, item: _Item) -> None:
        if item.descriptor < 0:
            return
        failed = write_lines(item.descriptor, item.data)
        self._lost += failed
        if self._lost and not failed:
            lost, self._lost = self._lost, 0
            write_lines(item.descriptor, self._describe_lost(lost))

    def _write_now(self, descriptor: int, data: bytes) -> None:
        """Write without the thread, for at most `WAIT`."""
        until = monotonic() + WAIT
        for part in split_lines(data, PIPE_BUF):
            left = until - monotonic()
            if left < 0 or not _wait_for_room(descriptor, left) or _write(descriptor, part):
                return

    # ---------------------------------------------------------------- files

    def _write_file(self, descriptor: int, data: bytes) -> None:
        with self._lock:
            if len(self._rest) > QUEUE_MOST:
                self._lost += data.count(b"\n")
                data = b""
            if self._lost and data:
                data = self._describe_lost(self._lost) + data
                self._lost = 0
            self._rest += data
            with suppress(OSError):
                while self._rest:
                    size = os.write(descriptor, self._rest)
                    self._is_cut = self._rest[size - 1 : size] != b"\n"
                    self._rest = self._rest[size:]


def flush_standard_streams() -> None:
    """Flush the program's output, and wait for at most `END_WAIT` seconds."""
    is_done = allocate_lock()

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        is_done.release()

    is_done.acquire()
    try:
        start_writer(flush)
    except RuntimeError:
        flush()
    is_done.acquire(timeout=END_WAIT)


_outputs: WeakSet[LineOutput] = WeakSet()


def end_outputs() -> None:
    """Wait for unwritten lines, but not long: the process ends."""
    for output in list(_outputs):
        output.end()


def _forget() -> None:
    _pipe_locks.clear()
    for output in list(_outputs):
        output.forget()


atexit.register(end_outputs)
os.register_at_fork(after_in_child=_forget)
