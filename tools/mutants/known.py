"""Stores facts about mutants: earlier results, tests that noticed mutants, and equivalents."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from .mutation import Mutation, digest, plain

# All tests depend on these.
_COMMON = ("tests/conftest.py", "tests/support", "tests/c/site.c")
_LEARNED_MOST = 8  # tests to try first
_VERSION = "1"


class Memory:
    """Results by mutation, in a JSON file. Several threads may use it."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self._lock = threading.Lock()
        self._data: dict[str, Any] = {"version": _VERSION, "results": {}, "learned": {}}
        if path.exists():
            read = json.loads(path.read_text())
            if read.get("version") == _VERSION:
                self._data = read

    def digest(self, tests: list[str]) -> str:
        """Return a hash of these files and folders, and of the files that all tests share."""
        texts = [_VERSION]
        for name in sorted({*tests, *_COMMON}):
            path = self._root / name.split("::")[0]
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            texts.extend(
                file.read_text(errors="replace")
                for file in files
                if file.suffix in {".py", ".c", ".http"} and file.is_file()
            )
        return digest(*texts)

    def result(self, one: Mutation, tests: list[str]) -> dict[str, Any] | None:
        """Return the result of an earlier run, if it still holds.

        `tests` would run now. If the mutant was noticed, the test that noticed it must not have
        changed. If it survived, no test must have changed.
        """
        with self._lock:
            found: dict[str, Any] | None = self._data["results"].get(one.key)
        if found is None or found["status"] == "none":
            return found
        ran = found["by"] if found["status"] == "noticed" else tests
        return found if found["tests"] == self.digest(ran) else None

    def keep(self, one: Mutation, status: str, tests: list[str], **more: object) -> None:
        """Store a result. `tests`: the test that noticed the mutant, or all tests that did not."""
        entry: dict[str, Any] = {"status": status, **more}
        if status != "none":
            entry["tests"] = self.digest(tests)
        if status == "noticed":
            entry["by"] = tests
        with self._lock:
            self._data["results"][one.key] = entry
            if status == "noticed":
                counts = self._data["learned"].setdefault(one.file, {})
                for test in tests:
                    counts[test] = counts.get(test, 0) + 1
            self._save()

    def learned(self, file: str) -> list[str]:
        """Return the tests that noticed mutants of this file, the best first."""
        with self._lock:
            counts = Counter(self._data["learned"].get(file, {}))
        return [test for test, _ in counts.most_common()]

    def learned_python(self, file: str) -> list[str]:
        return [test for test in self.learned(file) if "::" in test][:_LEARNED_MOST]

    def forget(self, file: str, test: str) -> None:
        """Forget a test that does not exist any more."""
        with self._lock:
            self._data["learned"].get(file, {}).pop(test, None)

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = self._path.with_suffix(".new")
        made.write_text(json.dumps(self._data, indent=1, sort_keys=True))
        made.replace(self._path)


def equivalents(text: str) -> dict[tuple[str, str, str, str], str]:
    """Read equivalent.txt. Return the reasons by file, function, old line and new line.

    Raises ValueError if an entry is incomplete.
    """
    found = {}
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    for block in "\n".join(lines).split("\n\n"):
        if not block.strip():
            continue
        place, *rest = block.strip().splitlines()
        file, _, function = place.removesuffix(":").partition(": ")
        old = [line[2:] for line in rest if line.startswith("- ")]
        new = [line[2:] for line in rest if line.startswith("+ ")]
        reason = " ".join(line for line in rest if not line.startswith(("- ", "+ ")))
        if len(old) != 1 or len(new) != 1 or not reason:
            raise ValueError(f"equivalent.txt: expected '-', '+' and a reason: {place}")
        found[file, function, plain(old[0]), plain(new[0])] = reason
    return found
