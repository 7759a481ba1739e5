"""tools/words.py: the words that it finds, the files that it reads, and its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import words

CODE = Path("src/picowsgi/example.py")
SCRIPT = words.PROJECT / "tools" / "words.py"


def found(text: str, path: Path = CODE) -> list[tuple[int, str]]:
    return [(one.line, one.word) for one in words.find(path, text)]


def test_a_word_is_found_in_any_case_with_its_line_and_its_replacement() -> None:
    [one] = words.find(CODE, "# first\n# Somebody waits.\n")
    assert str(one).startswith("src/picowsgi/example.py:2: Somebody: write name the actor")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer",
        "a forbearance",
        "def beard():",
        "lessons",
        "a newborn",
        "the whole",
    ],
)
def test_a_part_of_another_word_is_not_found(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "a worker without a sign of life",
        "# a worker without a sign\n    # of life",
        "/* a worker without a sign of\n * life */",
        "> a sign\n> of life",
        "a  sign of\tlife",
        "def test_a_worker_without_a_sign_of_life() -> None:",
        "#define PW_SIGN_OF_LIFE 1",
    ],
)
def test_a_phrase_is_found_across_the_lines_of_a_comment_and_in_a_name(text: str) -> None:
    assert [word.lower() for _, word in found(text)] == ["sign of life"]


@pytest.mark.parametrize("path", ["csrc/a.c", "src/a.py", "tests/a.py", "docs/a.md", "tools/a.py"])
def test_the_list_is_the_same_for_code_tests_and_pages(path: str) -> None:
    assert found("nobody waits", Path(path)) == [(1, "nobody")]


def test_an_exception_holds_for_its_word_in_its_file_alone() -> None:
    name, word, _ = words.EXCEPTIONS[0]
    assert found(f"{word} and somebody", Path(name)) == [(1, "somebody")]
    assert found(f"{word}", CODE) == [(1, word)]


def test_every_exception_and_every_skipped_file_is_needed() -> None:
    for name, word, reason in words.EXCEPTIONS:
        assert word in (words.PROJECT / name).read_text("utf-8")
        assert reason
    for name in ("tools/words.py", "tests/tools/test_words.py", "docs/benchmarks"):
        assert (words.PROJECT / name).exists()


def test_code_tests_pages_and_the_build_are_read_and_files_of_other_authors_are_not() -> None:
    paths = {path.as_posix() for path in words.files()}
    assert {"README.md", "Makefile", "tools/c.mk", "docs/index.md", "docs/request.svg"} <= paths
    assert {"src/picowsgi/server.py", "csrc/api.h", "tests/conftest.py"} <= paths
    assert {"bench/README.md", "examples/function.py", "examples/container/Containerfile"} <= paths
    assert not any(path.startswith(("csrc/vendor", ".venv", "build")) for path in paths)
    assert "tools/words.py" not in paths


def test_the_command_names_the_place_and_fails(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "words.py").write_text(SCRIPT.read_text("utf-8"))
    (tmp_path / "README.md").write_text("Fine.\n\nWhoever reads this, reload it anew.\n")
    command = [sys.executable, str(tmp_path / "tools" / "words.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.partition(": write")[0] for line in done.stdout.splitlines()] == [
        "README.md:3: anew",
        "README.md:3: Whoever",
    ]
    (tmp_path / "README.md").write_text("Fine.\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
