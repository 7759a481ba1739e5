"""Helpers for tests of development servers: a request, and a save of a file."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from support import TIMEOUT


def get(
    server: Any, target: str = "/", method: str = "GET", **fields: str
) -> tuple[http.client.HTTPResponse, str]:
    """Return the response and its content; `server` is a URL, or has one."""
    parts = urlsplit(server if isinstance(server, str) else server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request(method, target, headers=fields)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def edit(server: Any, path: Path, old: str, new: str) -> None:
    """Save a file as an editor does, in one step, when the process that serves watches it.

    A change before that would not be noticed. The reloader of Django logs the files that it
    watches. That of werkzeug watches all files before it serves.
    """
    starts = server.log.count("Watching for file changes")
    if starts:
        server.wait_for_log(f"File {path} first seen", starts)
    else:
        get(server)
    text = path.read_text()
    assert old in text
    draft = path.with_name("draft~")
    draft.write_text(text.replace(old, new))
    draft.replace(path)
