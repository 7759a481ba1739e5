"""A real Prometheus, which scrapes the metrics of a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support.metrics import free_port
from support.observe import outer_environ
from support.processes import PROCESS_TIMEOUT, eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prometheus"
RULES = EXAMPLE / "rules.yml"
PROGRAMS = {name: shutil.which(name) for name in ("prometheus", "promtool")}
needs_prometheus = pytest.mark.skipif(
    None in PROGRAMS.values(), reason="needs Prometheus: apt-get install prometheus"
)


class Prometheus:
    """A Prometheus with the example's configuration, but for the address and the interval."""

    def __init__(self, directory: Path, target: int) -> None:
        config = (EXAMPLE / "prometheus.yml").read_text()
        assert "127.0.0.1:9100" in config
        config = config.replace("127.0.0.1:9100", f"127.0.0.1:{target}").replace("15s", "200ms")
        (directory / "prometheus.yml").write_text(config)
        shutil.copy(RULES, directory)
        self.port = free_port()
        with (directory / "prometheus.log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    PROGRAMS["prometheus"],
                    "--config.file=prometheus.yml",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                cwd=directory,
                env=outer_environ(),
                stdout=log,
                stderr=log,
            )
        try:
            eventually(self._is_ready, "Prometheus to be ready")
        except BaseException:
            self.end()
            raise

    def _is_ready(self) -> bool:
        try:
            address = f"http://127.0.0.1:{self.port}/-/ready"
            urllib.request.urlopen(address, timeout=PROCESS_TIMEOUT).close()
        except urllib.error.HTTPError as error:  # it is starting
            error.close()
            return False
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.process.wait(PROCESS_TIMEOUT)

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of a response of the interface."""
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=PROCESS_TIMEOUT) as response:
            answer = json.load(response)
        assert answer["status"] == "success"
        return answer["data"]

    def value(self, query: str) -> float | None:
        """Return the value of an expression; None: there is no sample yet."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None
