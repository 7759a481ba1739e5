"""tools/prose.py finds the prose of a page, and the sentences that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import prose

PAGE = """\
# A heading: Who reads this

The server answers.
It does so at once. Who waits is served.

    Who is code?

- An item, with `Who is code. Who` in it,
  over two lines. What runs, runs.
- Who asks?

```python
Who = "code"
```

| option | What it says |
|---|---|
| `--a` | Where it is. |

<!-- bench: ratios -->
| Who measured. Who cares. |
<!-- bench: end -->
"""


def openings(text: str) -> list[tuple[int, str]]:
    return [
        (problem.line, problem.text.partition("with ")[2])
        for problem in prose.check_sentences("x.md", text)
        if problem.rule == "opening"
    ]


def test_a_sentence_that_begins_with_a_clause_is_found_in_its_line() -> None:
    assert openings(PAGE) == [
        (4, "Who: Who waits is served."),
        (9, "What: What runs, runs."),
        (16, "What: What it says"),
        (18, "Where: Where it is."),
    ]


def test_a_question_and_a_heading_may_begin_like_that() -> None:
    assert openings("# What you get\n\nWhat is it? It is a server.\n") == []


def test_code_addresses_and_marks_are_not_words() -> None:
    [block] = prose.blocks(
        "A **bold** [link](https://x.test/a b) to `some code` and <http://x/>.\n"
    )
    assert "code" not in block.text
    assert "x.test" not in prose.blocks("See [it](https://x.test/a).\n").__next__().text
    assert "*" not in block.text


def test_a_sentence_with_too_many_words_is_found_and_two_short_ones_are_not() -> None:
    half = "word " * (prose.MOST_WORDS // 2) + "word"
    [problem] = prose.check_sentences("x.md", f"Fine.\n\n{half}, {half}.\n")
    assert (problem.line, problem.rule) == (3, "length")
    assert list(prose.check_sentences("x.md", f"{half}. {half}.\n")) == []


def test_proselint_checks_the_prose_and_not_the_code(tmp_path: Path) -> None:
    pytest.importorskip("proselint", reason="needs proselint: pip install -e '.[lint]'")
    (tmp_path / "bad.md").write_text(
        "# Title\n\nThis is fine.\nIt is a very unique server.\n\n    a very unique code\n"
    )
    found = {(one.line, one.rule) for one in prose.check(Path("bad.md"), tmp_path)}
    assert found == {(4, "uncomparables"), (4, "weasel_words.very")}
    assert str(prose.check(Path("bad.md"), tmp_path)[0]).startswith("bad.md:4: ")


def test_a_name_and_a_disabled_check_are_no_problem() -> None:
    pytest.importorskip("proselint", reason="needs proselint: pip install -e '.[lint]'")
    text = 'Here "waitress" is a server, and a waitress serves.\n'
    assert list(prose.check_proselint("x.md", text)) == []


def test_all_pages_are_read() -> None:
    names = {path.as_posix() for path in prose.pages()}
    assert {"README.md", "CHANGELOG.md", "docs/index.md", "docs/api.md", "bench/README.md"} <= names
