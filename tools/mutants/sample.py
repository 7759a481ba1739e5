"""Chooses mutants: all of some files, a random sample, or the newest lines first."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import c_source, python_source
from .mutation import Candidate, digest

Chosen = tuple[str, Candidate]  # a file and a candidate


def files(root: Path) -> list[str]:
    """Return the C and Python files of the server."""
    found = [*root.glob("csrc/*.c"), *root.glob("src/picowsgi/**/*.py")]
    return sorted(str(path.relative_to(root)) for path in found)


def candidates(root: Path, names: list[str]) -> list[Chosen]:
    """Return all possible mutations of these files."""
    found = []
    for name in names:
        source = (root / name).read_text()
        language = c_source if name.endswith(".c") else python_source
        found.extend((name, one) for one in language.candidates(name, source))
    return found


def shuffled(chosen: list[Chosen], seed: int) -> list[Chosen]:
    """Return the candidates in a random order, which is the same for the same seed."""
    again = list(chosen)
    random.Random(seed).shuffle(again)  # noqa: S311
    return again


def newest(root: Path, chosen: list[Chosen]) -> list[Chosen]:
    """Return one candidate for each line, the newest line first. It is the same in each run."""
    dates = {name: line_dates(root, name) for name in {name for name, _ in chosen}}
    by_line: dict[tuple[str, int], list[Candidate]] = {}
    for name, one in chosen:
        by_line.setdefault((name, one.line), []).append(one)

    def order(item: tuple[tuple[str, int], list[Candidate]]) -> tuple[int, str]:
        (name, line), _ = item
        return -dates[name].get(line, 0), digest(name, str(line))

    return [
        (name, ones[int(digest(name, str(line), "which"), 16) % len(ones)])
        for (name, line), ones in sorted(by_line.items(), key=order)
    ]


def line_dates(root: Path, name: str) -> dict[int, int]:
    """Return the commit time of each line in seconds, or the current time without a commit."""
    command = ["git", "blame", "--line-porcelain", "--", name]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    return dict(_dates(done.stdout)) if done.returncode == 0 else {}


def _dates(porcelain: str) -> Iterator[tuple[int, int]]:
    line = 0
    for text in porcelain.splitlines():
        header = re.match(r"[0-9a-f]{40,64} \d+ (\d+)", text)
        if header:
            line = int(header.group(1))
        elif text.startswith("committer-time "):
            yield line, int(text.split()[1])
