"""A server under stress, and the checks of its log and its events when it has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soak.server import STOP_TIMEOUT, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stress.findings import Findings

APPLICATION = "stress.application:application"
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_LINES = 60  # of a log that are shown
_FATAL = "Fatal Python error"
_DIED = ("was killed by", "ended with status")
_ALARMING = (*_DIED, "a thread of the server", "did not end in time")


class Setup(NamedTuple):
    """How a server is run."""

    options: tuple[str, ...] = ()
    interval: float = 0.005  # seconds: the switch interval of the interpreter
    compute: int = 1  # threads that compute
    delays: bool = False  # returns from the core are delayed
    fills: bool = False  # Python overwrites freed memory, so that clients see it when it is sent
    reloads: bool = False
    module: str = "picowsgi"

    @property
    def interrupted(self) -> bool:
        """Whether a signal handler raises exceptions in the serving thread."""
        return self.module == "stress.interrupted"

    @property
    def environ(self) -> dict[str, str]:
        environ = {
            "PYTHONFAULTHANDLER": "1",  # at SIGABRT and at a crash all threads write their stacks
            "STRESS_INTERVAL": str(self.interval),
            "STRESS_COMPUTE": str(self.compute),
        }
        if self.delays:
            environ["STRESS_DELAYS"] = "1"
        if self.fills:
            environ["PYTHONMALLOC"] = "debug"
        return environ

    def __str__(self) -> str:
        environ = [f"{key}={it}" for key, it in self.environ.items() if key != "PYTHONFAULTHANDLER"]
        words = [self.module, *self.options, *environ]
        return " ".join(words) + (" with reloads" if self.reloads else "")


class Server(ServerProcess):
    """A server under stress, in a directory of its own."""

    def __init__(self, setup: Setup, directory: Path, environ: Mapping[str, str]) -> None:
        self.setup = setup
        self._events = directory / "events"
        environ = {**setup.environ, **environ}
        if "PYTHONPATH" in environ:
            tests = str(Path(__file__).resolve().parents[1])
            environ["PYTHONPATH"] = os.pathsep.join([tests, environ["PYTHONPATH"]])
        super().__init__(
            APPLICATION, directory, *setup.options, module=setup.module, environ=environ
        )

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> int:
        """Stop it and return the exit status. One that does not end writes its stacks first."""
        if self.alive:
            self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            return self._process.wait()

    def check_end(self, findings: Findings) -> None:
        """Stop the server, and check its exit status, its log and its events."""
        crashed = not self.alive
        status = self.stop()
        log = self.log.read_text("utf-8", "replace")
        meant = ("stress.application.MeantError", *(["KeyboardInterrupt"] * self.setup.interrupted))
        wrong = [line for line in log.splitlines() if any(each in line for each in _ALARMING)]
        for traceback in tracebacks_in(log):
            if not traceback[-1].startswith(meant):
                wrong += traceback
        if _FATAL in log:
            wrong += log[log.index(_FATAL) :].splitlines()
        if crashed or status != 0:
            how = f"status {status}" if status >= 0 else signal.Signals(-status).name
            findings.fail("crash", str(self.setup), f"it ended with {how}", *wrong[:_LINES])
        elif wrong:
            findings.fail("log", str(self.setup), *wrong[:_LINES])
        lost = crashed or self.setup.interrupted or any(each in log for each in _DIED)
        self._check_events(findings, lost=lost)

    def _check_events(self, findings: Findings, *, lost: bool) -> None:
        """Check the events; `lost`: some of them may be missing."""
        opened: Counter[str] = Counter()
        for line in self._events.read_text().splitlines():
            what, which = line.split()
            if what == "kept":
                findings.fail("kept", str(self.setup), f"the server keeps the content of {which}")
            elif what in ("opened", "closed"):
                opened[which] += 1 if what == "opened" else -1
                findings.count(f"event {what}")
            else:
                findings.count(f"event {what} {which}")
                if which not in ("ResponseError", "ClientGoneError"):
                    findings.fail("write", str(self.setup), f"{what}: write() raised {which}")
        for which, number in opened.items():
            if number != 0 and not lost:
                how = "never closed" if number > 0 else "closed twice"
                findings.fail("close", str(self.setup), f"the iterable of {which} was {how}")


def tracebacks_in(log: str) -> Iterator[list[str]]:
    """The lines of each traceback in a log; the last line is the error. Of chains: the last."""
    found: list[str] = []
    indent = -1
    for line in log.splitlines():
        text = line.strip()
        if text == _TRACEBACK:
            indent = line.index(_TRACEBACK)
            if found:
                yield found
            found = [text]
        elif text in _CHAINED:
            found = []
        elif indent >= 0:
            found.append(line[indent:])
            if re.match(r"[A-Za-z_]", found[-1]):
                indent = -1
    if found:
        yield found
