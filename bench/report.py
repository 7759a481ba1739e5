"""Writes the report of a results file: Markdown, plots as SVG and PNG, and one HTML page.

Never measures. Everything in the report comes from the results file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from bench import document
from bench.document import Block, Code, Heading, Items, Plot, Table, Text
from bench.results import METRICS, MORE_IS_BETTER, Results, Summary
from bench.targets import TARGETS, Outcome, judge

OURS = "picowsgi"

_METHOD = """\
Each measurement starts the server again. It sends requests over a raw socket and checks status,
headers, framing and body of the responses. Then it warms the server up, and loads it.

All results of a server in a scenario are void after a wrong response, an error under load, a number
of bytes that does not fit the right responses, or the end of a process. The report gives the
reason.

CPU time is the time of all processes of the server, from their CPU clocks, during the load, divided
by the number of responses.

Servers take turns within a round. A ratio is computed within one round, and the report shows the
median of the rounds. ± is half the distance of the extremes.

In a scenario with threads, each server gets as many as the scenario says, if it has an option for
threads (`{threads}` in its command line). The last column describes the other servers.

A service that the application needs, such as a database, runs on the processor of the load, and its
CPU time is not counted.

Latencies of the scenarios with a fixed rate count from the time when a request was due, not from
the time when it could be sent. The other latencies are those of a closed loop, at saturation.
"""


def write(results: Results, folder: Path) -> list[Path]:
    """Write report.md, report.html and plots/ into the folder. Return the first two paths."""
    from bench import plots  # slow to import, and not needed for `--targets`

    drawn: dict[str, dict[str, bytes]] = {}
    blocks: list[Block] = [*_head(results), *_targets(results)]
    closed = [name for name in results.scenarios if results.load(name) == "closed"]
    if closed and OURS in results.servers:
        drawn["overview"] = plots.overview(results, closed, OURS)
        blocks += [
            Heading("CPU time in all scenarios"),
            Text(
                "Each mark is a server's CPU time for one request as a multiple of picowsgi's in "
                "the same round (the median of the rounds). Of the peers, those that are nearest "
                "to the best are shown."
            ),
            Plot("overview", "CPU time of each server in each scenario, as multiples of picowsgi"),
            matrix(results, closed),
        ]
    for scenario in results.scenarios:
        kind = results.load(scenario)
        title = results.data["scenarios"][scenario]["title"]
        blocks += [Heading(f"{scenario}: {title}", 3)]
        if kind == "rate":
            drawn[scenario] = plots.latencies(results, scenario)
        else:
            drawn[scenario] = plots.bars(results, scenario, _metrics(results, scenario)[0])
        blocks += [*_load(results, scenario)]
        blocks += [Plot(scenario, f"{title}, all servers"), *_scenario(results, scenario)]
    if any(results.summary("hello", server, "memory_start") for server in results.servers):
        drawn["memory"] = plots.bars(results, "hello", "memory_start")
        blocks += [
            Heading("Memory"),
            Text(
                "The memory of all processes of a server after the start and a few requests. "
                "Memory that several processes share counts in proportion (PSS)."
            ),
            Plot("memory", "memory of each server after its start"),
        ]
    blocks += [*_system_calls(results), *_left_out(results), *_method(results)]

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plots").mkdir(exist_ok=True)
    for name, files in drawn.items():
        for suffix, data in files.items():
            (folder / "plots" / f"{name}.{suffix}").write_bytes(data)
    text, page = folder / "report.md", folder / "report.html"
    text.write_text(document.markdown(blocks), encoding="utf-8")
    svgs = {name: files["svg"] for name, files in drawn.items()}
    page.write_text(document.page(_title(results), blocks, svgs), encoding="utf-8")
    return [text, page]


def targets_text(results: Results) -> str:
    """Return only the table of the targets, as Markdown."""
    return document.markdown([_targets_table(results)]).rstrip()


def _title(results: Results) -> str:
    python = results.data["python"]
    return f"WSGI servers side by side, {python['implementation']} {python['version']}"


def _head(results: Results) -> list[Block]:
    return [Heading(_title(results), 1), Items(facts(results))]


def facts(results: Results) -> list[str]:
    """Return what was measured, where and when, as the items of a list."""
    data = results.data
    machine, settings, python = data["machine"], data["settings"], data["python"]
    rounds = max((run["round"] for run in data["runs"]), default=0)
    pinned = (
        f"the server on processor {settings['server_processor']}, the load on processor "
        f"{settings['load_processor']}"
        if settings["load_processor"] is not None
        else "server and load on the same processor, which distorts everything but CPU time"
    )
    found = [
        (
            f"{machine['processor']}, {machine['usable_processors']} processors"
            f"{', virtual' if machine['virtual'] else ''}; {machine['kernel']}, {machine['system']}"
        ),
        (
            f"{python['implementation']} {python['version']} "
            f"({python['compiler']}{', --enable-optimizations' if python['optimized'] else ''})"
        ),
        f"picowsgi at commit `{data['commit'][:12]}`{', with changes' if data['modified'] else ''}",
        (
            f"{rounds} of {settings['rounds']} rounds, {settings['duration']:g} s each after "
            f"{settings['warmup']:g} s of warm-up; {pinned}"
        ),
        f"started {data['started']}, "
        + (f"finished {data['finished']}" if data["finished"] else "interrupted"),
    ]
    if machine["load"] > 0.5:
        found.append(
            f"other programs were running at the start (load average {machine['load']:.1f}): "
            "trust the ratios more than the numbers"
        )
    return found


def _targets(results: Results) -> list[Block]:
    outcomes = [judge(results, target) for target in TARGETS]
    if all(outcome.ratio is None for outcome in outcomes):
        return []
    met = sum(outcome.met is True for outcome in outcomes)
    known = sum(outcome.met is not None for outcome in outcomes)
    return [
        Heading("Targets"),
        Text(
            f"picowsgi meets {met} of the {known} measured targets; there are {len(outcomes)} in "
            "all. A ratio is picowsgi's number divided by the best number of the other servers, "
            "within a round. The table shows the median of the rounds, and half the distance of "
            "the extremes."
        ),
        _targets_table(results),
    ]


def _targets_table(results: Results) -> Table:
    rows = [_target_row(judge(results, target)) for target in TARGETS]
    header = ("scenario", "metric", "against", "best", "at most", "measured", "met")
    return Table(header, rows, text=frozenset({1, 2, 3, 6}))


def _target_row(outcome: Outcome) -> list[str]:
    target = outcome.target
    against = ", ".join(target.against) or "all peers"
    measured = "" if outcome.ratio is None else f"{outcome.ratio:.3f} ± {outcome.spread:.1%}"
    word = {True: "yes", False: "no", None: "not measured"}[outcome.met]
    what = METRICS[target.metric][0]
    return [
        target.scenario,
        what,
        against,
        outcome.against or "",
        f"{target.most:.2f}",
        measured,
        word,
    ]


def matrix(results: Results, scenarios: list[str]) -> Table:
    """Return the table of the CPU time of every server in every scenario."""
    rows = []
    for scenario in scenarios:
        cells = [_value(results.summary(scenario, name, "cpu"), "cpu") for name in results.servers]
        rows.append([scenario, *cells])
    return Table(("µs", *results.servers), rows)


def _value(found: Summary | None, metric: str) -> str:
    if found is None:
        return ""
    value = found.median / METRICS[metric][2]
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _metrics(results: Results, scenario: str) -> list[str]:
    """Return the metrics of a scenario's table. The first one decides the order of the servers."""
    kind = results.load(scenario)
    if kind == "idle":
        return ["memory_idle", "memory_start", "memory_end"]
    if kind == "rate":
        return ["p50", "p90", "p99", "p99.9", "max", "cpu"]
    if results.threads(scenario) == 1:
        return ["cpu", "rate", "p50", "p99", "memory_peak"]
    # If the application waits, the number of threads matters more than the CPU time.
    shares = [results.summary(scenario, server, "share") for server in results.servers]
    share = ["share"] if any(shares) else []
    return ["rate", *share, "cpu", "p50", "p99", "memory_peak"]


