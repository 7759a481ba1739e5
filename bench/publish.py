"""Updates the sections of the documentation that show results. Never measures.

A section begins with the mark `<!-- bench: NAME -->` and ends with `<!-- bench: end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import document, report
from bench.document import Items, Table
from bench.process import BenchError
from bench.results import METRICS, Results
from bench.scenarios import SCENARIOS
from bench.targets import TARGETS, judge

HOME = Path("docs/benchmarks")
PAGES = (Path("README.md"), Path("docs/benchmarks.md"))
#: The scenarios and the other servers of the short table, if they were measured.
_SCENARIOS = (
    *("hello", "fields", "varied", "close", "pipelined", "post_1k", "post_1m"),
    *("response_1m", "file_10m", "stream", "flask", "django"),
)
_OTHERS = ("bjoern", "fastpysgi", "granian", "gunicorn_gthread", "waitress", "nginx")
_SECTION = re.compile(r"(<!-- bench: ([a-z]+) -->\n).*?(<!-- bench: end -->)", re.DOTALL)


def publish(files: Sequence[Path], root: Path) -> list[Path]:
    """Copy the results below `root`, draw the plots, and update the pages. Return the new files.

    Each file has the results of another Python. Tables and plots of one Python show the first file.
    Raises BenchError if a page has an unknown mark.
    """
    from bench import plots  # slow to import

    found = [Results.read(file) for file in files]
    home = root / HOME
    home.mkdir(parents=True, exist_ok=True)
    written = []
    for results in found:
        written.append(home / f"python{_version(results)}.json")
        results.write(written[-1])
    first = found[0]
    closed = [name for name in first.scenarios if first.load(name) == "closed"]
    drawn = {
        "overview": plots.overview(first, closed, report.OURS),
        "hello": plots.bars(first, "hello", "cpu"),
        "memory": plots.bars(first, "hello", "memory_start"),
    }
    drawn |= {
        name: plots.latencies(first, name) for name in first.scenarios if first.load(name) == "rate"
    }
    for name, pictures in drawn.items():
        written.append(home / f"{name}.svg")
        written[-1].write_bytes(pictures["svg"])
    for page in PAGES:
        written.append(root / page)
        text = fill(written[-1].read_text("utf-8"), found)
        written[-1].write_text(text, "utf-8")
    return written


def published(root: Path) -> list[Results]:
    """Return the results in the documentation below `root`, in the order of `publish`."""
    files = (root / HOME).glob("python*.json")
    return [Results.read(file) for file in sorted(files, key=lambda file: (len(file.name), file))]


def fill(text: str, found: Sequence[Results]) -> str:
    """Return a page with new sections from these results."""
    return fill_sections(text, sections(found))


def fill_sections(text: str, made: Mapping[str, str]) -> str:
    """Return a page with new sections. Raises BenchError if it has an unknown mark."""

    def section(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise BenchError(f"unknown mark {match[2]!r}: expected one of {', '.join(made)}")
        return f"{match[1]}\n{made[match[2]]}\n{match[3]}"

    return _SECTION.sub(section, text)


def sections(found: Sequence[Results]) -> dict[str, str]:
    """Return the Markdown of each section by its name."""
    first = found[0]
    closed = [name for name in first.scenarios if first.load(name) == "closed"]
    return {
        "ratios": document.markdown([_ratios(first)]),
        "targets": document.markdown([_targets(found)]),
        "times": document.markdown([report.matrix(first, closed)]),
        "facts": document.markdown([Items(_facts(results)) for results in found]),
    }


def _facts(results: Results) -> list[str]:
    file = f"python{_version(results)}.json"
    return [*report.facts(results), f"all results: [{file}]({HOME.name}/{file})"]


def _ratios(results: Results) -> Table:
    """Return the ratios of picowsgi's CPU time to that of each other server."""
    others = [name for name in _OTHERS if name in results.servers]
    rows = []
    for scenario in _SCENARIOS:
        ratios = [results.ratio(scenario, "cpu", report.OURS, other) for other in others]
        if any(ratios):
            title = SCENARIOS[scenario].title  # the current title, also for old results
            rows.append([title, *("" if one is None else f"{one.median:.2f}" for one in ratios)])
    header = [
        f"{name} {results.data['servers'][name].get('version') or ''}".strip() for name in others
    ]
    return Table(("", *header), rows)


def _targets(found: Sequence[Results]) -> Table:
    rows = []
    for target in TARGETS:
        cells = []
        for results in found:
            outcome = judge(results, target)
            mark = {True: "", False: " ✗", None: ""}[outcome.met]
            cells.append(
                ""
                if outcome.ratio is None
                else f"{outcome.ratio:.2f} ± {outcome.spread:.0%} ({outcome.against}){mark}"
            )
        what = METRICS[target.metric][0]
        rows.append([target.scenario, what, f"{target.most:.2f}", *cells])
    header = ("scenario", "metric", "at most", *(f"Python {_version(one)}" for one in found))
    return Table(header, rows, text=frozenset({1}))


def _version(results: Results) -> str:
    return ".".join(results.data["python"]["version"].split(".")[:2])
