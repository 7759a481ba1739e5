"""The script that a page gets, as the bytes of an HTML element, and its hash.

Never looks at a page.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

# The page holds a WebSocket open. The server closes it when the application has changed, and the
# next process sends its own version over the next one. A page in the background connects when it
# is shown again, and a page that the browser keeps for the button "back" has no connection. Some
# proxies do not pass WebSocket on: then the page asks for the version by ordinary requests.
# A cache may answer a reload with the old page. Such a page reloads once for each version.
_SCRIPT = """\
(() => {
  if (window.picowsgiLiveReload || window !== window.top) return;
  window.picowsgiLiveReload = true;
  const path = %(path)s, least = 50, most = 2000;
  let version = %(version)s, wait = least, socket = null, timer = 0, leaving = false;
  const compare = current => {
    if (current === version) return;
    version = current;
    const seen = current + " " + location.href;
    try {
      if (sessionStorage.picowsgiLiveReload === seen) return;
      sessionStorage.picowsgiLiveReload = seen;
    } catch {}
    location.reload();
  };
  const ask = async () => {
    try {
      const response = await fetch(path, {cache: "no-store"});
      if (response.ok) compare(await response.text());
      return response.status !== 404;
    } catch {
      return true;
    }
  };
  const connect = () => {
    clearTimeout(timer);
    if (socket || leaving || document.hidden) return;
    const begun = Date.now();
    let heard = false;
    const own = socket = new WebSocket(location.origin.replace("http", "ws") + path);
    own.onmessage = event => {
      heard = true;
      compare(event.data);
    };
    own.onclose = async () => {
      if (!heard && own === socket && !await ask()) return;
      if (own !== socket) return;
      socket = null;
      if (heard && Date.now() - begun > most) wait = least;
      timer = setTimeout(connect, wait);
      wait = Math.min(2 * wait, most);
    };
  };
  addEventListener("pagehide", () => {
    const own = socket;
    leaving = true;
    socket = null;
    own?.close();
  });
  addEventListener("pageshow", () => {
    leaving = false;
    connect();
  });
  document.addEventListener("visibilitychange", connect);
  connect();
})();
"""


class Script(NamedTuple):
    """The element, and the hash of its text as a Content-Security-Policy names it."""

    element: bytes
    hash: str


@lru_cache(64)
def make_script(path: str, version: str) -> Script:
    """Return the script of a page of this version; `path` is the one of the endpoint."""
    values = {name: _literal(text) for name, text in (("path", path), ("version", version))}
    text = (_SCRIPT % values).encode("ascii")
    digest = b64encode(sha256(text).digest()).decode("ascii")
    return Script(b"<script>" + text + b"</script>\n", f"'sha256-{digest}'")


def _literal(text: str) -> str:
    """Return a text as JavaScript in an HTML element."""
    return json.dumps(text).replace("<", "\\u003c")
