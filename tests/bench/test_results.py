"""The benchmark computes ratios, targets, comparisons and reports from its numbers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bench import check, compare
from bench.cli import main
from bench.process import BenchError
from bench.results import METRICS, Results, summary
from bench.run import rotated
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS
from bench.targets import TARGETS, Target, judge
from support import PYPY
from support.bench_sample import results, run

if TYPE_CHECKING:
    from pathlib import Path


def three_rounds(
    server: str, cpus: list[float], scenario: str = "hello"
) -> list[dict[str, object]]:
    return [run(scenario, server, number, cpu) for number, cpu in enumerate(cpus, 1)]


# ---------------------------------------------------------------- numbers


def test_a_summary_is_the_median_and_half_the_distance_of_the_extremes() -> None:
    found = summary([12.0, 10.0, 9.0])
    assert (found.median, found.spread, found.count) == (10.0, pytest.approx(0.15), 3)


def test_a_ratio_is_computed_within_each_round_before_the_median() -> None:
    """The machine was half as fast in the second round, for both: the ratio does not change."""
    sample = results(
        three_rounds("picowsgi", [8.0, 16.0, 8.8]) + three_rounds("bjoern", [10.0, 20.0, 10.0])
    )
    ratio = sample.ratio("hello", "cpu", "picowsgi", "bjoern")
    assert ratio is not None
    assert ratio.median == pytest.approx(0.80)
    assert ratio.spread == pytest.approx(0.05)


def test_a_round_that_only_one_server_has_is_not_compared() -> None:
    sample = results(three_rounds("picowsgi", [8.0, 9.0]) + three_rounds("bjoern", [10.0]))
    ratio = sample.ratio("hello", "cpu", "picowsgi", "bjoern")
    assert ratio is not None
    assert (ratio.median, ratio.count) == (pytest.approx(0.8), 1)


def test_a_void_run_also_drops_the_good_rounds() -> None:
    sample = results(
        three_rounds("bjoern", [10.0, 10.0]),
        [{"scenario": "hello", "server": "bjoern", "round": 3, "reason": "status 500"}],
    )
    assert sample.summary("hello", "bjoern", "cpu") is None
    assert sample.void("hello", "bjoern") == "status 500"


def test_the_best_server_has_the_least_time_but_the_greatest_rate() -> None:
    sample = results(three_rounds("bjoern", [10.0]) + three_rounds("granian", [12.0]))
    assert sample.best("hello", "cpu", ["bjoern", "granian"]) == "bjoern"
    assert sample.best("hello", "rate", ["bjoern", "granian"]) == "bjoern"
    assert sample.best("hello", "cpu", ["waitress"]) is None


def test_results_are_the_same_after_a_write_and_a_read(tmp_path: Path) -> None:
    sample = results(three_rounds("picowsgi", [8.0]))
    sample.write(tmp_path / "new folder" / "results.json")
    assert Results.read(tmp_path / "new folder" / "results.json").data == sample.data
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(BenchError, match=r"results\.json"):
        Results.read(tmp_path / "results.json")


def test_a_different_server_comes_first_in_each_round() -> None:
    servers = list(SERVERS.values())[:3]
    first = [rotated(servers, number)[0] for number in range(4)]
    assert first == [*servers, servers[0]]
    assert sorted(server.name for server in rotated(servers, 2)) == sorted(
        server.name for server in servers
    )


# ---------------------------------------------------------------- targets


def test_a_target_is_judged_against_the_best_of_the_servers_that_it_names() -> None:
    sample = results(
        three_rounds("picowsgi", [8.0])
        + three_rounds("bjoern", [10.0])
        + three_rounds("fastpysgi", [20.0])
        + three_rounds("fastwsgi", [1.0])
    )
    outcome = judge(sample, Target("hello", "cpu", 0.8, ("bjoern", "fastpysgi", "granian")))
    assert (outcome.against, outcome.met) == ("bjoern", True)
    assert outcome.ratio == pytest.approx(0.8)
    outcome = judge(sample, Target("hello", "cpu", 0.8))
    assert (outcome.against, outcome.met) == ("fastwsgi", False)
    assert judge(sample, Target("fields", "cpu", 0.8)).met is None


def test_every_target_names_a_known_scenario_and_known_servers() -> None:
    for target in TARGETS:
        assert target.scenario in SCENARIOS, target
        assert target.metric in METRICS, target
        assert {target.server, *target.against} <= SERVERS.keys(), target
        assert target.metric != "memory_start" or SCENARIOS[target.scenario].memory, target
    assert len(set(TARGETS)) == len(TARGETS)


# ---------------------------------------------------------------- comparison


def changes_of(before: list[float], after: list[float]) -> dict[str, str]:
    old, new = (results(three_rounds("picowsgi", cpus)) for cpus in (before, after))
    return {each.metric: each.verdict for each in compare.changes(old, new, "picowsgi")}


def test_a_server_is_slower_when_its_time_grew_by_more_than_the_noise() -> None:
    verdicts = changes_of([10.0, 10.1, 9.9], [11.0, 11.1, 10.9])
    assert (verdicts["cpu"], verdicts["rate"], verdicts["memory_peak"]) == ("slower",) * 2 + (
        "same",
    )
    assert changes_of([11.0, 11.1, 10.9], [10.0, 10.1, 9.9])["cpu"] == "faster"


def test_a_change_within_the_noise_does_not_count() -> None:
    assert changes_of([10.0, 11.0, 9.0], [10.8, 11.5, 10.1])["cpu"] == "same"


def test_one_round_has_no_noise_and_is_allowed_more() -> None:
    assert changes_of([10.0], [10.9])["cpu"] == "same"
    assert changes_of([10.0], [11.5])["cpu"] == "slower"


def test_ratios_are_compared_when_another_server_is_named() -> None:
    """The machine is slower, for both."""
    old = results(three_rounds("picowsgi", [8.0] * 3) + three_rounds("bjoern", [10.0] * 3))
    new = results(three_rounds("picowsgi", [16.0] * 3) + three_rounds("bjoern", [20.0] * 3))
    changes = compare.ratio_changes(old, new, "picowsgi", "bjoern")
    assert {each.verdict for each in changes} == {"same"}


def test_the_command_names_what_got_slower_and_exits_with_1(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    results(three_rounds("picowsgi", [10.0] * 3)).write(before)
    results(three_rounds("picowsgi", [12.0] * 3)).write(after)
    done = CliRunner().invoke(main, ["compare", str(before), str(after)])
    assert done.exit_code == 1
    assert re.search(r"hello \| CPU time.* \| 10 \| 12 \| \+20\.0% .*slower", done.output)
    same = CliRunner().invoke(main, ["compare", str(before), str(before)])
    assert same.exit_code == 0, same.output
    nothing = CliRunner().invoke(main, ["compare", str(before), str(after), "--server", "bjoern"])
    assert nothing.exit_code == 1
    assert "no result of bjoern in common" in nothing.output


# ---------------------------------------------------------------- report


@pytest.mark.skipif(PYPY, reason="matplotlib is not installed on PyPy: the harness needs CPython")
@pytest.mark.unsanitized  # matplotlib's own code is slow there, and not ours to check
def test_a_report_has_every_result_and_needs_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    calls = {"recvfrom": 1.0, "writev": 1.0}
    idle = {"memory_idle": 300.0, "memory_start": 1 << 24, "memory_end": 1 << 25}
    results(
        [
            run("hello", "picowsgi", 1, 8.0, memory_start=20 << 20, system_calls=calls),
            run("hello", "picowsgi", 2, 8.4, memory_start=20 << 20),
            run("hello", "bjoern", 1, 10.0, memory_start=10 << 20, keeps_alive=False),
            run("hello", "nginx", 1, 9.0),
            run("rate_2000", "picowsgi", 1, 8.0),
            run("idle", "picowsgi", 1, 8.0, **idle),
        ],
        [{"scenario": "hello", "server": "granian", "round": 1, "reason": "3 <wrong> answers"}],
        missing={"uwsgi": "it does not compile"},
    ).write(path)
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    made = CliRunner().invoke(main, ["report", str(path)])
    assert made.exit_code == 0, made.output
    folder = tmp_path / "results"
    text = (folder / "report.md").read_text()
    assert "| picowsgi | 8.2 ± 2.4% | 1.00 |" in text
    assert "| bjoern | 10 ± 0.0% | 0.80 |" in text
    assert "closes each connection" in text
    assert "- granian: 3 <wrong> answers" in text
    assert "- uwsgi: it does not compile" in text
    assert "| picowsgi | 2.0 | recvfrom 1.00, writev 1.00 |" in text
    assert (
        "| hello | CPU time for one request | nginx | nginx | 1.00 | 0.889 ± 0.0% | yes |" in text
    )
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert sorted(pictures) == [
        f"plots/{name}.svg" for name in ("hello", "idle", "memory", "overview", "rate_2000")
    ]
    for picture in pictures:
        assert (folder / picture).read_bytes().startswith(b"<?xml")
        png = (folder / picture).with_suffix(".png").read_bytes()
        assert png.startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == len(pictures)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources), sources
    assert "3 &lt;wrong&gt; answers" in page


def test_the_command_can_print_the_targets_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results(three_rounds("picowsgi", [12.0]) + three_rounds("bjoern", [10.0])).write(path)
    done = CliRunner().invoke(main, ["report", "--targets", str(path)])
    assert done.exit_code == 0, done.output
    assert "| bjoern | 0.80 | 1.200 ± 0.0% | no |" in done.output
    assert done.output.count("\n") == len(TARGETS) + 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


# ---------------------------------------------------------------- instruction counts

WHERE = "CPython 3.11.7, by GCC 12.2.0, glibc 2.36, x86_64 avx2"
ELSEWHERE = "CPython 3.11.9, by GCC 13.1.0 optimized, glibc 2.39, x86_64 avx2"
COUNTS = {**dict.fromkeys(check.COUNTED, 20000.0), check.REFERENCE: 50e6}
KEPT = {WHERE: {"versions": {}, "instructions": COUNTS}}


@pytest.mark.parametrize(
    ("change", "fails"), [(1.0, False), (1.04, False), (1.06, True), (0.5, False)]
)
def test_five_percent_more_instructions_fail_the_check(change: float, fails: bool) -> None:
    counts = {**COUNTS, "varied": 20000 * change}
    failed, lines = check.compare(counts, KEPT, WHERE)
    assert failed is fails, lines
    assert ("too many" in "\n".join(lines)) is fails


@pytest.mark.parametrize(("change", "fails"), [(1.10, False), (1.20, True)])
def test_on_another_machine_the_counts_are_compared_as_multiples_of_the_reference(
    change: float, fails: bool
) -> None:
    """All of this Python needs half of the instructions."""
    counts = {name: value / 2 for name, value in COUNTS.items()}
    counts["hello"] *= change
    failed, lines = check.compare(counts, KEPT, ELSEWHERE)
    assert failed is fails, lines
    assert f"no baseline for {ELSEWHERE}" in lines


@pytest.mark.parametrize(
    "where", [WHERE.replace("3.11.7", "3.14.0"), WHERE.replace("x86_64", "arm")]
)
def test_without_a_baseline_the_check_says_that_it_compared_nothing(where: str) -> None:
    failed, lines = check.compare({**COUNTS, "hello": 1e6}, KEPT, where)
    assert not failed
    assert lines[0].startswith("nothing was compared")


def test_the_baseline_has_every_measurement_that_is_counted() -> None:
    baseline = json.loads(check.BASELINE.read_text())
    assert baseline
    for where, entry in baseline.items():
        assert entry["instructions"].keys() == {*check.COUNTED, check.REFERENCE}, where


def test_the_dumps_of_callgrind_are_found_by_their_marks(tmp_path: Path) -> None:
    for number, mark in enumerate(("before", "hello"), 1):
        (tmp_path / f"counted.{number}").write_text(
            f"desc: Timerange: Basic block 0 - 5\ndesc: Trigger: Client Request: {mark}\n"
            f"events: Ir\nsummary: {number * 100}\n\nfn=(1) main\n0 1\n\ntotals: {number * 100}\n"
        )
    (tmp_path / "counted").write_text("desc: Trigger: Program termination\ntotals: 7\n")
    counts = check.read_counts(tmp_path)
    assert (counts["before"], counts["hello"]) == (100, 200)
