# ruff: noqa: T201 (it prints its results)
"""A picowsgi under valgrind's memcheck, and those of its findings that belong to the core.

    PYTHONPATH=tests python -m soak.leaks [--requests N] [--seed S]

The clients of `soak.soak` send N requests, and misbehave between them; then the server exits.
Python itself has leaks by design. So of the leaks only those count that the core has allocated, and
of the other errors those in which the core has a part. Exits with status 1 if there is any, or if a
request did not get its exact response.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from soak.server import ServerProcess
from soak.soak import Client, check_log, print_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE = "/picowsgi/_core."
LEAKS = "Leak_"
# Long enough for a server that is fifty times slower.
OPTIONS = (
    "--threads=4",
    "--max-body-size=4M",
    "--body-memory=64K",
    "--response-buffer=256K",
    "--timeout-head=5",
)
REQUESTS = 2_000
CLIENTS = 4
MOST_SECONDS = 1_200


def valgrind(output: Path) -> list[str]:
    return [
        "valgrind",
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect,possible",
        "--errors-for-leak-kinds=definite,indirect",
        "--num-callers=30",
        "--fair-sched=yes",
        "--xml=yes",
        f"--xml-file={output}",
    ]


def load(server: ServerProcess, requests: int, clients: list[Client]) -> None:
    deadline = time.monotonic() + MOST_SECONDS

    def over() -> bool:
        answered = sum(one.answered.total() for one in clients)
        return answered >= requests or not server.alive or time.monotonic() > deadline

    running = [threading.Thread(target=one.run, args=[over]) for one in clients]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def complaints(output: Path) -> Iterator[tuple[bool, str]]:
    """Each record of valgrind: whether it counts as the core's, and its text."""
    for error in ET.parse(output).getroot().iter("error"):
        kind = error.findtext("kind", "")
        frames = [
            (frame.findtext("obj", ""), frame.findtext("fn", "?"))
            for frame in error.iter("frame")
            if "/vgpreload_" not in frame.findtext("obj", "")
        ]
        # Memory that Python allocates during a call of the core belongs to Python.
        concerned = frames[:1] if kind.startswith(LEAKS) else frames
        text = error.findtext("xwhat/text") or error.findtext("what") or kind
        stack = "".join(f"\n    {function} ({Path(name).name})" for name, function in frames)
        yield any(CORE in name for name, _ in concerned), text + stack


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", default="valgrind")
    arguments = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "valgrind.xml"
        with ServerProcess(
            "soak.applications:mixed",
            Path(name),
            *OPTIONS,
            before=valgrind(output),
            environ={"PYTHONMALLOC": "malloc"},
        ) as server:
            clients = [
                Client(server.port, f"{arguments.seed}:{number}") for number in range(CLIENTS)
            ]
            load(server, arguments.requests, clients)
            wrong = [error for one in clients for error in one.errors]
            status = server.stop()
            wrong += [f"the server has ended with {status}"] if status else []
            wrong += check_log(server)
        records = list(complaints(output))
    answered = sum(one.answered.total() for one in clients)
    if answered < arguments.requests:
        wrong.append(f"only {answered} requests were answered")
    print_counts("answered", [one.answered for one in clients])
    print_counts("faults", [one.faults for one in clients])
    ours = [text for of_core, text in records if of_core]
    for text in [*wrong, *ours]:
        print(f"WRONG: {text}")
    print(
        f"{answered} requests in {time.monotonic() - begin:.0f} s; {len(records)} records of "
        f"valgrind, {len(ours)} of them the core's"
    )
    return 1 if wrong or ours else 0


if __name__ == "__main__":
    sys.exit(main())
