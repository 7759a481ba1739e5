"""The words of other servers: their options, and the equivalents in picowsgi.

Error messages and the tables of `docs/switching.md` use the same rows. Imported only for them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from picowsgi.config.peers import frameworks, granian, gunicorn, uvicorn, uwsgi, waitress
from picowsgi.config.peers.row import ARGUMENT, DEFAULT, NOTHING, Row
from picowsgi.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The rows of each server, by the name that messages and the page use.
PEERS: Mapping[str, list[Row]] = {
    "gunicorn": gunicorn.ROWS,
    "uvicorn": uvicorn.ROWS,
    "granian": granian.ROWS,
    "waitress": waitress.ROWS,
    "flask run": frameworks.FLASK,
    "runserver": frameworks.RUNSERVER,
    "uWSGI": uwsgi.ROWS,
}

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_FLAG = re.compile(r"--([a-z][a-z-]+)")
_SAYS = {
    NOTHING: "has no equivalent",
    DEFAULT: "needs no option here",
    ARGUMENT: "is the argument APP here",
}


def explain(name: str, spell: Callable[[str], str]) -> str:
    """Return what an unknown option means in other servers, and its equivalent in picowsgi.

    `name` is an option as a user has written it: `--worker-class`, `worker_class` or `-k`. `spell`
    turns the name of an option of picowsgi into the form of the place where the user wrote it. The
    text is empty if no other server has the option.
    """
    wanted = _key(name)
    owners: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    for peer, rows in PEERS.items():
        for row in rows:
            if wanted in map(_key, row.names):
                owners.setdefault(row.ours, []).append(f"{peer}'s")
                notes[row.ours] = notes.get(row.ours) or _plain(row.note)
                break
    texts = []
    for ours, peers in owners.items():
        note = f" ({_spelled(notes[ours], spell)})" if notes[ours] else ""
        what = _SAYS.get(ours) or f"is {_spelled(ours.replace(', ', ' and '), spell)} here"
        texts.append(f"{_listed(peers)} {name} {what}{note}")
    return "; ".join(texts)


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _spelled(text: str, spell: Callable[[str], str]) -> str:
    return _FLAG.sub(lambda match: spell(match[1].replace("-", "_")), text)


def nearest_name(name: str, similarity: float) -> str:
    """Return the option of another server that is most similar to `name`; an empty text: none."""
    known = {_key(each) for rows in PEERS.values() for row in rows for each in row.names}
    near = nearest(_key(name), known, similarity)
    if not near:
        return ""
    return f"--{near}" if name.startswith("--") else near.replace("-", "_")


def _key(name: str) -> str:
    """Return the form of a name in which names are compared. The case of `-R` counts."""
    if re.fullmatch("-[A-Za-z0-9]", name):
        return name
    return name.lstrip("-").replace("_", "-").lower()


def _plain(note: str) -> str:
    return _LINK.sub(r"\1", note).replace("`", "")
