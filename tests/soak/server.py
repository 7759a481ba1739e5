"""A picowsgi in a process of its own, for programs that load it and watch it from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class ServerProcess:
    """Serves an application of these tests, "soak.applications:uploads", on a free port.

    `module` is the Python module that serves, with the options of picowsgi. `before` is the begin
    of the command line, such as taskset or valgrind. The server writes to the file `log`.
    """

    def __init__(
        self,
        application: str,
        directory: Path,
        *options: str,
        before: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        module: str = "picowsgi",
    ) -> None:
        self.log = directory / "server.log"
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *before,
                    sys.executable,
                    "-m",
                    module,
                    "--port",
                    "0",
                    *options,
                    application,
                ],
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "TMPDIR": str(directory),
                    **(environ or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.pid = self._process.pid
        self.port = self._wait_for_port()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """Stop it, by force if it takes too long; return its exit status."""
        if self.alive:
            self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.alive:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text("utf-8")):
                return int(found[1])
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the server has not started:\n{self.log.read_text('utf-8')}")
