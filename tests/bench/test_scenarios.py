"""The scenarios of the benchmark whose application waits or computes on threads."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bench import exchanges
from bench.apps import plain
from bench.cli import main
from bench.results import MORE_IS_BETTER, Results
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS
from support.bench_sample import answer, results, run

if TYPE_CHECKING:
    from collections.abc import Callable

THREADED = [name for name, scenario in SCENARIOS.items() if scenario.threads > 1]


# ---------------------------------------------------------------- the tables


def test_the_list_has_every_scenario_that_was_asked_for() -> None:
    expected = """wait_300us wait_1ms wait_1ms_4 wait_1ms_256 wait_2ms wait_5ms mixed database
        postgres compute_100us compute_1ms sleep"""
    assert set(expected.split()) == set(THREADED)
    assert {SCENARIOS[name].threads for name in THREADED} == {16}


@pytest.mark.parametrize("name", THREADED)
def test_the_readme_of_the_benchmarks_has_every_scenario_with_threads(name: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "bench" / "README.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in row for row in rows), f"expected a row for {name}"


def test_a_server_without_a_number_of_threads_says_what_it_uses_instead() -> None:
    for server in SERVERS.values():
        takes_threads = "{threads}" in server.command or "numthreads={threads}" in str(
            server.command
        )
        assert (takes_threads or server.kind == "limit" or "16" in server.command) is not bool(
            server.concurrency
        ), server.name
    assert SERVERS["bjoern"].concurrency == SERVERS["fastpysgi"].concurrency == "one thread"


@pytest.mark.parametrize(
    ("name", "ideal"),
    [
        ("wait_300us", 16 / 0.0003),
        ("wait_1ms", 16_000),
        ("wait_1ms_4", 4_000),
        ("wait_1ms_256", 16_000),
        ("wait_2ms", 8_000),
        ("wait_5ms", 3_200),
        ("mixed", 6_400),
        ("database", 16_000),
        ("sleep", 320),
        ("postgres", 0),
        ("compute_1ms", 0),
        ("hello", 0),
    ],
)
def test_the_ideal_is_threads_divided_by_the_mean_wait(name: str, ideal: float) -> None:
    assert SCENARIOS[name].ideal == pytest.approx(ideal)


def test_mixed_requests_come_in_the_same_order_each_time() -> None:
    sent = exchanges.mixed()
    assert [each.request for each in sent] == [each.request for each in exchanges.mixed()]
    counts = Counter(int(each.request.split()[1][1:]) for each in sent)
    assert counts == {0: 400, 1000: 500, 20_000: 100}
    assert len({len(each.content) for each in sent}) == 1  # type: ignore[arg-type]
    first = Counter(int(each.request.split()[1][1:]) for each in sent[:100])
    assert first.keys() == counts.keys(), "expected a mix, not one kind after the other"


# ---------------------------------------------------------------- applications


def test_the_application_waits_as_long_as_the_path_asks() -> None:
    begin = time.monotonic()
    assert answer(plain.wait, "/20000") == b"waited  20000 us\n"
    assert time.monotonic() - begin >= 0.02


def test_an_application_that_does_not_wait_does_not_yield(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        plain.time, "sleep", lambda seconds: pytest.fail("the application to sleep")
    )
    assert answer(plain.wait, "/0") == b"waited      0 us\n"


def test_the_work_of_compute_is_a_number_of_rounds_and_not_a_time() -> None:
    loops = {exchange.request.split()[1] for exchange in exchanges.compute(plain.LOOPS_1MS)()}
    assert loops == {b"/15000"}
    assert answer(plain.compute, "/3") == b"%10d\n" % 33
    assert plain.LOOPS_1MS == 10 * plain.LOOPS_100US


# ---------------------------------------------------------------- report


def test_a_greater_share_is_better() -> None:
    assert "share" in MORE_IS_BETTER


@pytest.mark.unsanitized  # matplotlib's own code is slow there, and not ours to check
def test_a_report_orders_the_servers_by_throughput_in_scenarios_with_threads(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    path = tmp_path / "results.json"
    results(
        [
            run("mixed", "bjoern", 1, 20.0, rate=400, share=0.0625),
            run("mixed", "picowsgi", 1, 40.0, rate=6000, share=0.9375),
            run("postgres", "picowsgi", 1, 40.0, rate=3000),
            run("hello", "bjoern", 1, 10.0),
        ],
        left_out={"database": "it does not compile"},
    ).write(path)
    made = CliRunner().invoke(main, ["report", str(path)])
    assert made.exit_code == 0, made.output
    text = (tmp_path / "results" / "report.md").read_text()
    mixed = text.partition("### mixed")[2].partition("###")[0]
    assert "the ideal is 6,400 requests a second" in mixed
    rows = [line for line in mixed.splitlines() if line.startswith("| ")]
    assert "share of the ideal throughput, % | CPU time" in rows[0]
    assert "latency, 99th percentile" in rows[0]
    assert rows[2].startswith("| picowsgi | 6,000 ± 0.0% | 1.00 | 93.8 | 40 |")
    assert rows[3].startswith("| bjoern | 400 ± 0.0% | 15.00 | 6.25 | 20 |")
    assert rows[3].endswith("| one thread |")
    postgres = text.partition("### postgres")[2].partition("###")[0]
    assert "32 connections, 16 threads." in postgres
    assert "ideal" not in postgres
    hello = text.partition("### hello")[2].partition("###")[0]
    assert "one thread" not in hello
    assert "connections, " not in hello.partition("\n")[2]
    assert "These scenarios were left out:\n\n- database: it does not compile" in text


@pytest.mark.unsanitized
@pytest.mark.parametrize(("metric", "last"), [("rate", "granian"), ("cpu", "bjoern")])
def test_a_plot_shows_the_best_server_at_the_top(
    metric: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    from matplotlib.figure import Figure

    from bench import plots

    drawn: list[str] = []

    def render(draw: Callable[[Figure], None], _: object) -> dict[str, bytes]:
        figure = Figure()
        draw(figure)
        drawn.extend(label.get_text() for label in figure.axes[0].get_yticklabels())
        return {}

    monkeypatch.setattr(plots, "render", render)
    sample = results(
        [run("mixed", "bjoern", 1, 20.0, rate=400), run("mixed", "granian", 1, 40.0, rate=6000)]
    )
    plots.bars(sample, "mixed", metric)
    assert drawn[-1] == last


def test_results_from_before_these_scenarios_can_still_be_read(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install -e '.[bench]'")
    sample = results([run("sleep", "picowsgi", 1, 40.0)])
    data = json.loads(json.dumps(sample.data))
    del data["left_out"], data["scenarios"]["sleep"]["ideal"]
    del data["servers"]["picowsgi"]["concurrency"]
    Results(data).write(tmp_path / "results.json")
    made = CliRunner().invoke(main, ["report", str(tmp_path / "results.json")])
    assert made.exit_code == 0, made.output
