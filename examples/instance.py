"""An application as an instance with `__call__`: made once, so it can carry configuration.

Each name in the path counts its own visits. The lock is there because a server may call one
instance from several threads at once.

    picowsgi examples/instance.py

    curl http://127.0.0.1:8000/tea
    curl http://127.0.0.1:8000/tea
    curl http://127.0.0.1:8000/coffee
"""

from __future__ import annotations

import json
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


class VisitCounter:
    """Counts the visits of each path and answers with the count as JSON."""

    def __init__(self, *, first: int = 1) -> None:
        self._first = first
        self._visits: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        with self._lock:
            number = self._first + self._visits[path]
            self._visits[path] += 1

        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"path": path, "visit": number}).encode() + b"\n"]


application = VisitCounter(first=1)
