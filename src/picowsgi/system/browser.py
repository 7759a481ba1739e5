"""Opens the server's page in the user's browser. Never waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from picowsgi.log import get_logger
from picowsgi.system.sockets import url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

# If a socket listens on all addresses, a browser on this machine connects to one of them.
_REACHED_BY = {"http://0.0.0.0:": "http://127.0.0.1:", "http://[::]:": "http://[::1]:"}


def open_page(sockets: Iterable[socket.socket]) -> None:
    """Open the page of the first socket that a browser can connect to, or log a warning."""
    for sock in sockets:
        url = _reachable(url_of(sock))
        if url.startswith("http:"):
            threading.Thread(target=_open, args=(url,), name="picowsgi-open", daemon=True).start()
            return
    get_logger().warning("--open: no browser can connect to a unix socket")


def _reachable(url: str) -> str:
    for anywhere, here in _REACHED_BY.items():
        if url.startswith(anywhere):
            return here + url.removeprefix(anywhere)
    return url


def _open(url: str) -> None:
    import webbrowser  # slow to import, and only this option needs it

    if not webbrowser.open(url):
        get_logger().warning("--open: there is no browser; the page is at %s", url)
