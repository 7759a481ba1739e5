"""The numbers in README.md and docs/ come from the results files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.process import BenchError
from bench.publish import PAGES, fill, publish, published
from support.bench_sample import results, run

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_published_pages_agree_with_the_results(page: Path) -> None:
    text = (PROJECT / page).read_text("utf-8")
    assert "<!-- bench: ratios -->" in text, f"expected {page} to have the table of ratios"
    assert fill(text, published(PROJECT)) == text, "expected the text that `bench publish` writes"


def sample(root: Path, version: str, cpu: float) -> Path:
    runs = [run("hello", "picowsgi", 1, cpu), run("hello", "bjoern", 1, 10.0)]
    runs += [run("rate_2000", server, 1, 10.0) for server in ("picowsgi", "bjoern")]
    found = results(runs)
    found.data["python"]["version"] = version
    found.write(root / f"{version}.json")
    return root / f"{version}.json"


@pytest.mark.unsanitized  # matplotlib has C++ in it
def test_publish_fills_the_pages_and_draws_the_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    marks = "# Title\n\n<!-- bench: ratios -->\nold\n<!-- bench: end -->\n\nmore\n"
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(marks)
    (tmp_path / "docs/benchmarks.md").write_text(
        f"{marks}<!-- bench: targets -->\n<!-- bench: end -->"
    )
    written = publish([sample(tmp_path, "3.9.1", 8.0), sample(tmp_path, "3.13.0", 9.0)], tmp_path)

    readme = (tmp_path / "README.md").read_text()
    assert "old" not in readme
    assert readme.endswith("<!-- bench: end -->\n\nmore\n")
    assert "| hello world, 64 connections kept alive | 0.80 |" in readme
    targets = (tmp_path / "docs/benchmarks.md").read_text()
    assert "Python 3.9 | Python 3.13" in targets
    assert "| 0.80 ± 0% (bjoern) | 0.90 ± 0% (bjoern) ✗ |" in targets
    plots = {path.name for path in written if path.suffix == ".svg"}
    assert plots == {"overview.svg", "hello.svg", "memory.svg", "rate_2000.svg"}
    found = published(tmp_path)
    assert [one.data["python"]["version"] for one in found] == ["3.9.1", "3.13.0"]


def test_a_mark_without_data_is_an_error() -> None:
    with pytest.raises(BenchError, match="unknown mark 'other': expected one of ratios,"):
        fill(
            "<!-- bench: other -->\n<!-- bench: end -->",
            [results([run("hello", "bjoern", 1, 1.0)])],
        )
