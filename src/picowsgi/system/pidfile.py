"""The pid file, which has the number of the process.

Never removes or replaces the file of another running process.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from picowsgi.errors import ConfigError
from picowsgi.system.processes import is_running


class PidFile:
    """The file at `path`. While a successor uses that name, this file's name ends in `.old`."""

    def __init__(self, path: str) -> None:
        self._own = Path(path).absolute()
        self._path = self._own
        self._old = self._own.with_name(self._own.name + ".old")

    def write(self) -> None:
        """Write the file, or replace the file of a process that has ended.

        Raises ConfigError if the file cannot be written, or belongs to a running process.
        """
        other = _read(self._path)
        if other is not None and other != os.getpid() and is_running(other):
            raise ConfigError(
                f"the pid file {self._path} names process {other}, which is running; "
                "stop it, or choose another file"
            )
        try:
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            try:
                os.write(descriptor, b"%d\n" % os.getpid())
                os.fchmod(descriptor, 0o644)
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink()
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            message = f"cannot write the pid file {self._path}: {error.strerror}"
            raise ConfigError(message) from None

    def make_room(self) -> None:
        """Rename the file, so that a successor can use the name."""
        self._move(self._old)

    def take_back(self) -> None:
        """Rename the file back, after the successor's end."""
        with suppress(ConfigError):  # the successor of another program uses the name
            if _read(self._own) in (None, os.getpid()) or not is_running(_read(self._own) or 0):
                self._move(self._own)

    def remove(self) -> None:
        """Remove the file if it belongs to this process."""
        if _read(self._path) == os.getpid():
            with suppress(OSError):
                self._path.unlink()

    def _move(self, path: Path) -> None:
        if _read(self._path) == os.getpid():
            with suppress(OSError):
                self._path.replace(path)
                self._path = path


def _read(path: Path) -> int | None:
    """Return the number in the file; None: there is none."""
    # As root this may read a file of another user: a link, a pipe, or a device without an end.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.read(descriptor, 32)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
