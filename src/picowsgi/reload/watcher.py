"""The process that looks for changed files, and says which.

It is a process of its own so that the one that forks the application has no thread, and no module,
that is not the server's. Never reloads anything.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterable

from picowsgi.log import get_logger
from picowsgi.reload.snapshot import Snapshot, State

_STEP = 20  # ms between two looks at what the system has told
_DEBOUNCE = 50  # ms that a burst of changes may last
_TICK = 0.1  # seconds between two looks at the files that have changed last
_SHARE = 200  # a look at all files takes at most so small a part of the time
_SETTLE = 0.03  # seconds from the first change that is seen to the look at all files


class Channel:
    """Where the watcher hears of modules and tells of changes.

    Both are pipes with JSON in lines: `modules` has paths and states, from the processes that have
    imported them, and `changes` takes lists of paths.
    """

    def __init__(self, modules: int, changes: int, parent: int) -> None:
        self._modules = modules
        self._changes = changes
        self._parent = parent
        self._poll = select.poll()
        self._poll.register(modules, select.POLLIN)
        self._rest = b""

    def has_news(self, timeout: float = 0.0) -> bool:
        """Wait for a module at most so many seconds. Raises EOFError once nobody listens."""
        news = bool(self._poll.poll(timeout * 1000))
        if os.getppid() != self._parent:
            raise EOFError
        return news

    def read(self) -> dict[str, State]:
        """Return the modules that have been told of. Raises EOFError once nobody listens."""
        if not self.has_news():
            return {}
        data = os.read(self._modules, 1 << 20)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return {path: state and tuple(state) for path, state in map(json.loads, lines)}

    def tell(self, changed: Iterable[str]) -> None:
        """Say which files have changed, if any have. Raises EOFError once nobody listens."""
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
    """Report changes until no process listens, by watchfiles if it is installed, else by scans."""
    try:
        try:
            _watch_events(snapshot, channel)
        except ImportError:
            get_logger().info(
                "watching %d directories by looking at the files again and again; "
                "pip install picowsgi[reload] has the system tell of changes",
                len(snapshot.directories()),
            )
        except (OSError, RuntimeError) as error:  # a limit of the system, most likely
            get_logger().warning(
                "the system cannot tell of changes (%s); the files are looked at again and again",
                error,
            )
        _watch_by_looking(snapshot, channel)
    except EOFError:
        pass


class _Interruption:
    """Ends a round of watchfiles when there is something to do besides."""

    def __init__(self, snapshot: Snapshot, channel: Channel) -> None:
        self._snapshot = snapshot
        self._channel = channel
        self._begun = False
        self.directories = snapshot.directories()
        #: What has changed before the system was asked to tell.
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
        """Whether there are other directories by now."""
        return self._snapshot.directories() != self.directories


def _watch_events(snapshot: Snapshot, channel: Channel) -> None:
    from watchfiles import watch  # an extra

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
                channel.tell(snapshot.look(path for _, path in events))
                if interruption.is_outdated:
                    break
        except FileNotFoundError:  # a directory that has gone in the meantime
            interruption.missed |= snapshot.scan()
        channel.tell(interruption.missed)


def _watch_by_looking(snapshot: Snapshot, channel: Channel) -> None:
    due = 0.0
    while True:
        changed = snapshot.look_at_latest()
        if channel.has_news(_TICK):
            changed |= snapshot.add(channel.read())
            time.sleep(_TICK)  # they come in many pieces
        if changed:
            time.sleep(_SETTLE)
        if changed or time.monotonic() >= due:
            begun = time.thread_time()
            changed |= snapshot.scan()
            due = time.monotonic() + (time.thread_time() - begun) * _SHARE
        channel.tell(changed)
