"""`python -m bench simulate` prints the tables of docs/scaling.md, and draws its plot."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import curves, scaling
from bench.cli import main
from bench.publish import HOME

PROJECT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def simulate(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["simulate", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def cells_of(markdown: str) -> dict[tuple[str, str], str]:
    """Return the cells of all tables by their row and column."""
    found = {}
    header: list[str] = []
    for line in markdown.splitlines():
        words = [word.strip() for word in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = words
        elif not words[0].startswith("---"):
            found |= {
                (words[0], column): cell for column, cell in zip(header[1:], words[1:], strict=True)
            }
    return found


@pytest.mark.timeout(240)  # it computes for five seconds, and other programs may run
def test_the_page_shows_what_the_command_prints() -> None:
    page = cells_of((PROJECT / scaling.PAGE).read_text("utf-8"))
    # The other cells need minutes. Each cell depends on its own numbers and the seed alone.
    printed = cells_of(simulate("--instances", "1", "--utilisations", "50"))
    assert len(printed) == 6
    for at, cell in printed.items():
        assert page.get(at) == cell, f"expected what the command prints, {cell}, at {at}"


def test_the_page_and_the_plot_agree_with_the_results_beside_them() -> None:
    cells = scaling.published(PROJECT)
    page = (PROJECT / scaling.PAGE).read_text("utf-8")
    for name in scaling.tables(cells):
        assert f"<!-- bench: {name} -->" in page
    assert scaling.fill(page, cells) == page, "expected the text that --publish writes"
    assert (PROJECT / HOME / "scaling.svg").read_text("utf-8") == scaling.plot(cells)
    assert "benchmarks/scaling.svg" in page


def test_the_published_results_have_every_cell() -> None:
    cells = scaling.published(PROJECT)
    found = {(cell.policy, cell.instances) for cell in cells}
    assert {("least connections", number) for number in scaling.INSTANCES} <= found
    assert len(found) == len(scaling.INSTANCES) + 3
    assert len(cells) == len(found) * len(scaling.UTILISATIONS)


def test_the_command_writes_the_tables_the_plot_and_the_results(tmp_path: Path) -> None:
    arguments = ("--instances", "1,3", "--utilisations", "50,60", "--requests", 500)
    printed = simulate(*arguments, "--output", tmp_path)
    assert (tmp_path / "scaling.md").read_text() == printed
    results = json.loads((tmp_path / "scaling.json").read_text())
    assert len(results) == 2 * (2 + 4)
    drawing = ET.parse(tmp_path / "scaling.svg").getroot()
    assert len(list(drawing.iter(f"{SVG}polyline"))) == 3 + 4
    names = {text.text for text in drawing.iter(f"{SVG}text")}
    assert {"1", "3", "one queue", "random", "utilisation, %"} <= names
    assert simulate(*arguments) == printed
    assert simulate(*arguments, "--seed", 2) != printed


def test_publish_fills_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / scaling.PAGE
    page.parent.mkdir()
    page.write_text("# Title\n\n<!-- bench: policies -->\nold\n<!-- bench: end -->\n\nmore\n")
    simulate("--instances", "2", "--utilisations", "50", "--requests", 500, "--publish")
    text = page.read_text()
    assert "old" not in text
    assert "| one queue | " in text
    assert text.endswith("<!-- bench: end -->\n\nmore\n")
    assert {path.name for path in (tmp_path / HOME).iterdir()} == {"scaling.json", "scaling.svg"}


@pytest.mark.parametrize(
    ("option", "value"), [("--instances", "0"), ("--instances", "a,1"), ("--utilisations", "100")]
)
def test_a_number_out_of_range_is_an_error(option: str, value: str) -> None:
    result = CliRunner().invoke(main, ["simulate", option, value])
    assert result.exit_code == 2
    assert "expected numbers from 1 to" in result.output


def test_a_line_rises_with_its_values_and_names_do_not_cover_each_other() -> None:
    lines = [curves.Line(name, [(50, 5), (95, 10 + number)]) for number, name in enumerate("abc")]
    drawing = ET.fromstring(curves.draw("t", [curves.Panel("p", lines)], ("x", "y")))
    for line in drawing.iter(f"{SVG}polyline"):
        (_, first), (_, last) = (point.split(",") for point in line.attrib["points"].split())
        assert float(last) < float(first), "expected a larger value to be higher"
    heights = sorted(
        float(text.attrib["y"]) for text in drawing.iter(f"{SVG}text") if text.text in set("abc")
    )
    assert min(b - a for a, b in pairwise(heights)) >= 14
