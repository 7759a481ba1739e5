"""The lists of `make` and `make words`, and the parts of tools/c.mk that another tool reads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tools.mutants import builder

PROJECT = Path(__file__).resolve().parents[2]
MAKEFILES = (PROJECT / "Makefile", PROJECT / "tools" / "c.mk")

TARGET = re.compile(r"^make ([\w-]+)(?: +(\S.*))?$")


def listed(*words: str) -> list[str]:
    command = ["make", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def targets(lines: list[str]) -> list[str]:
    return [found[1] for line in lines if (found := TARGET.match(line))]


def phony() -> set[str]:
    text = "".join(path.read_text("utf-8") for path in MAKEFILES).replace("\\\n", " ")
    return set(" ".join(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)).split())


def test_make_alone_shows_twelve_targets_with_one_line_each_and_the_word_for_all() -> None:
    lines = [line for line in listed() if line]
    found = [TARGET.match(line) for line in lines]
    assert len(lines) == 13
    assert all(one and one[2] for one in found)
    assert targets(lines)[-1] == "words"
    assert max(map(len, lines)) <= 100


def test_make_words_lists_every_target_once() -> None:
    assert sorted(targets(listed("words"))) == sorted(phony() - {"help", "words"})


def test_the_mutants_are_linked_with_the_functions_that_the_makefile_wraps() -> None:
    plan = listed("-n", "-B", "sanitize-c")
    linked = next(line for line in plan if "--wrap" in line)
    flags = re.findall(r"-Wl,--wrap=\w+", linked)
    assert flags
    assert builder._c_link(PROJECT) == flags
