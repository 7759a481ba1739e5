"""Makes the tables and the plot of docs/scaling.md from simulated latencies. Never measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import curves, document
from bench.document import Table
from bench.publish import HOME, fill_sections
from bench.queues import POLICIES, Farm, quantile, simulate

PAGE = Path("docs/scaling.md")
INSTANCES = (1, 2, 4, 10, 32, 100, 1000)
UTILISATIONS = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
#: The columns of the tables. The plot has all of them.
SHOWN = (50, 60, 70, 80, 90, 95)
#: The number of instances at which the policies are compared.
COMPARED = 10
ONE_QUEUE = "one queue"
REQUESTS = 300_000
SEED = 1


@dataclass(frozen=True)
class Cell:
    """The simulated latency of one farm, as multiples of the mean duration of a request."""

    policy: str
    instances: int
    utilisation: int
    requests: int
    p50: float
    p99: float

    @property
    def text(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f}"


def run(policy: str, instances: int, utilisation: int, requests: int, seed: int) -> Cell:
    """Simulate one cell. `utilisation` is in percent."""
    if policy == ONE_QUEUE:
        farm = Farm(1, utilisation / 100, threads=instances)
    else:
        farm = Farm(instances, utilisation / 100, policy)
    count = farm.sample(requests)
    latencies = sorted(simulate(farm, count, seed))
    p50, p99 = (round(quantile(latencies, share), 4) for share in (0.5, 0.99))
    return Cell(policy, instances, utilisation, count, p50, p99)


def run_all(
    instances: Iterable[int] = INSTANCES,
    utilisations: Sequence[int] = UTILISATIONS,
    requests: int = REQUESTS,
    seed: int = SEED,
    say: Callable[[str], object] = lambda _: None,
) -> list[Cell]:
    """Simulate least connections for these numbers of instances, and all policies for COMPARED."""
    wanted = [("least connections", number) for number in instances]
    wanted += [
        (policy, COMPARED) for policy in (ONE_QUEUE, *POLICIES) if (policy, COMPARED) not in wanted
    ]
    cells = []
    for policy, number in wanted:
        say(f"{policy}, {number} instances")
        cells += [run(policy, number, share, requests, seed) for share in utilisations]
    return cells


def tables(cells: Sequence[Cell]) -> dict[str, Table]:
    """Return the tables of these cells, by the names of their sections on the page."""
    shares = [share for share in SHOWN if any(cell.utilisation == share for cell in cells)]
    found = {(cell.policy, cell.instances, cell.utilisation): cell.text for cell in cells}
    numbers = sorted({cell.instances for cell in cells if cell.policy == "least connections"})

    def row(title: str, policy: str, number: int) -> list[str]:
        return [title, *(found[policy, number, share] for share in shares)]

    columns = [f"{share} %" for share in shares]
    return {
        "instances": Table(
            ("instances", *columns),
            [row(f"{number:,}", "least connections", number) for number in numbers],
        ),
        "policies": Table(
            (f"{COMPARED} instances", *columns),
            [row(policy, policy, COMPARED) for policy in (ONE_QUEUE, *POLICIES)],
        ),
    }


def text(cells: Sequence[Cell]) -> str:
    """Return the tables as Markdown."""
    return document.markdown(tables(cells).values())


def plot(cells: Sequence[Cell]) -> str:
    """Return the plot of the 99th percentiles as SVG."""

    def line(name: str, policy: str, number: int) -> curves.Line:
        points = [
            (cell.utilisation, cell.p99)
            for cell in cells
            if (cell.policy, cell.instances) == (policy, number)
        ]
        return curves.Line(name, points)

    numbers = sorted({cell.instances for cell in cells if cell.policy == "least connections"})
    return curves.draw(
        "The 99th percentile of latency against utilisation",
        [
            curves.Panel(
                "least connections, by instances",
                [line(f"{number:,}", "least connections", number) for number in numbers],
            ),
            curves.Panel(
                f"{COMPARED} instances, by balancing",
                [line(policy, policy, COMPARED) for policy in reversed((ONE_QUEUE, *POLICIES))],
            ),
        ],
        ("utilisation, %", "p99, in mean durations of a request"),
    )


def write(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write scaling.json, scaling.md and scaling.svg; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "json": json.dumps([asdict(cell) for cell in cells], indent=0) + "\n",
        "md": text(cells),
        "svg": plot(cells),
    }
    written = []
    for suffix, content in files.items():
        written.append(folder / f"scaling.{suffix}")
        written[-1].write_text(content, "utf-8")
    return written


def published(root: Path) -> list[Cell]:
    """Return the cells in the documentation below `root`."""
    data = json.loads((root / HOME / "scaling.json").read_text("utf-8"))
    return [Cell(**one) for one in data]


def fill(page: str, cells: Sequence[Cell]) -> str:
    """Return the page with new tables."""
    made = {name: document.markdown([table]) for name, table in tables(cells).items()}
    return fill_sections(page, made)


def publish(cells: Sequence[Cell], root: Path) -> list[Path]:
    """Update the page and its plot below `root`; return the files that were written."""
    written = [path for path in write(cells, root / HOME) if path.suffix != ".md"]
    (root / HOME / "scaling.md").unlink()  # the page has these tables
    page = root / PAGE
    page.write_text(fill(page.read_text("utf-8"), cells), "utf-8")
    return [*written, page]
