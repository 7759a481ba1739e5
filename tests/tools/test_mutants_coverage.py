"""`make coverage` names the lines and branches that no test reaches."""

from __future__ import annotations

from pathlib import Path

from tools.mutants.coverage_page import from_coverage, from_gcov, page


def line(number: int, count: int, *branches: int) -> dict[str, object]:
    taken = [{"count": one, "fallthrough": False, "throw": False} for one in branches]
    return {"line_number": number, "count": count, "branches": taken}


def test_lines_that_one_program_reaches_count_as_reached() -> None:
    first = {"files": [{"file": "./csrc/a.c", "lines": [line(1, 0), line(2, 3, 3, 0), line(3, 0)]}]}
    second = {"files": [{"file": "csrc/a.c", "lines": [line(1, 5), line(2, 1, 0, 0), line(3, 0)]}]}
    system = {"files": [{"file": "/usr/include/a.h", "lines": [line(1, 0)]}]}
    found = from_gcov([first, second, system])
    assert set(found) == {"csrc/a.c"}
    one = found["csrc/a.c"]
    assert (one.lines, one.missing) == (3, {3})
    assert (one.branches, one.taken, one.partial) == (2, 1, {2: 1})


def test_the_page_names_lines_and_branches(tmp_path: Path) -> None:
    (tmp_path / "src" / "picowsgi").mkdir(parents=True)
    (tmp_path / "src" / "picowsgi" / "a.py").write_text("if a:\n    b()\nc()\n")
    summary = {"num_statements": 3, "num_branches": 2, "covered_branches": 1}
    file = {"summary": summary, "missing_lines": [2], "missing_branches": [[1, 2], [2, 3]]}
    text = page(from_coverage({"files": {f"{tmp_path}/src/picowsgi/a.py": file}}), tmp_path)
    assert "lines  66.7 %  branches  50.0 %" in text
    assert "     1 < if a:\n     2 -     b()\n" in text
    assert "c()" not in text
