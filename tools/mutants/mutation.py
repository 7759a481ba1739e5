"""A mutation replaces one piece of one file. This module never reads or writes a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """Replaces `source[start:end]` of `file` with `new`."""

    file: str
    function: str  # the function around it; "": none
    scope: str  # a hash of the function's text
    offset: int  # of `start` in the function's text
    line: int
    start: int
    end: int
    new: str
    kind: str
    old_line: str
    new_line: str

    @property
    def key(self) -> str:
        """A name that stays the same while the text of the function does not change."""
        where = f"{self.file}:{self.function}:{self.scope}:{self.offset}"
        return f"{where}:{self.kind}:{self.new.strip()}"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def apply(self, source: str) -> str:
        return source[: self.start] + self.new + source[self.end :]


@dataclass(frozen=True)
class Candidate:
    """A possible mutation. `make` returns it, or None if it turns out to be none."""

    line: int
    kind: str
    make: Callable[[], Mutation | None]


def plain(text: str) -> str:
    """Return the text with single spaces instead of white space."""
    return re.sub(r"\s+", " ", text).strip()


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def mutation(
    file: str, source: str, scope: tuple[str, int, int], start: int, end: int, new: str, kind: str
) -> Mutation:
    """Return a mutation of `source`. `scope` is the name, start and end of its function."""
    function, first, last = scope
    line_start = source.rfind("\n", 0, start) + 1
    line_end = source.find("\n", end)
    line_end = len(source) if line_end < 0 else line_end
    return Mutation(
        file=file,
        function=function,
        scope=digest(source[first:last]),
        offset=start - first,
        line=source.count("\n", 0, start) + 1,
        start=start,
        end=end,
        new=new,
        kind=kind,
        old_line=plain(source[line_start:line_end]),
        new_line=plain(source[line_start:start] + new + source[end:line_end]),
    )
