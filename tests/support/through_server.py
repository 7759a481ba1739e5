"""Requests to picowsgi that a test compares with those through the test client of a framework."""

from __future__ import annotations

import http.client


class ThroughServer:
    """Requests over one keep-alive connection to picowsgi."""

    def __init__(self, port: int, timeout: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(
        self, method: str, target: str, fields: dict[str, str], content: bytes | None
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the status, the fields and the content of the response."""
        self._connection.request(method, target, body=content or None, headers=fields)
        response = self._connection.getresponse()
        data = response.read()
        return f"{response.status} {response.reason}", response.getheaders(), data

    def close(self) -> None:
        self._connection.close()
