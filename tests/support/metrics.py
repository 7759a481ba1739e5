"""The page of --metrics, read strictly as Prometheus's text format 0.0.4."""

from __future__ import annotations

import http.client
import re
import socket
import time
from typing import TYPE_CHECKING

from support.client import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\]*",?)+)\})? (-?[0-9]+(?:\.[0-9]+)?)')
_LABEL = re.compile(r'([a-z]+)="([^"]*)"')


class Page:
    """The samples of a page. Each sample is below the lines HELP and TYPE of its family."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.types: dict[str, str] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        assert text.endswith("\n"), "expected a line end at the end of the page"
        helped = family = ""
        for line in text.splitlines():
            words = line.split(" ", 3)
            if words[:2] == ["#", "HELP"]:
                helped = words[2]
            elif words[:2] == ["#", "TYPE"]:
                family = words[2]
                assert helped == family, f"expected HELP before TYPE: {line}"
                assert family not in self.types, f"expected each family once: {line}"
                self.types[family] = words[3]
            else:
                self._take(line, family)

    def _take(self, line: str, family: str) -> None:
        match = _SAMPLE.fullmatch(line)
        assert match is not None, f"expected a sample, got {line!r}"
        name = (
            re.sub("_(bucket|sum|count)$", "", match[1]) if self._is_histogram(family) else match[1]
        )
        assert name == family, f"expected a sample of {family}: {line}"
        key = match[1], frozenset(_LABEL.findall(match[2] or ""))
        assert key not in self.samples, f"expected each sample once: {line}"
        self.samples[key] = float(match[3])

    def _is_histogram(self, family: str) -> bool:
        return self.types[family] == "histogram"

    def value(self, name: str, **labels: str) -> float:
        """Return the value of one sample."""
        return self.samples[name, frozenset(labels.items())]

    def labelled(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of a name that are not 0, by the value of one label."""
        found: dict[str, float] = {}
        for (each, labels), value in self.samples.items():
            if each == name and value:
                text = dict(labels)[label]
                found[text] = found.get(text, 0) + value
        return found

    def total(self, name: str) -> float:
        """Return the sum of all samples of a name."""
        return sum(value for (each, _), value in self.samples.items() if each == name)

    @property
    def requests(self) -> dict[str, float]:
        """The requests that were answered, as `GET 2xx`."""
        return {
            f"{dict(labels)['method']} {dict(labels)['status']}": value
            for (name, labels), value in self.samples.items()
            if name == "picowsgi_requests_total" and value
        }

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return the samples that may never decrease."""
        return {
            (name, labels): value
            for (name, labels), value in self.samples.items()
            if name.endswith(("_total", "_bucket", "_sum", "_count"))
        }


def fetch(
    port: int, path: str = "/metrics", method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def read_page(port: int) -> Page:
    """Return the page of the server whose metrics are on this port."""
    status, _, body = fetch(port)
    assert status == 200, f"expected the page, got {status}: {body}"
    return Page(body)


def page_with(port: int, **expected: float | Mapping[str, float]) -> Page:
    """Return the page as soon as it has these values.

    Each is the total of a name, without `picowsgi_`, or for `requests` a dict as `Page.requests`.
    The client gets a response before the server counts it.
    """
    deadline = time.monotonic() + TIMEOUT
    while True:
        page = read_page(port)
        found = {
            name: page.requests if name == "requests" else page.total(f"picowsgi_{name}")
            for name in expected
        }
        if found == expected:
            return page
        assert time.monotonic() < deadline, f"expected {expected}, got {found}"
        time.sleep(0.01)


def port_of(url: str) -> int:
    """Return the port in `http://127.0.0.1:PORT/metrics`."""
    match = re.fullmatch(r"http://127\.0\.0\.1:([0-9]+)/metrics", url)
    assert match is not None, f"expected the address of metrics, got {url!r}"
    return int(match[1])


def metrics_port(log: str) -> int:
    """Return the port that the log of a command names."""
    match = re.search(r"metrics on (http://\S+)", log)
    assert match is not None, f"expected the address of the metrics in the log: {log}"
    return port_of(match[1])


def free_port() -> int:
    """Return a port that no socket of this machine has now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
