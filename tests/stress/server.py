"""A server under stress, and the checks of its log and its events when it has ended."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soak.server import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stress.findings import Findings

APPLICATION = "stress.application:application"
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_DIED = ("was killed by", "ended with status")
_ALARMING = (*_DIED, "Fatal Python error", "a thread of the server", "did not end in time")


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
        environ = {"STRESS_INTERVAL": str(self.interval), "STRESS_COMPUTE": str(self.compute)}
        if self.delays:
            environ["STRESS_DELAYS"] = "1"
        if self.fills:
            environ["PYTHONMALLOC"] = "debug"
        return environ

    def __str__(self) -> str:
        words = [self.module, *self.options, *(f"{key}={it}" for key, it in self.environ.items())]
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

    def check_end(self, findings: Findings) -> None:
        """Stop the server, and check its exit status, its log and its events."""
        crashed = not self.alive
        status = self.stop()
        log = self.log.read_text("utf-8", "replace")
        meant = ("stress.application.MeantError", *(["KeyboardInterrupt"] * self.setup.interrupted))
        wrong = [line for line in log.splitlines() if any(each in line for each in _ALARMING)]
        wrong += [error for error in errors_in(log) if not error.startswith(meant)]
        if crashed or status != 0:
            how = f"status {status}" if status >= 0 else signal.Signals(-status).name
            findings.fail("crash", str(self.setup), f"it ended with {how}", *wrong[:5])
        elif wrong:
            findings.fail("log", str(self.setup), *wrong[:5])
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


def errors_in(log: str) -> Iterator[str]:
    """The errors of all tracebacks in a log; of chained tracebacks the last one."""
    error, indent = "", -1
    for line in log.splitlines():
        text = line.strip()
        if text == _TRACEBACK:
            indent = line.index(_TRACEBACK)
        elif text in _CHAINED:
            error = ""
        elif indent >= 0 and re.match(r"[A-Za-z_]", line[indent:]):
            if error:
                yield error
            error, indent = text, -1
    if error:
        yield error