def _load(results: Results, scenario: str) -> list[Block]:
    """Describe the load of a scenario with threads, and the best possible result."""
    threads = results.threads(scenario)
    if threads == 1:
        return []
    listed = f"{results.data['scenarios'][scenario]['connections']} connections, {threads} threads"
    if ideal := results.data["scenarios"][scenario].get("ideal"):
        listed += f"; the ideal is {ideal:,.0f} requests a second: all threads wait all the time"
    return [Text(f"{listed}.")]


def _scenario(results: Results, scenario: str) -> list[Block]:
    metrics = _metrics(results, scenario)
    rows = []
    for server in results.servers:
        found = [results.summary(scenario, server, metric) for metric in metrics]
        first = found[0]
        if first is None:
            continue
        cells = [_value(each, metric) for each, metric in zip(found, metrics, strict=True)]
        cells[0] += f" ± {first.spread:.1%}"
        ratio = (
            results.ratio(scenario, metrics[0], OURS, server) if OURS in results.servers else None
        )
        cells.insert(1, f"{ratio.median:.2f}" if ratio else "")
        rows.append((first.median, [server, *cells, _notes(results, scenario, server)]))
    rows.sort(key=lambda row: row[0], reverse=metrics[0] in MORE_IS_BETTER)
    names = [f"{METRICS[metric][0]}, {METRICS[metric][1]}" for metric in metrics]
    header = ["server", names[0], f"{OURS} to it", *names[1:], ""]
    blocks: list[Block] = []
    if rows:
        table = Table(header, [row for _, row in rows], text=frozenset({len(header) - 1}))
        blocks.append(table)
    voids = [
        f"{server}: {reason}"
        for server in results.servers
        if (reason := results.void(scenario, server)) is not None
    ]
    if voids:
        blocks += [Text("Void:"), Items(voids)]
    return blocks


