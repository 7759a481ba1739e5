"""Checks the order of the C files: each may use only those before it in csrc/order.txt.

    python tools/c_order.py

The first check reads the includes of a file. The second one reads with `nm` which symbols of other
files the compiled object needs. Only the second check notices a file that declares a function of a
later file itself. Never changes a file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import flags

CSRC = flags.PROJECT / "csrc"
ORDER = CSRC / "order.txt"

_LINE = re.compile(r"^(\w+)(?: \(([\w ]+)\))?(?:\s+[^\s(].*)?$")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
#: The first column of `nm` is the address. It is blank if the symbol is in another file.
_SYMBOL = re.compile(r"^([0-9a-fA-F]*)\s+(\w) (\w+)")


@dataclass(frozen=True)
class Order:
    """The positions of the headers and the C files, by name, such as `conn.h`."""

    places: dict[str, int]
    #: The header of each C file, even if it does not exist.
    headers: dict[str, str]


def read(text: str) -> Order:
    """Return the order in the text of `order.txt`. Raises ValueError if a line is wrong."""
    places: dict[str, int] = {}
    headers: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"order.txt: expected a name, got {line!r}")
        name, files = found.group(1), (found.group(2) or found.group(1)).split()
        for entry in (f"{name}.h", *(f"{file}.c" for file in files)):
            if entry in places:
                raise ValueError(f"order.txt: {entry} is listed twice")
            places[entry] = len(places)
        headers.update({f"{file}.c": f"{name}.h" for file in files})
    return Order(places, headers)


def wrong_names(order: Order, folder: Path) -> list[str]:
    """Return the files that are missing in the order, and the names in it without a file."""
    files = {path.name for path in folder.glob("*.[ch]")}
    unknown = sorted(files - {*order.places})
    wrong = [f"{file}: it is missing in csrc/order.txt" for file in unknown]
    for source, header in order.headers.items():
        alone = Path(source).stem == Path(header).stem
        if source not in files and not (alone and header in files):
            wrong.append(f"csrc/order.txt: there is no {source}")
    return wrong


def wrong_includes(order: Order, folder: Path) -> list[str]:
    """Return includes of later headers, and C files that do not include their own header."""
    wrong = []
    for name, place in order.places.items():
        path = folder / name
        if not path.exists():
            continue
        included = [other for other in _INCLUDE.findall(path.read_text()) if other in order.places]
        own = order.headers.get(name)
        for other in included:
            if order.places[other] >= place:
                wrong.append(f"{name} includes {other}, which comes after it")
        if own is not None and (folder / own).exists() and own not in included:
            wrong.append(f"{name} does not include {own}")
    return wrong


def symbols(printed: str) -> tuple[set[str], set[str]]:
    """Return the symbols that an object defines and needs, from the output of `nm`."""
    defined, needed = set(), set()
    for line in printed.splitlines():
        found = _SYMBOL.match(line)
        if found is not None and found.group(2) == "U":
            needed.add(found.group(3))
        elif found is not None and found.group(2).isupper():
            defined.add(found.group(3))
    return defined, needed


def wrong_symbols(order: Order, objects: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    """Return the symbols of later files that a file needs. `objects` has the symbols by C file."""
    home = {symbol: file for file, (defined, _) in objects.items() for symbol in defined}
    return [
        f"{file} needs {symbol} of {home[symbol]}, which comes after it"
        for file, (_, needed) in sorted(objects.items(), key=lambda item: order.places[item[0]])
        for symbol in sorted(needed)
        if symbol in home and order.places[home[symbol]] > order.places[file]
    ]


def compiled(folder: Path, sources: list[str]) -> dict[str, tuple[set[str], set[str]]]:
    """Return the symbols of each C file, compiled without inlining. Raises CalledProcessError."""
    compiler = shlex.split(os.environ.get("CC", "cc"))

    def one(source: str) -> tuple[set[str], set[str]]:
        path, built = folder / source, Path(objects) / f"{source}.o"
        words = [*compiler, *flags.compile_flags(source), "-O0", "-c", "-o", str(built), str(path)]
        subprocess.run(words, check=True)
        return symbols(
            subprocess.run(["nm", built], check=True, capture_output=True, text=True).stdout
        )

    with tempfile.TemporaryDirectory(prefix="c-order-") as objects, ThreadPoolExecutor(2) as pool:
        return dict(zip(sources, pool.map(one, sources), strict=True))


def main() -> int:
    try:
        order = read(ORDER.read_text(encoding="utf-8"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    wrong = wrong_names(order, CSRC) or wrong_includes(order, CSRC)
    if not wrong:
        sources = [name for name in order.places if name in order.headers]
        existing = [name for name in sources if (CSRC / name).exists()]
        wrong = wrong_symbols(order, compiled(CSRC, existing))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
