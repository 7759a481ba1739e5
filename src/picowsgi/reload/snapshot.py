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
_DIRECTORIES_MOST = 20_000  # if some of them are reached through links
_LINKED_MOST = 200  # links whose directories are watched

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
        #: The links to directories that were found, or that lead to a module, with the state of the
        #: directory that each leads to.
        self._links: dict[str, State] = {}
        #: The real paths of the directories that were entered through links.
        self._linked: set[str] = set()
        #: Directories of modules whose links are known.
        self._plain: set[str] = set()
        #: How often a link has been changed. The system still watches the directory before.
        self.switches = 0
        self._real_roots = [os.path.realpath(root) for root in files.roots]
        for root in files.roots:
            self._note_links(root)
            self._enter(root)

    def directories(self) -> set[str]:
        """Return the existing directories that have watched files, or links to such directories."""
        outside = {os.path.dirname(path) for path in (*self._files.modules, *self._links)}
        return {*self._directories, *filter(os.path.isdir, outside)}

    def add(self, modules: Mapping[str, State]) -> set[str]:
        """Watch these files too, and return those that have changed since the given state."""
        for path, state in modules.items():
            self._files.modules.add(path)
            if self._files.wants(path):
                self._states.setdefault(path, state)
                self._note_links(os.path.dirname(path))
        return self._compare(modules.keys() & self._states.keys())

    def scan(self) -> set[str]:
        """Check all files. Return those that are new, changed or removed."""
        changed: set[str] = self._compare_links()
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
        changed: set[str] = set()
        files = []
        for path in paths:
            if path in self._links or os.path.islink(path):
                return changed | self.scan()  # it may lead to another directory now
            if os.path.isdir(path):
                if path not in self._directories and self._files.enters(path):
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

    def _note_links(self, directory: str) -> None:
        """Watch the links on the way to a directory. Its real path differs if there are any."""
        if directory in self._plain:
            return
        self._plain.add(directory)
        while directory not in self._links and os.path.realpath(directory) != directory:
            if os.path.islink(directory):
                self._links[directory] = _identity_of(directory)
            directory = os.path.dirname(directory)

    def _compare_links(self) -> set[str]:
        """Return the links that lead to another directory than before."""
        changed = set()
        for path, before in list(self._links.items()):
            state = _identity_of(path)
            if state == before:
                continue
            changed.add(path)
            self.switches += 1
            if os.path.islink(path):
                self._links[path] = state
            else:
                del self._links[path]
            self._directories.pop(path, None)
            if self._may_enter_link(path):
                changed |= self._enter(path)
        return changed

    def _may_enter_link(self, path: str) -> bool:
        """Return whether to enter the directory that a link leads to.

        Directories below a root are known by their own path. A directory that contains a root would
        lead back to the link. The number is limited, because a link may lead to any large disk.
        """
        real = os.path.realpath(path)
        if not os.path.isdir(real) or not self._files.enters(path):
            return False
        if any(_contains(real, root) or _contains(root, real) for root in self._real_roots):
            return False
        is_known = any(_contains(other, real) for other in self._linked)
        if is_known or len(self._linked) >= _LINKED_MOST:
            return False
        self._linked.add(real)
        return True

    def _note_link(self, path: str) -> bool:
        """Watch a link to a directory. Returns whether to enter the directory."""
        if path in self._links or not self._files.enters(path):
            return False
        self._links[path] = _identity_of(path)
        return self._may_enter_link(path)

    def _enter(self, directory: str) -> set[str]:
        """List the directory and the new directories in it. Return the new files."""
        new: set[str] = set()
        waiting = [directory]
        while waiting:
            directory = waiting.pop()
            if len(self._directories) >= _DIRECTORIES_MOST and self._linked:
                break
            state = state_of(directory)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.path not in self._directories and self._files.enters(
                                entry.path
                            ):
                                waiting.append(entry.path)
                        elif entry.is_symlink() and os.path.isdir(entry.path):
                            if self._note_link(entry.path):
                                waiting.append(entry.path)
                        elif entry.path not in self._states and self._files.wants(entry.path):
                            self._states[entry.path] = state_of(entry.path)
                            new.add(entry.path)
            except OSError:  # it was removed, or this process may not read it
                continue
            self._directories[directory] = state[0] if state is not None else 0
        return new


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _identity_of(path: str) -> State:
    """Return the same for the same directory, no matter what happens in it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return 0, found.st_dev, found.st_ino


def state_of(path: str) -> State:
    """Return the state of a file, which differs after a change."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