def _notes(results: Results, scenario: str, server: str) -> str:
    for run in results.data["runs"]:
        if (run["scenario"], run["server"]) == (scenario, server):
            notes = []
            if not run["keeps_alive"] and scenario != "close":
                notes.append("closes each connection")
            if run["framing"] == "chunked":
                notes.append("chunked")
            concurrency = results.data["servers"][server].get("concurrency")
            if concurrency and results.threads(scenario) > 1:
                notes.append(concurrency)
            return ", ".join(notes)
    return ""


def _system_calls(results: Results) -> list[Block]:
    counted = [run for run in results.data["runs"] if run.get("system_calls")]
    if not counted:
        return []
    scenarios = [
        name for name in results.scenarios if any(run["scenario"] == name for run in counted)
    ]
    blocks: list[Block] = [
        Heading("System calls"),
        Text(
            "The number of system calls for one request, counted by strace in a separate load. "
            "strace slows a server down, so more connections are ready at a time, and there are "
            "fewer calls that wait for events."
        ),
    ]
    for scenario in scenarios:
        rows = []
        for run in counted:
            if run["scenario"] == scenario and results.void(scenario, run["server"]) is None:
                calls = sorted(run["system_calls"].items(), key=lambda call: -call[1])
                total = sum(count for _, count in calls)
                listed = ", ".join(f"{name} {count:.2f}" for name, count in calls if count >= 0.05)
                rows.append((total, [run["server"], f"{total:.1f}", listed]))
        rows.sort(key=lambda row: row[0])
        table = Table(("server", "in all", "of which"), [row for _, row in rows], frozenset({2}))
        blocks += [Heading(scenario, 3), table]
    return blocks


def _left_out(results: Results) -> list[Block]:
    blocks: list[Block] = []
    for what, reasons in (
        ("These servers could not be installed:", results.data["missing"]),
        ("These scenarios were left out:", results.data.get("left_out")),
    ):
        if reasons:
            listed = [f"{name}: {reason}" for name, reason in reasons.items()]
            blocks += [Text(what), Items(listed)]
    return [Heading("Not measured"), *blocks] if blocks else []


def _method(results: Results) -> list[Block]:
    data = results.data
    servers = [[name, server["version"], server["why"]] for name, server in data["servers"].items()]
    commands = "\n\n".join(
        f"# {name}\n{shlex.join(server['command'])}" for name, server in data["servers"].items()
    )
    versions = {**data["frameworks"], **data["tools"]}
    return [
        Heading("How this was measured"),
        Items([" ".join(item.split()) for item in _METHOD.split("\n\n")]),
        Table(("server", "version", "configured so because"), servers, frozenset({1, 2})),
        Code(commands),
        Table(
            ("", "version"),
            [[name, version or ""] for name, version in versions.items()],
            frozenset({1}),
        ),
    ]
