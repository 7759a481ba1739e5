"""Runs one test command with limits, and ends all processes that it leaves behind."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

_MARK = "MUTANT_MARK"  # options of the server begin with PICOWSGI_, so this is none
_MEMORY = 8 << 30  # address space; sanitized programs need more, and have their own limit
_FILE = 9 << 30  # a test creates a sparse file of 8 GiB
_END = 5  # seconds until a killed process must have ended


@dataclass(frozen=True)
class Ended:
    code: int | None  # None: it did not end in time
    output: str
    seconds: float


def run(
    command: list[str], folder: Path, seconds: float, *, environ: dict[str, str], checked: bool
) -> Ended:
    """Run a command for at most `seconds`, and return its outcome."""
    mark = uuid.uuid4().hex
    environ = {**environ, _MARK: mark}
    if checked:
        environ["ASAN_OPTIONS"] = "hard_rss_limit_mb=2000:max_allocation_size_mb=2000"
    began = time.monotonic()
    output = folder / "build" / f"output-{threading.get_ident()}.txt"
    output.parent.mkdir(exist_ok=True)
    with output.open("w+", errors="replace") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: _limit(checked),  # noqa: PLW1509
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _end_marked(mark)
        file.seek(0)
        return Ended(code, file.read(), time.monotonic() - began)


def _limit(checked: bool) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # a shell ignores these signals in background jobs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for what, most in ((resource.RLIMIT_FSIZE, _FILE), (resource.RLIMIT_AS, _MEMORY)):
        if not (checked and what == resource.RLIMIT_AS):
            _, hard = resource.getrlimit(what)
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(what, (limit, hard))


def _end_marked(mark: str) -> None:
    """End all processes with the mark in their environment, such as servers of a mutant."""
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes():
                descriptor = os.pidfd_open(int(folder.name))
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    select.select([descriptor], [], [], _END)
                finally:
                    os.close(descriptor)
