"""Starts the processes of a server on one processor, and reads their usage from Linux (proc(5)).

Never sends a request.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
_LOOK = 0.01


class BenchError(Exception):
    """The reason why something could not be measured, for the report."""


@dataclass(frozen=True)
class Memory:
    """Bytes of all processes. `proportional` counts shared memory in proportion (PSS)."""

    resident: int
    proportional: int
    peak: int


class ServerProcess:
    """A running server and its child processes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    def pids(self) -> list[int]:
        """Return the process and all processes that it started, in their order."""
        parents = dict(_parents())
        found = [self._process.pid]
        for pid in found:
            found += sorted(child for child, parent in parents.items() if parent == pid)
        return found

    def cpu_seconds(self) -> dict[int, float]:
        """Return the CPU time of each process, including threads that have ended.

        The CPU clock of a process counts nanoseconds (clock_getcpuclockid(3)).
        """
        seconds = {}
        for pid in self.pids():
            try:
                seconds[pid] = time.clock_gettime((~pid << 3) | 2)
            except OSError:
                continue  # ended meanwhile
        return seconds

    def memory(self) -> Memory:
        """Return the current memory of all processes, and the sum of their peaks."""
        sums = {"Rss": 0, "Pss": 0, "VmHWM": 0}
        for pid in self.pids():
            for name in ("smaps_rollup", "status"):
                try:
                    text = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")
                except (FileNotFoundError, ProcessLookupError):
                    continue  # ended meanwhile
                for line in text.splitlines():
                    key, _, value = line.partition(":")
                    if key in sums:
                        sums[key] += int(value.split()[0]) * 1024
        return Memory(sums["Rss"], sums["Pss"], sums["VmHWM"])

    def settled_memory(self, timeout: float = 3.0) -> Memory:
        """Return the memory when it has changed by at most 1 % in half a second."""
        deadline = time.monotonic() + timeout
        before = self.memory()
        while True:
            time.sleep(0.5)
            now = self.memory()
            if abs(now.resident - before.resident) <= before.resident * 0.01:
                return now
            if time.monotonic() > deadline:
                return now
            before = now

    @property
    def log(self) -> str:
        """The end of its output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def check_alive(self) -> None:
        """Raises BenchError if the server has ended."""
        status = self._process.poll()
        if status is not None:
            last = self.log.splitlines()[-1:] or ["nothing in its log"]
            raise BenchError(f"the server has ended with status {status}: {last[0]}")

    def wait_until_it_listens(self) -> None:
        """Raises BenchError if the server does not listen within START_TIMEOUT."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(_LOOK)
            else:
                return
        raise BenchError(f"the server did not listen within {START_TIMEOUT:g} s")

    def stop(self) -> None:
        """End all processes of the server."""
        pids = self.pids()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in pids[1:]:  # processes that were left behind
            if _is_of_session(pid, self._process.pid):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def started(
    command: Sequence[str],
    directory: Path,
    port: int,
    *,
    processor: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Run a server during a `with`, on one processor if one is given.

    Raises BenchError if it does not start.
    """
    with tempfile.NamedTemporaryFile(prefix="bench-server-") as log:
        pinned = ["taskset", "--cpu-list", str(processor)] if processor is not None else []
        process = subprocess.Popen(
            [*pinned, *command],
            cwd=directory,
            env={**_clean_environ(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = ServerProcess(process, port, Path(log.name))
        try:
            server.wait_until_it_listens()
            yield server
        finally:
            server.stop()


def _clean_environ() -> dict[str, str]:
    """Return the environment without variables that change the behaviour of Python or a server."""
    prefixes = ("PYTHON", "PICOWSGI_", "GUNICORN_", "GRANIAN_", "UWSGI_", "WEB_CONCURRENCY")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """Return a free port, below those that the system assigns automatically (ip(7)).

    Another program could get one of those before a slow server uses it.
    """
    while True:
        port = random.randrange(15_000, 32_000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def processors() -> tuple[int | None, int | None]:
    """Return a processor for the server and one for the load, or None if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def allow_descriptors() -> int:
    """Raise the limit of open files as far as possible, and return it. Children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(most, 1 << 16) if most != resource.RLIM_INFINITY else 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _stat(pid: int | str) -> list[str]:
    """Return the fields of /proc/PID/stat after the name of the command."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), int(_stat(entry.name)[1])
            except (FileNotFoundError, ProcessLookupError):
                continue


def _is_of_session(pid: int, session: int) -> bool:
    try:
        return int(_stat(pid)[3]) == session
    except (FileNotFoundError, ProcessLookupError):
        return False
