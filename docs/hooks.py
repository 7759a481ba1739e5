"""Gives MkDocs the options, those of other servers, from their tables, and the logo.

Never says anything about an option that the tables do not.
"""

from __future__ import annotations

import re
from typing import Any

from picowsgi.app.pages.logo import SVG
from picowsgi.config.option import Option
from picowsgi.config.peers import PEERS
from picowsgi.config.peers.row import Row
from picowsgi.config.settings import OPTIONS

MARK = "<!-- options -->"
PEER_MARK = re.compile("<!-- options of (.*) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks by the options; called by MkDocs for each page."""
    markdown = PEER_MARK.sub(lambda match: equivalents(match[1]), markdown)
    return markdown.replace(MARK, options())


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the logo to the files of the site; called by MkDocs once."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "logo.svg", content=SVG))
    return files


def on_post_page(output: str, **_: Any) -> str:
    """Keep the link to the repository only a link; called by MkDocs for each page.

    The theme's script would ask the host of the repository for its version and its stars.
    """
    return output.replace(' data-md-component="source"', "")


def equivalents(peer: str) -> str:
    """Return the table of another server's options in Markdown."""
    rows = [f"| {peer} | picowsgi | notes |", "|---|---|---|"]
    return "\n".join([*rows, *map(_peer_row, PEERS[peer])])


def _peer_row(row: Row) -> str:
    ours = row.ours
    if ours.startswith("--"):
        ours = _code(ours.split(", "))
    return f"| {_code(row.names)} | {ours} | {row.note} |"


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def options() -> str:
    """Return a section of Markdown for each group of options, in the order of the table."""
    groups: dict[str, list[Option]] = {}
    for option in OPTIONS.values():
        groups.setdefault(option.group, []).append(option)
    return "\n\n".join(_section(group, members) for group, members in groups.items())


def _section(group: str, members: list[Option]) -> str:
    rows = [f"## {group}", "", "| option | default | variable | |", "|---|---|---|---|"]
    rows += [_row(option) for option in members]
    return "\n".join(rows)


def _row(option: Option) -> str:
    flag = f"`{option.flag} {option.metavar}`" if option.metavar else f"`{option.flag}`"
    if option.short:
        flag += f", `-{option.short}`"
    if option.switch:
        flag += f", `--no-{option.flag.removeprefix('--')}`"
    default = option.show(option.default)
    text = option.help
    if option.kind not in ("flag", "str", "list"):
        text += f" ({option.expected})"
    cells = (
        f'<span id="{option.name}"></span>{flag}',
        f"`{default}`" if default else "",
        f"`{option.variable}`",
        text.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"
