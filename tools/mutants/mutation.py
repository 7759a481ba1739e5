"""What a mutation is: one replaced piece of one file. Never reads or writes a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """Replaces `source[start:end]` of `file` with `new`."""

    file: str
    function: str  # that holds it; "" outside of functions
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
        """The name of the mutation that holds while the function's text stays the same."""
        where = f"{self.file}:{self.function}:{self.scope}:{self.offset}"
        return f"{where}:{self.kind}:{self.new.strip()}"

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def apply(self, source: str) -> str:
        return source[: self.start] + self.new + source[self.end :]


@dataclass(frozen=True)
class Candidate:
    """A mutation that is made only when it is chosen; there may be none after all."""

    line: int
    kind: str
    make: Callable[[], Mutation | None]


def plain(text: str) -> str:
    """The text with every run of blanks as one."""
    return re.sub(r"\s+", " ", text).strip()


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def mutation(
    file: str, source: str, scope: tuple[str, int, int], start: int, end: int, new: str, kind: str
) -> Mutation:
    """A mutation of `source`; `scope` is the name, the start and the end of its function."""
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
