"""The files that matter as they were at the last look, to tell what has changed since.

Never decides when to look.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterable, Mapping

from picowsgi.reload.files import Files

_RECENT = 2_000_000_000  # ns: a directory may have changed again without another time of change
_HOT = 16

#: Of a file: time of change in ns, size and inode; None: there is no such file.
State = tuple[int, int, int] | None


class Snapshot:
    """What `files` chooses, as it is when this is made, and then at each look."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._states: dict[str, State] = {}
        #: With the time of its last change, in ns, when it was listed.
        self._directories: dict[str, int] = {}
        self._latest: list[str] = []
        for root in files.roots:
            self._enter(root)

    def directories(self) -> set[str]:
        """Return the directories that the files are in, as far as they exist."""
        modules = {os.path.dirname(path) for path in self._files.modules}
        return {*self._directories, *filter(os.path.isdir, modules)}

    def add(self, modules: Mapping[str, State]) -> set[str]:
        """Look at these files from now on, too; return those that are not as given any more."""
        for path, state in modules.items():
            self._files.modules.add(path)
            if self._files.wants(path):
                self._states.setdefault(path, state)
        return self._compare(modules.keys() & self._states.keys())

    def scan(self) -> set[str]:
        """Look at all files; return those that have changed, come or gone."""
        changed = set()
        for directory, listed in list(self._directories.items()):
            state = state_of(directory)
            if state is None:
                self._directories.pop(directory, None)
            elif state[0] != listed or time.time_ns() - state[0] < _RECENT:
                changed |= self._enter(directory)
        for root in self._files.roots:
            if root not in self._directories:
                changed |= self._enter(root)  # it may be there again
        changed |= self._compare(list(self._states))
        if changed or not self._latest:
            states = self._states
            self._latest = heapq.nlargest(_HOT, states, key=lambda path: (states[path] or (0,))[0])
        return changed

    def look(self, paths: Iterable[str]) -> set[str]:
        """Look at these files and directories only."""
        changed, files = set(), []
        for path in paths:
            if os.path.isdir(path):
                known = path in self._directories or os.path.islink(path)
                if not known and self._files.enters(path):
                    changed |= self._enter(path)
            elif path in self._directories:
                return changed | self.scan()  # it has gone, and all files in it
            elif self._files.wants(path):
                files.append(path)
        return changed | self._compare(files)

    def look_at_latest(self) -> set[str]:
        """Look at the few files that have changed last: they are the likeliest to change again."""
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
        """List the directory, and those in it that are new; return the files that are new."""
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
            except OSError:  # it has gone, or is not for us
                continue
            self._directories[directory] = state[0] if state is not None else 0
        return new


def state_of(path: str) -> State:
    """Return what tells a file from what it was before."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
