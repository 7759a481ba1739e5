"""Checks the sentences of the pages with proselint and two rules of our own.

    python tools/prose.py [FILE ...]

Without arguments it checks the pages of the top folder, docs/, bench/ and examples/. It skips code,
commands, addresses, and tables of the benchmark. Prints `file:line: rule: what is wrong`, and exits
with 1 if a sentence has to change. Never changes a file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/*.md", "bench/*.md", "examples/*/*.md")

#: Checks of proselint that these pages do not need, with the reason.
OFF = {
    "typography.symbols.curly_quotes": "Markdown is typed with straight quotes, as commands are",
}
#: Names that proselint takes for words, with the reason.
NAMES = {
    "waitress": "a WSGI server, and not a woman",
}
#: The longest sentence, in words.
MOST_WORDS = 30

_OPENING = re.compile(r"[^\w`]*((?:Who(?:m|se)?|What|Where)(?:ever)?)\b")
# A mark of the same length replaces each piece of code.
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_ADDRESS = re.compile(r"(?<=\])\([^()\s]*\)|<[a-z]+://[^>\s]*>|\bhttps?://\S+")
_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[\w§])")


class Problem(NamedTuple):
    """A problem of a sentence."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


class Block(NamedTuple):
    """A paragraph, an item, a heading or a cell, without code, and its first line."""

    line: int
    text: str
    is_heading: bool = False


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the prose of a page, in order."""
    text = re.sub(r"<!-- bench: .*?<!-- bench: end -->", _blank, markdown, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", _blank, text, flags=re.DOTALL)
    lines = text.split("\n")
    held: list[str] = []
    start = 0
    fenced = False
    for number, line in enumerate([*lines, ""], 1):
        is_fence = line.lstrip().startswith("```")
        begins = re.match(r"\s*(?:[-*+]|\d+\.)\s+", line)
        ends = is_fence or fenced or not line.strip() or line.startswith(("#", "|", "    ", ":::"))
        if held and (ends or begins):
            yield Block(start, _without_code("\n".join(held)))
            held = []
        if is_fence:
            fenced = not fenced
        elif fenced or not line.strip():
            continue
        elif line.startswith("#"):
            yield Block(number, _without_code(line.lstrip("# ")), is_heading=True)
        elif line.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", _without_code(line)):
                if re.search(r"[^\W\d_]", cell):
                    yield Block(number, cell.strip())
        elif not ends or (held and line.startswith("  ")):
            start = start if held else number
            held.append(line[begins.end() :] if begins else line.strip())


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _without_code(text: str) -> str:
    text = _CODE.sub(lambda match: re.sub(r"[^\n]", "§", match[0]), text)
    text = _ADDRESS.sub("", text)
    return re.sub(r"[*\[\]]|!(?=\[)", "", text)


def sentences(block: Block) -> Iterator[tuple[int, str]]:
    """Yield each sentence with the number of its line."""
    at = 0
    for end in [*(match.end() for match in _END.finditer(block.text)), len(block.text)]:
        sentence = block.text[at:end]
        yield block.line + block.text.count("\n", 0, at), " ".join(sentence.split())
        at = end


def check_sentences(path: str, markdown: str) -> Iterator[Problem]:
    """Yield sentences that begin with a clause, or are too long."""
    for block in blocks(markdown):
        if block.is_heading:
            continue
        for line, sentence in sentences(block):
            opening = _OPENING.match(sentence)
            if opening and not sentence.endswith("?") and " " in sentence.rstrip("."):
                text = f"name the actor: a sentence begins with {opening[1]}: {sentence[:50]}"
                yield Problem(path, line, "opening", text)
            words = len(sentence.split())
            if words > MOST_WORDS:
                text = f"{words} words, {MOST_WORDS} at most: {sentence[:50]}"
                yield Problem(path, line, "length", text)


def check_proselint(path: str, markdown: str) -> Iterator[Problem]:
    """Yield the problems that proselint finds. Raises ImportError if it is not installed."""
    from proselint.checks import __register__
    from proselint.config import DEFAULT
    from proselint.registry import CheckRegistry
    from proselint.tools import LintFile

    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(__register__)
    checks = {**dict.fromkeys(OFF, False), **DEFAULT["checks"]}  # the first match counts
    for block in blocks(markdown):
        text = block.text
        for name in NAMES:
            text = re.sub(rf"\b{name}\b", "§" * len(name), text)
        found = LintFile(path, text).lint({**DEFAULT, "checks": checks})
        for problem in found:
            line = block.line + problem.pos[0] - 1
            said = " ".join(problem.check_result.message.split())
            yield Problem(path, line, problem.check_result.check_path, said)


def pages(root: Path = PROJECT) -> list[Path]:
    """Return the paths of all pages below `root`."""
    return sorted(path.relative_to(root) for name in PAGES for path in root.glob(name))


def check(path: Path, root: Path = PROJECT) -> list[Problem]:
    """Return the problems of a page, sorted by line."""
    markdown = (root / path).read_text("utf-8")
    found = [*check_sentences(str(path), markdown), *check_proselint(str(path), markdown)]
    return sorted(found, key=lambda problem: problem.line)


def main() -> int:
    """Print the problems. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    named = parser.parse_args().files
    paths = [path.resolve().relative_to(PROJECT) for path in named] or pages()
    found = [problem for path in paths for problem in check(path)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
