"""The processes of a framework's reloader: each serves until a file changes, then the next one.

The reloader's first process runs `run_processes`. A process that it has started calls `give_way`
when a file has changed: then the next process starts at once, while this one finishes its requests.
Never watches a file: the reloader does.
"""

from __future__ import annotations

import heapq
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from picowsgi.system import debugger

#: The exit status by which the reloaders of Django and werkzeug ask for the next process.
RESTART = 3

# The variable has the descriptor by which a process asks for the next one, its start time, how many
# processes before it have ended because of a change that was older than their first check, and the
# descriptor of `debugger.prepare`.
_VARIABLE = "PICOWSGI_RESTART"
_POLL = 0.1  # seconds between two checks of the latest files, or of processes without pidfd_open(2)
_LATEST = 16  # files
_SIGNAL_TIME = 0.3  # seconds for a signal of the terminal to end the processes
_END_TIME = 4.0  # seconds for the end of a process
_EARLY_MOST = 3  # an application may write one of its own files whenever it starts
_ORDINARY, _EARLY = b"R", b"E"
_imported_at = time.time()


def run_processes(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    announce: Callable[[], object] = lambda: None,
) -> int:
    """Run the command again and again, as long as the reloader in it asks for that.

    A signal that raises an exception in this process ends the others too.

    Args:
        arguments: the program and its arguments.
        environ: the environment of the processes.
        announce: called before the start of each process.

    Returns:
        The exit status of the last process.
    """
    processes: list[subprocess.Popen[bytes]] = []
    early = 0
    prompt = debugger.prepare()
    if prompt >= 0:
        os.set_inheritable(prompt, True)
    try:
        while True:
            announce()
            status, why = _run_next(arguments, environ, processes, f"{early} {prompt}")
            debugger.restore_terminal(unless_open=True)
            if status != RESTART:
                return status
            early = early + 1 if why == _EARLY else 0
    except KeyboardInterrupt:
        _wait_for(processes, _SIGNAL_TIME)  # a terminal has sent the signal to all of them
        raise
    finally:
        _end(processes)
        debugger.restore_terminal()


def _run_next(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    processes: list[subprocess.Popen[bytes]],
    facts: str,
) -> tuple[int, bytes]:
    """Run one more process. Returns its exit status, or RESTART and why as soon as it gives way."""
    asks, writing = os.pipe()
    try:
        try:
            os.set_inheritable(writing, True)
            variable = {_VARIABLE: f"{writing} {time.time()!r} {facts}"}
            process = subprocess.Popen(arguments, env={**environ, **variable}, close_fds=False)
        finally:
            os.close(writing)
        processes.append(process)
        while process.poll() is None:
            _wait(processes, asks)
            if _is_readable(asks):
                if why := os.read(asks, 1):
                    return RESTART, why
                process.wait()  # it has closed the pipe: it ends
            processes[:] = [one for one in processes if one is process or one.poll() is None]
        processes.remove(process)
        return process.returncode, _ORDINARY
    finally:
        os.close(asks)


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _wait(processes: Sequence[subprocess.Popen[bytes]], asks: int) -> None:
    """Wait until a process ends, or asks for the next one."""
    opened: list[int] = []
    timeout: float | None = None
    try:
        for one in processes:
            try:
                opened.append(os.pidfd_open(one.pid))
            except (AttributeError, OSError):  # the system has none, or the process has ended
                timeout = _POLL
        select.select([asks, *opened], [], [], timeout)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _wait_for(processes: Sequence[subprocess.Popen[bytes]], within: float) -> None:
    until = time.monotonic() + within
    for one in processes:
        with suppress(subprocess.TimeoutExpired):
            one.wait(max(0.0, until - time.monotonic()))


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes: at first by SIGTERM, so that they finish open requests."""
    try:
        for one in processes:
            if one.poll() is None:
                one.terminate()
        _wait_for(processes, _END_TIME)
    finally:  # also after one more Ctrl-C
        for one in processes:
            if one.poll() is None:
                one.kill()
                one.wait()


class _State:
    """What this process knows from the process that has started it."""

    def __init__(self) -> None:
        self.descriptor, self.started, self.early = -1, _imported_at, _EARLY_MOST
        text = os.environ.pop(_VARIABLE, "")
        if text:
            number, started, early, prompt = text.split()
            self.descriptor, self.started, self.early = int(number), float(started), int(early)
            os.set_inheritable(self.descriptor, False)
            debugger.prepare(int(prompt))
        #: Why this process asks for the next one.
        self.why = _ORDINARY


_states: list[_State] = []


def _state() -> _State:
    if not _states:
        _states.append(_State())
    return _states[0]


#: The times of change of the modules' files when this process read them, by their real paths.
_read: dict[str, float] = {}


def prepare() -> None:
    """Begin to note the state of each module's file that this process reads. Call this early.

    The function also keeps the variable of the reloader's first process from the programs that this
    process starts.
    """
    _state()
    read = SourceFileLoader.path_stats
    if getattr(read, "notes", False):
        return

    def path_stats(self: SourceFileLoader, path: str) -> Mapping[str, Any]:
        result = read(self, path)
        _read[os.path.realpath(path)] = result["mtime"]
        return result

    path_stats.notes = True  # type: ignore[attr-defined]
    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]


def give_way() -> bool:
    """Let the next process start, and return. Returns whether it starts at once."""
    state = _state()
    with suppress(OSError):
        return state.descriptor >= 0 and os.write(state.descriptor, state.why) == 1
    return False


def is_early_change(path: str, changed_at: float, *, failed: bool = False) -> bool:
    """Return whether a file was changed after this process had read it, and before its first check.

    Call this at the first check of a file, and reload if the result is true. It is a guess for a
    file that was read before `prepare`: then the file has changed since the start of the process.
    The application may write such a file whenever it starts. So after three guesses in a row the
    next processes do not guess.

    Args:
        path: the real path of the file.
        changed_at: the time of the change, in seconds.
        failed: this process could not load the application, so another one can only be better.
    """
    if path in _read:
        return changed_at != _read[path]
    state = _state()
    if not failed and state.early >= _EARLY_MOST:
        return False
    # The file would be newer than the next process too, if its time were in the future.
    if not state.started < changed_at <= time.time():
        return False
    state.why = _EARLY
    return True


def wait_for_change(mtimes: Mapping[str, float], seconds: float) -> str | None:
    """Wait, and check the few files that have changed last, which are most likely to change again.

    Args:
        mtimes: the times of change by path, as they were at the last check of all files.
        seconds: the longest time to wait.

    Returns:
        The path of a changed file; None: these files have not changed.
    """
    latest = heapq.nlargest(_LATEST, mtimes, key=mtimes.__getitem__)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(_POLL, left))
        for path in latest:
            with suppress(OSError):
                if Path(path).stat().st_mtime > mtimes[path]:
                    return path
    return None
