"""Draws the plots of a report with matplotlib. The same results give the same bytes.

Never decides which plots a report has: `report` does.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.results import METRICS, MORE_IS_BETTER, Results, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"picowsgi": "#c2410c", "peer": "#475569", "limit": "#b6c2d1"}
_MARKS = "oshD^vP*X<>pd"
_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
#: The most peers that fit in a plot with many scenarios.
_PEERS_MOST = 8


def render(draw: Callable[[Figure], None], size: tuple[float, float]) -> dict[str, bytes]:
    """Return the drawing of `draw` as the bytes of a file, by its suffix."""
    with mpl.rc_context(
        {
            "svg.hashsalt": "bench",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        files = {}
        for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=130, metadata=metadata)
            files[suffix] = buffer.getvalue()
    return files


def bars(results: Results, scenario: str, metric: str) -> dict[str, bytes]:
    """Draw a metric of all servers in a scenario, the best first, with the spread of the rounds."""
    what, unit, divisor = METRICS[metric]
    rows: list[tuple[Summary, str]] = []
    for server in results.servers:
        found = results.summary(scenario, server, metric)
        if found is not None:
            rows.append((found, server))
    rows.sort(key=lambda row: row[0].median, reverse=metric not in MORE_IS_BETTER)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        values = [found.median / divisor for found, _ in rows]
        errors = [found.spread * found.median / divisor for found, _ in rows]
        colours = [_COLOURS[results.kind(server)] for _, server in rows]
        axes.barh(
            [server for _, server in rows],
            values,
            xerr=errors,
            color=colours,
            error_kw={"ecolor": "#0f172a", "capsize": 2, "elinewidth": 0.8},
        )
        for at, (value, error) in enumerate(zip(values, errors, strict=True)):
            axes.annotate(
                f"{value:.3g}" if value < 1000 else f"{value:,.0f}",
                (value + error, at),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{what}, {unit}")
        axes.set_title(results.data["scenarios"][scenario]["title"], loc="left", fontsize=10)

    return render(draw, (8, 1.1 + 0.26 * len(rows)))


def overview(results: Results, scenarios: Sequence[str], server: str) -> dict[str, bytes]:
    """Draw the CPU time of the fastest peers in each scenario, as multiples of that of `server`."""
    peers = _fastest(results, scenarios)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, peer in enumerate(peers):
            points = []
            for at, scenario in enumerate(reversed(scenarios)):
                ratio = results.ratio(scenario, "cpu", peer, server)
                if ratio is not None:
                    points.append((ratio.median, at))
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    _MARKS[number % len(_MARKS)],
                    label=peer,
                    markersize=6,
                    alpha=0.85,
                )
        axes.axvline(1, color=_COLOURS["picowsgi"], linewidth=1.5)
        axes.set_yticks(range(len(scenarios)), list(reversed(scenarios)))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel(f"CPU time for one request, {server} = 1; to the right: needs more")
        if peers:
            figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)

    return render(draw, (8, 1.6 + 0.3 * len(scenarios)))


def latencies(results: Results, scenario: str) -> dict[str, bytes]:
    """Draw the percentiles of latency of all servers in a scenario."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, server in enumerate(results.servers):
            points = _percentiles(results, scenario, server)
            if points:
                ours = results.kind(server) == "picowsgi"
                axes.plot(
                    *zip(*points, strict=True),
                    marker=_MARKS[number % len(_MARKS)],
                    markersize=4,
                    linewidth=2.2 if ours else 1,
                    color=_COLOURS["picowsgi"] if ours else None,
                    linestyle="--" if server != "picowsgi" and ours else "-",
                    label=server,
                )
        _log_latency(axes)
        axes.set_title(results.data["scenarios"][scenario]["title"], loc="left", fontsize=10)
        if axes.lines:
            figure.legend(loc="outside right upper", frameon=False, fontsize=8)

    return render(draw, (8, 4.5))


def _percentiles(results: Results, scenario: str, server: str) -> list[tuple[str, float]]:
    points = []
    for metric in _PERCENTILES:
        found = results.summary(scenario, server, metric)
        if found is not None:
            points.append((metric, max(found.median, 1)))
    return points


def _log_latency(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{value / 1000:g} ms" if value >= 1000 else f"{value:g} µs"
    )
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel("latency")


def _fastest(results: Results, scenarios: Sequence[str]) -> list[str]:
    """Return the peers that are nearest to the best, over all scenarios with a result of them."""
    distances: dict[str, list[float]] = {}
    for scenario in scenarios:
        best = results.best(scenario, "cpu", results.peers())
        for peer in results.peers():
            if best is not None and (ratio := results.ratio(scenario, "cpu", peer, best)):
                distances.setdefault(peer, []).append(ratio.median)
    return sorted(distances, key=lambda peer: sorted(distances[peer])[len(distances[peer]) // 2])[
        :_PEERS_MOST
    ]
