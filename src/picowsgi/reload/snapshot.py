"""The state of the watched files at the last check, to find the files that have changed since.

Never decides when to check.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Mapping

from picowsgi.reload.files import Files

_RECENT = 2_000_000_000  # ns: a directory may have changed again within the same time stamp
_HOT = 16

#: The state of a file: time of change in ns, size and inode; None: there is no such file.
State = tuple[int, int, int] | None


class Snapshot:
    """The state of the files that `files` chooses."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._states: dict[str, State] = {}
        #: The directories, with their time of change in ns when they were listed.
        self._directories: dict[str, int] = {}
        self._latest: list[str] = []
        for root in files.roots:
            self._enter(root)

    def directories(self) -> set[str]:
        """Return the existing directories that have watched files."""
        modules = {os.path.dirname(path) for path in self._files.modules}
        return {*self._directories, *filter(os.path.isdir, modules)}

    def add(self, modules: Mapping[str, State]) -> set[str]:
        """Watch these files too, and return those that have changed since the given state."""
        for path, state in modules.items():
            self._files.modules.add(path)
            if self._files.wants(path):
                self._states.setdefault(path, state)
        return self._compare(modules.keys() & self._states.keys())

    def scan(self) -> set[str]:
        """Check all files. Return those that are new, changed or removed."""
        changed = set()
        for directory, listed in list(self._directories.items()):
            state = state_of(directory)
            if state is None:
                self._directories.pop(directory, None)
            elif state[0] != listed or time.time_ns() - state[0] < _RECENT:
                changed |= self._enter(directory)
        for root in self._files.roots:
            if root not in self._directories:
                changed |= self._enter(root)  # it may have been made again
        changed |= self._compare(list(self._states))
        if changed or not self._latest:
            states = self._states
            self._latest = heapq.nlargest(_HOT, states, key=lambda path: (states[path] or (0,))[0])
        return changed

    def look(self, paths: Iterable[str]) -> set[str]:
        """Check these files and directories only. Return those that have changed."""
        changed, files = set(), []
        for path in paths:
            if os.path.isdir(path):
                known = path in self._directories or os.path.islink(path)
                if not known and self._files.enters(path):
                    changed |= self._enter(path)
            elif path in self._directories:
                return changed | self.scan()  # it was removed with all its files
            elif self._files.wants(path):
                files.append(path)
        return changed | self._compare(files)

    def look_at_latest(self) -> set[str]:
        """Check the few files that have changed last, which are the most likely to change again."""
        return self._compare(self._latest)

    def _compare(self, paths: Iterable[str]) -> set[str]:
        changed = set()
        for path in paths:
            state = state_of(path)
            if state == self._states.get(path):
                continue
            changed.add(path)
            if state is not None or path in self._files.modules:
                self._states[path] = state
            else:
                del self._states[path]
        return changed

    def _enter(self, directory: str) -> set[str]:
        """List the directory and the new directories in it. Return the new files."""
        new: set[str] = set()
        waiting = [directory]
        while waiting:
            directory = waiting.pop()
            state = state_of(directory)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.path not in self._directories and self._files.enters(
                                entry.path
                            ):
                                waiting.append(entry.path)
                        elif entry.path not in self._states and self._files.wants(entry.path):
                            self._states[entry.path] = state_of(entry.path)
                            new.add(entry.path)
            except OSError:  # it was removed, or this process may not read it
                continue
            self._directories[directory] = state[0] if state is not None else 0
        return new


def state_of(path: str) -> State:
    """Return the state of a file, which differs after a change."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
