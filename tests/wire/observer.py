"""The application of the wire tests: its response describes the request that it saw.

It reads the content and answers with JSON; for HEAD the JSON is in the field `Seen`. A target with
`unread` in its query leaves the content unread.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from support import Response


@dataclass(frozen=True)
class Seen:
    """One request as the application saw it."""

    environ: dict[str, str]
    content: bytes
    input_terminated: bool


@dataclass
class Observer:
    """Counts, for each client port, the requests that have reached it."""

    calls: Counter[str] = field(default_factory=Counter)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.calls[environ["REMOTE_PORT"]] += 1
        content = b"" if "unread" in environ["QUERY_STRING"] else environ["wsgi.input"].read()
        seen = {
            "environ": {key: value for key, value in environ.items() if type(value) is str},
            "content": content.decode("latin-1"),
            "input_terminated": environ.get("wsgi.input_terminated") is True,
        }
        body = json.dumps(seen)
        fields = [("Content-Type", "application/json"), ("Application", "observer")]
        if environ["REQUEST_METHOD"] == "HEAD":
            fields.append(("Seen", body))
        start_response("200 OK", fields)
        return [body.encode("ascii")]


def is_observed(response: Response) -> bool:
    """Return whether the application, not the server, made this response."""
    return response.value("Application") == "observer"


def seen_in(response: Response) -> Seen:
    head = f"{response.status} {response.reason}"
    assert is_observed(response), (
        f"expected a response of the application, got {head}: {response.content[:200]!r}"
    )
    assert response.status == 200, f"expected 200, got {head}"
    assert response.complete, "expected a complete response"
    seen = json.loads(response.value("Seen") or response.content)
    return Seen(seen["environ"], seen["content"].encode("latin-1"), seen["input_terminated"])
