"""Django's reloader by scans, with two additions: it notices more changes, and most of them sooner.

Never decides which files to watch, or what happens after a change: Django does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.utils import autoreload

from picowsgi.contrib.django.server import is_failed
from picowsgi.contrib.restarts import is_early_change, wait_for_change

_INTERVAL: float = autoreload.StatReloader.SLEEP_TIME


class Reloader(autoreload.StatReloader):
    """The reloader of a process that serves. `autoreload_started` turns Django's into this one."""

    #: The files of the last scan. Another object replaces it at the next one.
    _mtimes: Mapping[str, float] = {}

    def snapshot_files(self) -> Iterator[tuple[Path, float]]:
        """Return all files. A file that the process may have read before its change has changed.

        Django takes the first scan of a file for the state that the process has read. So it would
        not notice a change between the start of the process and this scan.
        """
        before = self._mtimes
        found: dict[str, float] = {}
        self._mtimes = found
        for file, mtime in super().snapshot_files():
            path = str(file)
            if path not in before and is_early_change(path, mtime, failed=is_failed()):
                self.notify_file_changed(file)
            found[path] = mtime
            yield file, mtime

    @property
    def SLEEP_TIME(self) -> float:  # noqa: N802 (the name is Django's)
        """Wait between two scans, and check the latest files meanwhile. Django then waits 0 s."""
        changed = wait_for_change(self._mtimes, _INTERVAL)
        if changed is not None:
            self.notify_file_changed(Path(changed))
        return 0.0


def improve(reloader: Any) -> None:
    """Turn Django's reloader by scans into this one, before its first scan."""
    if type(reloader) is autoreload.StatReloader:
        reloader.__class__ = Reloader
