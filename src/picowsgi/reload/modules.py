"""The report from a worker to the watcher: the files of the modules that the worker has imported.

Never imports a module.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator

from picowsgi.reload.snapshot import state_of

_AT_ONCE = 4096  # bytes of a pipe that stay together, even if others write to it
_FAILURE_TIME = 2.0  # seconds
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


class Report:
    """Sends each file once, through `pipe`.

    The report leaves out files of the standard library and of installed packages, but not files of
    packages in editable mode. It also leaves out modules that were imported before the report
    existed, because a process that is forked later could not load them again.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._modules = set(sys.modules)
        self._sent: set[str] = set()
        #: Whole lines that the pipe had no room for. A write of each item is never split.
        self._unsent: deque[bytes] = deque()
        os.set_blocking(pipe, False)

    def send_imported(self) -> None:
        """Send the files of the modules that have been imported since the last call."""
        if len(sys.modules) == len(self._modules):
            self.send_rest()
            return
        modules = sys.modules.copy()
        news = modules.keys() - self._modules
        self._modules |= news
        self._write(file for name in news for file in _files_of(modules[name]))

    def send_failed(self, error: BaseException | None) -> None:
        """Send the files in the traceback of an import error, whose modules are not imported."""
        files = []
        while error is not None:
            files += [
                frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)
            ]
            if isinstance(error, SyntaxError) and error.filename:
                files.append(error.filename)
            error = error.__cause__ or error.__context__
        self._write(files)
        self.send_rest(_FAILURE_TIME)  # the process ends

    def _write(self, files: Iterable[str]) -> None:
        lines = b""
        for file in files:
            if file in self._sent or not _is_own(file):
                continue
            self._sent.add(file)
            line = json.dumps((file, state_of(file))).encode("ascii") + b"\n"
            if len(line) > _AT_ONCE:
                continue
            if len(lines) + len(line) > _AT_ONCE:
                self._unsent.append(lines)
                lines = b""
            lines += line
        if lines:
            self._unsent.append(lines)
        self.send_rest()

    @property
    def is_complete(self) -> bool:
        """Whether the pipe has taken everything."""
        return not self._unsent

    def send_rest(self, seconds: float = 0.0) -> None:
        """Send what the pipe had no room for. Wait at most so long for room."""
        until = time.monotonic() + seconds
        while self._unsent:
            try:
                os.write(self._pipe, self._unsent[0])
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0 or not select.select([], [self._pipe], [], left)[1]:
                    return
            except OSError:  # the watcher has ended
                self._unsent.clear()
            else:
                self._unsent.popleft()


def _files_of(module: object) -> Iterator[str]:
    try:
        file = vars(module).get("__file__")  # getattr could import a lazy module
    except TypeError:
        return
    if isinstance(file, str) and os.path.isabs(file):
        yield file
        yield os.path.realpath(file)


def _is_own(file: str) -> bool:
    if not os.path.isabs(file) or file.startswith(_STANDARD_LIBRARY):
        return False
    return not any(part in file for part in _LIBRARIES)
