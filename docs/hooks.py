"""Gives MkDocs the reference of the options, from their one table, and the logo.

Never says anything about an option that the table does not.
"""

from __future__ import annotations

from typing import Any

from picowsgi.app.pages.logo import SVG
from picowsgi.config.option import Option
from picowsgi.config.settings import OPTIONS

MARK = "<!-- options -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark by the options; called by MkDocs for each page."""
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
