"""Decides which files to watch for an application that is reloaded.

Never reads a file.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from picowsgi.errors import ConfigError

#: Code, settings and templates: a running application has read them, and does not read them again.
INCLUDED = ("*.py", ".env", ".env.*", "*.html", "*.htm", "*.jinja", "*.jinja2", "*.j2")
#: Files that editors and tools write beside the files that they change.
EXCLUDED = (
    ".#*",
    "#*#",
    "*~",
    "*.sw?",
    "*.kate-swp",
    "4913",
    ".goutputstream-*",
    "*___jb_???___",
    "flycheck_*",
    "*.tmp",
    "*.bak",
    "*.orig",
    "*.rej",
    "*.py[co]",
)
_DIRECTORIES_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})


class Files:
    """The files under `roots` that match the patterns, and the imported modules.

    A pattern without `/` matches the name of a file, or of a directory on the way to it. A pattern
    with `/` matches the path from the root, or the whole path if the pattern begins with `/`. `*`
    matches any characters, also `/`. A file is watched if it matches INCLUDED or `includes`, and
    neither EXCLUDED nor `excludes`. Directories whose name begins with a dot, virtual environments,
    `__pycache__`, `node_modules`, `site-packages` and `dist-packages` are left out.

    Raises ConfigError if a root is not a directory.
    """

    def __init__(
        self, roots: Iterable[str], includes: Sequence[str] = (), excludes: Sequence[str] = ()
    ) -> None:
        self.roots = [_root(root) for root in dict.fromkeys(roots)]
        #: Files of the application's modules, which are watched in any directory.
        self.modules: set[str] = set()
        self._included = _Patterns((*INCLUDED, *includes))
        self._excluded = _Patterns((*EXCLUDED, *excludes))
        self._unwanted = _Patterns(excludes)

    def wants(self, path: str) -> bool:
        """Return whether to watch the file `path`, an absolute path."""
        inner = self._inner(path)
        if path in self.modules:
            return not self._unwanted.match(path, inner or os.path.basename(path))
        if inner is None or any(map(_is_left_out, inner.split(os.sep)[:-1])):
            return False
        return self._included.match(path, inner) and not self._excluded.match(path, inner)

    def enters(self, path: str) -> bool:
        """Return whether the directory `path` may have files to watch."""
        inner = self._inner(path)
        if inner is None or _is_left_out(os.path.basename(path)):
            return False
        if self._unwanted.match(path, inner):
            return False
        return not os.path.exists(os.path.join(path, "pyvenv.cfg"))  # a virtual environment

    def _inner(self, path: str) -> str | None:
        """Return the path from its root; None: no root contains it."""
        for root in self.roots:
            if path.startswith(root) and path[len(root.rstrip(os.sep)) :][:1] == os.sep:
                return path[len(root.rstrip(os.sep)) + 1 :]
        return None


def _root(text: str) -> str:
    path = Path(text).absolute()
    if not path.is_dir():
        raise ConfigError(f"--reload-dir: expected a directory, got {text!r}")
    return os.path.normpath(path)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in _DIRECTORIES_LEFT_OUT


class _Patterns:
    """Patterns as two regular expressions: for names, and for paths."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names, paths = [], []
        for pattern in patterns:
            if "/" in pattern:
                plain = pattern.rstrip("/")
                paths += [fnmatch.translate(plain), fnmatch.translate(f"{plain}/*")]
            else:
                names.append(fnmatch.translate(pattern))
        self._names = re.compile("|".join(names)) if names else None
        self._paths = re.compile("|".join(paths)) if paths else None

    def match(self, path: str, inner: str) -> bool:
        """Return whether a pattern matches the file."""
        if self._names is not None and any(map(self._names.match, inner.split(os.sep))):
            return True
        paths = self._paths
        return paths is not None and bool(paths.match(inner) or paths.match(path))
