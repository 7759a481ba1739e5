"""The format of the corpus: valid and invalid cases for its parser, and its exports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from wire.corpus import CASES, CorpusError, Request, load_cases, parse_case, unescape
from wire.export import export

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("plain", "plain"),
        (r"\r\n\t\0\\", "\r\n\t\0\\"),
        (r"\x00\x7f\xff", "\0\x7f\xff"),
        (r"a\x20", "a "),
        ('{"ab" * 3}', "ababab"),
        (r'x{"\r\n" * 2}y{"\"" * 2}', 'x\r\n\r\ny""'),
        ('{"a" * x}{"b"}', '{"a" * x}{"b"}'),
    ],
)
def test_a_spelling_has_one_meaning(text: str, meaning: str) -> None:
    assert unescape(text) == meaning


@pytest.mark.parametrize("text", ["a ", "a\t", "é", r"\q", r"\x1", r"\xzz", r"\xFF", "\\"])
def test_an_invisible_byte_is_refused(text: str) -> None:
    with pytest.raises(CorpusError):
        unescape(text)


def test_a_case_has_all_that_it_expects() -> None:
    case = parse_case(
        "# The rule.\n# The section.\n"
        "option: max_fields = 3\n"
        "request: POST /a\nPATH_INFO = /a\nHTTP_X absent\nHTTP_Y =\ncontent = hel\\xff\n"
        "or: 400|501\nstatus: 413\ninterim: 100\nthen: half-close\n"
        "\n"
        "POST /a HTTP/1.1\\r\\n\n\\r\\n\nhel\n\\xff\n",
        "kind",
        "rule",
    )
    assert case.id == "kind/rule"
    assert case.rule == "The rule. The section."
    assert case.data == b"POST /a HTTP/1.1\r\n\r\nhel\xff"
    assert case.options == {"max_fields": "3"}
    environ = {"PATH_INFO": "/a", "HTTP_X": None, "HTTP_Y": ""}
    assert case.requests == [Request("POST", "/a", environ, b"hel\xff")]
    assert (case.alternatives, case.statuses) == (("400", "501"), ("413",))
    assert case.closed
    assert case.interim
    assert case.half_close


@pytest.mark.parametrize(
    "text",
    [
        "status: 400\n\nGET\n",
        "# rule\n\nGET\n",
        "# rule\nstatus: 400\nGET\n",
        "# rule\nstatus: 400\n\nGET",
        "# rule\nstatus: 4000\n\nGET\n",
        "# rule\nstatus: 400\nPATH_INFO = /\n\nGET\n",
        "# rule\nrequest: GET\n\nGET\n",
        "# rule\nrequest: GET /\nsomething else\n\nGET\n",
        "# rule\nstatus: 400\n\nGET\n\nX\n",
    ],
)
def test_an_invalid_case_is_refused(text: str) -> None:
    with pytest.raises(CorpusError):
        parse_case(text)


def test_every_file_below_the_corpus_is_a_case_named_by_its_rule() -> None:
    files = {path for path in CASES.rglob("*") if path.is_file()}
    assert len(files) == len(list(load_cases()))
    assert [path for path in files if not re.fullmatch("[a-z0-9-]+[.]http", path.name)] == []


def test_no_two_cases_of_one_kind_are_equal() -> None:
    seen: dict[tuple[str, bytes, str, bool], str] = {}
    for case in load_cases():
        key = (case.kind, case.data, str(case.options), case.half_close)
        assert key not in seen, f"expected {case.id} to differ from {seen[key]}"
        seen[key] = case.id


def test_the_export_writes_the_bytes_of_every_case_and_an_index(tmp_path: Path) -> None:
    cases = list(load_cases())
    assert export(tmp_path) == len(cases)
    lines = [line.split("\t") for line in (tmp_path / "index.tsv").read_text("ascii").splitlines()]
    assert [line[0] for line in lines] == [f"{case.kind}-{case.name}.raw" for case in cases]
    assert {len(line) for line in lines} == {6}
    assert [(tmp_path / line[0]).read_bytes() for line in lines] == [case.data for case in cases]
