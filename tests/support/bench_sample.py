"""A small results file, made by hand, for the tests of the benchmark."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from bench import install
from bench.results import FORMAT, Results
from bench.scenarios import SCENARIOS
from bench.servers import SERVERS

#: The Python that runs the tests.
HERE = install.Interpreter(
    Path(sys.prefix),
    {
        "version": platform.python_version(),
        "implementation": "CPython",
        "compiler": platform.python_compiler(),
    },
)


def say(text: str) -> None:
    """Drop the messages of a run."""


def run(scenario: str, server: str, number: int, cpu: float, **more: Any) -> dict[str, Any]:
    """One measurement, with numbers that follow from the CPU time."""
    return {
        "scenario": scenario,
        "server": server,
        "round": number,
        "framing": "length",
        "keeps_alive": True,
        "requests": 1000,
        "seconds": 1.0,
        "cpu": cpu,
        "rate": 1e6 / cpu,
        "p50": cpu * 60,
        "p90": cpu * 80,
        "p99": cpu * 100,
        "p99.9": cpu * 110,
        "max": cpu * 200,
        "memory_peak": 30 << 20,
        **more,
    }


def results(
    runs: list[dict[str, Any]], voids: list[dict[str, Any]] | None = None, **more: Any
) -> Results:
    """A results file with these runs, of all servers in them."""
    voids = voids or []
    servers = {each["server"] for each in [*runs, *voids]}
    scenarios = {each["scenario"] for each in [*runs, *voids]}
    return Results(
        {
            "format": FORMAT,
            "started": "2026-01-01T10:00:00+00:00",
            "finished": "2026-01-01T11:00:00+00:00",
            "machine": {
                "processor": "A processor",
                "processors": 2,
                "usable_processors": 2,
                "memory": 1 << 34,
                "kernel": "Linux 6.1",
                "architecture": "x86_64",
                "system": "A system",
                "virtual": True,
                "governor": None,
                "load": 0.1,
            },
            "commit": "0123456789abcdef",
            "modified": False,
            "python": {
                "version": "3.11.7",
                "implementation": "CPython",
                "compiler": "GCC 12",
                "optimized": True,
                "gil": True,
            },
            "tools": {"wrk": "wrk 4.1.0"},
            "frameworks": {"flask": "3.1", "django": "5.2"},
            "settings": {
                "duration": 4.0,
                "warmup": 1.0,
                "rounds": 3,
                "server_processor": 0,
                "load_processor": 1,
            },
            "servers": {
                name: server.facts("1.2.3") for name, server in SERVERS.items() if name in servers
            },
            "missing": {},
            "left_out": {},
            "scenarios": {
                name: scenario.facts for name, scenario in SCENARIOS.items() if name in scenarios
            },
            "runs": runs,
            "voids": voids,
            **more,
        }
    )


def answer(application: Any, path: str) -> bytes:
    """The response of an application to a request of this path, without a server."""
    head: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        head.extend([status, dict(headers)])

    content = b"".join(application({"PATH_INFO": path}, start_response))
    assert head[0] == "200 OK"
    assert head[1]["Content-Length"] == str(len(content))
    return content
