"""Finds words that a reader has to decode, and says what to write instead.

    python tools/words.py [FILE ...]

Without files it reads all text of the project: code, comments, pages, configuration. Prints
`file:line: word: what to write`, and exits with 1 if it finds a word. Never changes a file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent

#: Refused in every file. A key is a regular expression for whole words, in any case.
WORDS = {
    "anew": "again; or name the action: reload, restart",
    "bear|bears|bearing|bore|borne|born": "carry, handle; a thread starts",
    "mourn|mourns|mourned|mourning": "handle the exit of the process",
    "praise|praises|praised|praising": "recommend, report",
    "somebody|somebody's|someone|someone's": "name the actor: the user, another process, a thread",
    "whoever|whomever|whom": "name the actor: the thread that, the process that",
    "whosoever|whatsoever": "name the actor, or write any",
    "look on|looks on|looked on|looking on": "standard output is a terminal; or watch, observe",
    "let go|lets go|letting go": "release, free, drop",
    "affair|affairs": "name the program that handles it",
    "sign of life|signs of life": "heartbeat",
    "be had|is had|are had|was had|were had": "is available, can be installed, can be opened",
    "for want of": "because there is no",
    "in one go": "at once, in one step",
    "in vain": "without a result",
    "at hand": "current",
    "as ever": "as usual",
    "apart from": "except for",
    "mend|mends|mended|mending": "fix, correct, repair",
    "worn|worn out": "due for replacement",
    "wish|wishes": "setting, request, option",
    "seldom": "rarely",
    "amiss": "wrong",
    "lest": "so that ... not",
    "hence|thence": "therefore, so",
    "thereof|therein|whereof|wherein|hereby|forthwith": "of it, in it, at once",
    "perish|perishes|perished": "exit, fail",
    "bury|buries|buried": "defer the free",
    "beget|begets|begot|begotten": "start, fork",
    "forsake|forsakes|forsaken": "leave, abandon",
    "nobody|nobody's|everybody|everybody's|everyone": "name the actor: no client, all threads",
    "tells|told": "reports, shows, logs, notifies",
    "whatever|whichever": "any, no matter which",
    "goes on|go on|went on|going on": "continues",
    "in the place of": "instead of; or replaces",
    "patience": "timeout",
    "by itself": "automatically; or name the condition",
    "brings": "installs, has",
    "for ever": "0: never; without a limit",
}

FOLDERS = ("csrc", "src", "tests", "docs", "tools", "bench", "examples", ".github", ".ci")
NAMES = ("*.md", "*.toml", "*.yml", "*.py", "*.in", "*.mk", "Makefile")
SUFFIXES = frozenset(
    ("", ".c", ".css", ".h", ".html", ".lua", ".md", ".mk", ".py", ".pyi", ".service", ".sh")
) | {".cfg", ".conf", ".socket", ".svg", ".toml", ".txt", ".yaml", ".yml"}

#: Not read, by the path below the project, with the reason.
SKIPPED = {
    "csrc/vendor": "the source of picohttpparser",
    "tests/wire/cases": "bytes of requests",
    "bench/.cache": "the other servers",
    "bench/results": "measured, not written",
    "docs/benchmarks": "drawn from results",
    "tools/words.py": "the list",
    "tests/tools/test_words.py": "the tests of the list",
}

#: A word that one file needs: the path, the word, and the reason.
EXCEPTIONS: tuple[tuple[str, str, str], ...] = (
    ("tests/tools/test_vendor.py", "hereby", "a sentence of the MIT licence"),
    ("bench/services.py", "nobody", "the name of a user of the system"),
)

# A name is made of words, too: pw_sign_of_life.
_BEGIN, _END = r"(?<![^\W_])", r"(?![^\W_])"
# Between two words of a phrase: white space, a new line, and the marks of a comment there.
_BETWEEN = r"(?:_|[ \t]+|[ \t]*\n[ \t]*(?:(?:\*|#:?|//|>)[ \t]*)?)"


class Found(NamedTuple):
    """A word at its place."""

    path: Path
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word}: write {self.instead}"


_PATTERNS = [
    (re.compile(rf"{_BEGIN}(?:{key.replace(' ', _BETWEEN)}){_END}", re.IGNORECASE), instead)
    for key, instead in WORDS.items()
]


def find(path: Path, text: str) -> Iterator[Found]:
    """Yield the words in the text of a file, whose path is below the project."""
    excepted = {word for name, word, _ in EXCEPTIONS if name == path.as_posix()}
    for pattern, instead in _PATTERNS:
        for match in pattern.finditer(text):
            word = " ".join(re.sub(r"\n[ \t]*[*#:/>]*|_", " ", match[0]).split())
            if word.lower() not in excepted:
                yield Found(path, text.count("\n", 0, match.start()) + 1, word, instead)


def files(root: Path = PROJECT) -> Iterator[Path]:
    """Yield the paths below `root` of all files with text of the project."""
    names = {path for name in NAMES for path in root.glob(name)}
    names |= {path for folder in FOLDERS for path in (root / folder).rglob("*")}
    skipped = [root / name for name in SKIPPED]
    for path in sorted(names):
        skips = any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)
        if skips or path.suffix not in SUFFIXES or not path.is_file():
            continue
        if not any(one == path or one in path.parents for one in skipped):
            yield path.relative_to(root)


def check(paths: Iterable[Path], root: Path = PROJECT) -> list[Found]:
    """Return all words that are found in these files below `root`, in their order."""
    found: list[Found] = []
    for path in paths:
        text = (root / path).read_text("utf-8")
        found += sorted(find(path, text), key=lambda one: one.line)
    return found


def main() -> int:
    """Print what is found; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    paths = [path.resolve().relative_to(PROJECT) for path in arguments.files] or list(files())
    found = check(paths)
    for one in found:
        print(one)
    if found:
        print(f"{len(found)} words to replace (tools/words.py has the list)", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
