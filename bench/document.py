"""Writes a report, which is a list of blocks, as Markdown or as an HTML page.

Never depends on the contents of the report. Text may contain `code`, and no other markup.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Items:
    """A list of texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table. The first column and those with an index in `text` are text, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Plot:
    """A picture: its file name without suffix, and a description for readers who cannot see it."""

    name: str
    shows: str


Block: TypeAlias = "Heading | Text | Items | Table | Code | Plot"

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --back: #8881 }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2; margin-top: 2.2em } h1 { margin-top: 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left }
th { border-bottom-width: 2px } td.number, th.number { text-align: right; white-space: nowrap }
pre, code { background: var(--back); border-radius: .25rem } code { padding: .1em .25em }
pre { padding: .7rem; overflow-x: auto } pre code { background: none; padding: 0 }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem }
"""


def markdown(blocks: Iterable[Block], suffix: str = "svg", folder: str = "plots") -> str:
    """Return the blocks as Markdown. The plots are files in `folder`, beside the Markdown file."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Items):
            parts.append("\n".join(f"- {item}" for item in block.items))
        elif isinstance(block, Table):
            parts.append(_markdown_table(block))
        elif isinstance(block, Code):
            parts.append("\n".join(f"    {line}".rstrip() for line in block.text.splitlines()))
        else:
            parts.append(f"![{block.shows}]({folder}/{block.name}.{suffix})")
    return "\n\n".join(parts) + "\n"


def page(title: str, blocks: Iterable[Block], plots: Mapping[str, bytes]) -> str:
    """Return the blocks as one HTML page without other files. `plots` has the SVG by name."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{_inline(block.text)}</h{block.level}>")
        elif isinstance(block, Text):
            parts.append(f"<p>{_inline(block.text)}</p>")
        elif isinstance(block, Items):
            items = "\n".join(f"<li>{_inline(item)}</li>" for item in block.items)
            parts.append(f"<ul>\n{items}\n</ul>")
        elif isinstance(block, Table):
            parts.append(_html_table(block))
        elif isinstance(block, Code):
            parts.append(f"<pre><code>{html.escape(block.text)}</code></pre>")
        else:
            data = b64encode(plots[block.name]).decode("ascii")
            alternative = html.escape(block.shows)
            parts.append(f'<p><img alt="{alternative}" src="data:image/svg+xml;base64,{data}"></p>')
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _is_number(table: Table, column: int) -> bool:
    return column > 0 and column not in table.text


def _markdown_table(table: Table) -> str:
    rules = ["---:" if _is_number(table, at) else "---" for at in range(len(table.header))]
    rows = [table.header, rules, *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if _is_number(table, at) else "" for at in range(len(cells))]
        inner = "".join(
            f"<{tag}{kind}>{_inline(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="wide"><table>\n{row(table.header, "th")}\n{body}\n</table></div>'


def _inline(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
