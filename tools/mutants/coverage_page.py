"""`make coverage` writes a page with the lines and branches of the server that no test reaches.

The C tests and pytest run in a copy of the checkout. gcov measures C, and coverage.py measures
Python. A process that is killed, or calls `os._exit`, writes nothing for C.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import likely
from .builder import COVERED, PROJECT, Tree

PAGE = PROJECT / "build" / "coverage" / "coverage.txt"
_SETTINGS = """\
[run]
branch = true
parallel = true
source = {root}/src/picowsgi
data_file = {root}/build/coverage/data
concurrency = thread,multiprocessing
patch = subprocess,_exit
disable_warnings = no-data-collected,module-not-measured
"""


@dataclass
class Reached:
    """The executed lines and branches of one file."""

    lines: int = 0
    branches: int = 0
    taken: int = 0  # branches
    missing: set[int] = field(default_factory=set)  # lines
    partial: dict[int, int] = field(default_factory=dict)  # line -> branches that were never taken


def from_gcov(documents: list[dict[str, Any]]) -> dict[str, Reached]:
    """Read the output of `gcov --json-format` about csrc/. A line may appear several times."""
    counts: dict[str, dict[int, int]] = {}
    branches: dict[str, dict[tuple[int, int], int]] = {}
    for document in documents:
        for file in document["files"]:
            name = file["file"].removeprefix("./")
            if not name.startswith("csrc/") or "/vendor/" in name:
                continue
            lines, taken = counts.setdefault(name, {}), branches.setdefault(name, {})
            for line in file["lines"]:
                number = line["line_number"]
                lines[number] = lines.get(number, 0) + line["count"]
                for at, branch in enumerate(line["branches"]):
                    taken[number, at] = taken.get((number, at), 0) + branch["count"]
    found = {}
    for name, lines in counts.items():
        taken = branches[name]
        one = found[name] = Reached(len(lines), len(taken), sum(map(bool, taken.values())))
        one.missing = {number for number, count in lines.items() if count == 0}
        for (number, _), count in taken.items():
            if count == 0 and number not in one.missing:
                one.partial[number] = one.partial.get(number, 0) + 1
    return found


def from_coverage(document: dict[str, Any]) -> dict[str, Reached]:
    """Read the output of `coverage json`."""
    found = {}
    for name, file in document["files"].items():
        summary = file["summary"]
        branches = summary["num_branches"]
        one = Reached(summary["num_statements"], branches, summary["covered_branches"])
        one.missing = set(file["missing_lines"])
        for line, _ in file["missing_branches"]:
            if line not in one.missing:
                one.partial[line] = one.partial.get(line, 0) + 1
        found["src/picowsgi/" + name.partition("src/picowsgi/")[2]] = one
    return found


def page(found: dict[str, Reached], root: Path) -> str:
    """Return the page: the files with their coverage, and then every line that was not reached."""
    text = ["The lines that no test reaches. -: the line; <: a branch of the line.", ""]
    for name, one in sorted(found.items()):
        lines = _share(one.lines - len(one.missing), one.lines)
        text.append(f"{name:60} lines {lines}  branches {_share(one.taken, one.branches)}")
    for name, one in sorted(found.items()):
        if not one.missing and not one.partial:
            continue
        source = (root / name).read_text().splitlines()
        text += ["", name]
        for number in sorted({*one.missing, *one.partial}):
            mark = "-" if number in one.missing else "<"
            text.append(f"{number:6} {mark} {source[number - 1]}")
    return "\n".join(text) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:5.1f} %" if whole else "      -"


def _measure(tree: Tree, words: list[str]) -> int:
    """Run the C tests and pytest. Return 0 if all passed."""
    failed = 0
    for name in likely.c_tests(tree.root, "")[1]:
        print(f"tests/c/{name}", flush=True)
        failed |= subprocess.run(tree.program(name, COVERED), cwd=tree.root, check=False).returncode
    settings = tree.root / "build" / "coverage" / "settings"
    shutil.rmtree(settings.parent, ignore_errors=True)
    settings.parent.mkdir(parents=True)
    settings.write_text(_SETTINGS.format(root=tree.root))
    environ = {**os.environ, "PYTHONPATH": str(tree.root / "src")}
    coverage = [sys.executable, "-m", "coverage"]
    rc = f"--rcfile={settings}"
    command = [*coverage, "run", rc, "-m", "pytest", "-p", "no:cacheprovider"]
    command += words or likely.all_python_tests(tree.root)
    failed |= subprocess.run(command, cwd=tree.root, check=False, env=environ).returncode
    for step in (["combine", "--quiet", rc], ["json", "--quiet", rc, "-o", "build/coverage/json"]):
        subprocess.run([*coverage, *step], cwd=tree.root, check=True, env=environ)
    return failed


def main() -> int:
    tree = Tree("coverage")
    for data in tree.objects.glob("*.gcda"):
        data.unlink()
    tree.link_extension(COVERED)
    failed = _measure(tree, sys.argv[1:])
    data = [str(file) for file in sorted(tree.objects.glob("*.gcda"))]
    gcov = ["gcov", "--json-format", "--branch-probabilities", "--stdout", *data]
    printed = subprocess.run(gcov, cwd=tree.root, check=True, capture_output=True, text=True).stdout
    documents = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    measured = json.loads((tree.root / "build" / "coverage" / "json").read_text())
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    found = {**from_gcov(documents), **from_coverage(measured)}
    PAGE.write_text(page(found, tree.root))
    print(f"{PAGE.relative_to(PROJECT)} lists the lines and branches that no test reaches")
    return failed


if __name__ == "__main__":
    sys.exit(main())
