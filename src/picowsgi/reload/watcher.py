"""The watcher process, which finds changed files and reports them.

It is a process of its own, so that the supervisor, which forks the workers, has no threads and no
modules besides those of the server. Never reloads anything.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from picowsgi.log import get_logger
from picowsgi.reload.files import Files
from picowsgi.reload.snapshot import Snapshot, State

_STEP = 20  # ms between two checks of the system's events
_DEBOUNCE = 50  # ms that a burst of changes may last
_TICK = 0.1  # seconds between two checks of the files that have changed last
_SHARE = 200  # a scan of all files takes at most 1/200 of the time
_SETTLE = 0.03  # seconds from the first change to the scan of all files


class Channel:
    """The pipes of the watcher: it reads modules from one, and writes changes to the other.

    Both pipes have lines of JSON. The workers write paths and states of their modules to `modules`.
    The watcher writes lists of paths to `changes`.
    """

    def __init__(self, modules: int, changes: int, parent: int) -> None:
        self._modules = modules
        self._changes = changes
        self._parent = parent
        self._poll = select.poll()
        self._poll.register(modules, select.POLLIN)
        self._rest = b""

    def has_news(self, timeout: float = 0.0) -> bool:
        """Wait at most `timeout` seconds for a module. Raises EOFError after the server's end."""
        news = bool(self._poll.poll(timeout * 1000))
        if os.getppid() != self._parent:
            raise EOFError
        return news

    def read(self) -> dict[str, State]:
        """Return the modules that workers have sent. Raises EOFError after the server's end."""
        if not self.has_news():
            return {}
        data = os.read(self._modules, 1 << 20)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return {path: state and tuple(state) for path, state in map(json.loads, lines)}

    def send(self, changed: Iterable[str]) -> None:
        """Send the paths of changed files, if any. Raises EOFError after the server's end."""
        paths = sorted(changed)
        if not paths:
            return
        data = json.dumps(paths).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(self._changes, data) :]
        except OSError:
            raise EOFError from None


def watch(snapshot: Snapshot, channel: Channel) -> None:
    """Report changes until the server ends, by watchfiles if it is installed, else by scans."""
    try:
        try:
            _watch_events(snapshot, channel)
        except ImportError:
            get_logger().info(
                "watching %d directories by scans of all files; "
                "with pip install picowsgi[reload] the system reports changes",
                len(snapshot.directories()),
            )
        except (OSError, RuntimeError) as error:  # most likely a limit of the system
            get_logger().warning(
                "the system cannot report changes (%s); watching by scans of all files", error
            )
        _watch_by_looking(snapshot, channel)
    except EOFError:
        pass


class _Interruption:
    """The stop event of watchfiles: set when the watcher has other work to do."""

    def __init__(self, snapshot: Snapshot, channel: Channel) -> None:
        self._snapshot = snapshot
        self._channel = channel
        self._begun = False
        self.directories = snapshot.directories()
        self._switches = snapshot.switches
        #: Files that have changed before the system reported events, and changed new modules.
        self.missed: set[str] = set()

    def is_set(self) -> bool:
        if not self._begun:
            self._begun = True
            self.missed = self._snapshot.scan()
        modules = self._channel.read()
        self.missed |= self._snapshot.add(modules)
        return bool(self.missed) or (bool(modules) and self.is_outdated)

    @property
    def is_outdated(self) -> bool:
        """Whether the directories to watch have changed."""
        return (
            self._snapshot.switches != self._switches
            or self._snapshot.directories() != self.directories
        )


def _watch_events(snapshot: Snapshot, channel: Channel) -> None:
    from watchfiles import watch  # an optional package

    while True:
        interruption = _Interruption(snapshot, channel)
        try:
            for events in watch(
                *interruption.directories,
                watch_filter=None,
                debounce=_DEBOUNCE,
                step=_STEP,
                stop_event=interruption,
                recursive=False,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                channel.send(snapshot.look(path for _, path in events))
                if interruption.is_outdated:
                    break
        except FileNotFoundError:  # a directory was removed before the system watched it
            interruption.missed |= snapshot.scan()
        channel.send(interruption.missed)


def _watch_by_looking(snapshot: Snapshot, channel: Channel) -> None:
    scans = _Scans(snapshot)
    while True:
        changed = snapshot.look_at_latest()
        if channel.has_news(_TICK):
            changed |= snapshot.add(channel.read())
            time.sleep(_TICK)  # a worker sends its modules in many pieces
        channel.send(scans.complete(changed))


def watch_folders(folders: Iterable[str], on_change: Callable[[], object]) -> NoReturn:
    """Call `on_change` whenever a file in these folders has changed. Run this in a thread.

    The temporary files of editors do not count. Raises ConfigError if a folder does not exist.
    """
    snapshot = Snapshot(Files(folders, ("*",)))
    scans = _Scans(snapshot)
    while True:
        time.sleep(_TICK)
        if scans.complete(snapshot.look_at_latest()):
            on_change()


class _Scans:
    """Scans of all files: after a change, and else as often as they may take time."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._due = 0.0

    def complete(self, changed: set[str]) -> set[str]:
        """Return the changed files that are known, and those that a scan finds now."""
        if changed:
            time.sleep(_SETTLE)
        if changed or time.monotonic() >= self._due:
            begun = time.thread_time()
            changed |= self._snapshot.scan()
            self._due = time.monotonic() + (time.thread_time() - begun) * _SHARE
        return changed
