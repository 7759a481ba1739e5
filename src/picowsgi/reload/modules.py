"""What a worker tells the watcher: the files of the modules that it has imported.

Never imports one.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator

from picowsgi.reload.snapshot import state_of

_AT_ONCE = 4096  # bytes of a pipe that stay together, even if others write to it
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


class Report:
    """Tells of each file once, through `pipe`.

    Files of the standard library and of installed packages are left out; those of packages in
    editable mode are not. What was imported before this was made cannot be loaded again by another
    process that is forked, and is not told of either.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._modules = set(sys.modules)
        self._told: set[str] = set()
        os.set_blocking(pipe, False)

    def tell(self) -> None:
        """Tell of what has been imported since the last time."""
        if len(sys.modules) == len(self._modules):
            return
        modules = sys.modules.copy()
        news = modules.keys() - self._modules
        self._modules |= news
        self._write(file for name in news for file in _files_of(modules[name]))

    def tell_of_failure(self, error: BaseException | None) -> None:
        """Tell of the files that an error has come through: those modules are not imported."""
        files = []
        while error is not None:
            files += [
                frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)
            ]
            if isinstance(error, SyntaxError) and error.filename:
                files.append(error.filename)
            error = error.__cause__ or error.__context__
        self._write(files)

    def _write(self, files: Iterable[str]) -> None:
        lines = b""
        for file in files:
            if file in self._told or not _is_own(file):
                continue
            self._told.add(file)
            line = json.dumps((file, state_of(file))).encode("ascii") + b"\n"
            if len(line) > _AT_ONCE:
                continue
            if len(lines) + len(line) > _AT_ONCE:
                self._send(lines)
                lines = b""
            lines += line
        self._send(lines)

    def _send(self, lines: bytes) -> None:
        try:
            os.write(self._pipe, lines)
        except OSError:  # the watcher is gone, or far behind: those files do not reload anything
            return


def _files_of(module: object) -> Iterator[str]:
    try:
        file = vars(module).get("__file__")  # getattr could load one that is lazy
    except TypeError:
        return
    if isinstance(file, str) and os.path.isabs(file):
        yield file
        yield os.path.realpath(file)


def _is_own(file: str) -> bool:
    if not os.path.isabs(file) or file.startswith(_STANDARD_LIBRARY):
        return False
    return not any(part in file for part in _LIBRARIES)
