# ruff: noqa: T201 (it prints its results)
"""Runs servers with different options, one after the other, against random clients.

    PYTHONPATH=tests python -m stress.stress [--seconds T] [--seed S] [--only KIND,KIND ...]

With the same seed, each client sends the same requests in the same order; the timing differs in
each run. The exit status is 1 if anything was wrong, or if a kind of application or client was not
seen.
"""

from __future__ import annotations

import argparse
import shlex
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from stress.clients import BEHAVIOURS, Client
from stress.exchanges import ASPECTS, FAILURES, Exchange
from stress.findings import Findings
from stress.server import Server, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RELOAD_EVERY = 1.5
JOIN = 60.0
QUIET = 8  # requests that check the memory of the server; each of its processes is to get one
STARTS_MOST = 10  # in a round, if the server crashes
CLIENTS = 16
THREADS = Setup(("--threads=16",), delays=True, fills=True)
ROUNDS = (
    THREADS,
    Setup(("--threads=1",), interval=0.00001, delays=True, reloads=True),
    Setup(("--threads=16", "--workers=2"), delays=True, fills=True, reloads=True),
    Setup(("--threads=16",)),
    Setup(module="stress.interrupted", fills=True),
)


class Stress:
    """A run of all rounds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.aspects = [
            each for each in options.only.split(",") if each not in options.without.split(",")
        ]
        self.environ = dict(word.split("=", 1) for word in shlex.split(options.environ))
        self.findings = Findings()

    def run(self, rounds: Sequence[tuple[int, Setup]]) -> bool:
        """Run the rounds, each for its part of the time, and print the outcomes."""
        print(f"seed {self.options.seed}: {', '.join(self.aspects)}", flush=True)
        for number, setup in rounds:
            print(f"round {number}: {setup}", flush=True)
            self._round(setup, f"{self.options.seed}/{number}", self.options.seconds / len(rounds))
        for outcome, count in sorted(self.findings.outcomes.items()):
            print(f"{count:8} {outcome}")
        unseen = self._unseen()
        for each in unseen:
            print(f"never seen: {each}")
        for sort, count in self.findings.failures.items():
            print(f"{count:8} failures: {sort}")
        if not self.findings.failures:
            print("no failure")
        return not self.findings.failures and not unseen

    def _round(self, setup: Setup, seed: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        for start in range(STARTS_MOST):
            with tempfile.TemporaryDirectory(prefix="stress-") as directory:
                server = Server(setup, Path(directory), self.environ)
                self._ask(server, f"{seed}/{start}", until)
                server.check_end(self.findings)
            self._read_reports()
            if time.monotonic() >= until:
                return

    def _ask(self, server: Server, seed: str, until: float) -> None:
        """Run the clients until the time is up, or the server has ended."""

        def over() -> bool:
            return time.monotonic() >= until or not server.alive

        setup = server.setup
        running = []
        for number in range(self.options.clients):
            client = Client(
                server.port,
                f"{seed}/{number}",
                self.aspects,
                self.findings,
                closes=setup.reloads,
                cuts=setup.interrupted,
            )
            running.append(threading.Thread(target=client.run, args=[over], daemon=True))
        for thread in running:
            thread.start()
        while not over():
            due = min(until, time.monotonic() + RELOAD_EVERY)
            wait_for(lambda due=due: over() or time.monotonic() >= due)  # type: ignore[misc]
            if setup.reloads and not over():
                server.reload()
        for thread in running:
            thread.join(JOIN)
        stuck = sum(thread.is_alive() for thread in running)
        if stuck:
            self.findings.fail("stuck", str(setup), f"{stuck} clients do not end")
        for _ in range(QUIET):
            be_quiet(server)

    def _read_reports(self) -> None:
        """Report what a sanitizer has written."""
        if self.options.reports:
            for report in Path(self.options.reports).iterdir():
                self.findings.fail("sanitizer", *report.read_text("utf-8", "replace").splitlines())
                report.unlink()

    def _unseen(self) -> list[str]:
        """The kinds of applications and clients that were not seen."""
        wanted = [f"client {one.__name__}" for one in BEHAVIOURS]
        wanted += [f"{kind}: " for kind in self.aspects if kind not in ("headers", "fail")]
        if "fail" in self.aspects:
            wanted += [f"fail: {ending}" for ending in set(FAILURES.values())]
        if "late" in self.aspects:
            wanted.append("event late ResponseError")
        seen = [name.replace(": large ", ": ") for name in self.findings.outcomes]
        return [each for each in wanted if not any(name.startswith(each) for name in seen)]


def be_quiet(server: Server) -> None:
    """Have a process of the server check that it keeps no content that it has sent."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(Exchange("-", "quiet", connection="-").request(close=True))
        while client.recv(1_000):
            pass


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(SystemRandom().randrange(1 << 32)))
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--only", default=",".join(ASPECTS), help="kinds of applications")
    parser.add_argument("--without", default="", help="kinds that are left out")
    parser.add_argument("--round", type=int, help="this round alone")
    parser.add_argument("--environ", default="", help="NAME=VALUE ... for the servers")
    parser.add_argument("--reports", help="where a sanitizer writes its reports")
    options = parser.parse_args(arguments)
    rounds = list(enumerate(ROUNDS))
    if options.round is not None:
        rounds = [rounds[options.round]]
    return 0 if Stress(options).run(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
