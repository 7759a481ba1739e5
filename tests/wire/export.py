"""Writes the bytes of each case to a directory: `PYTHONPATH=tests python -m wire.export DIRECTORY`.

`KIND-RULE.raw` holds the bytes. `index.tsv` has a line for each: the file, the number of served
requests, the statuses that may follow them (`-` for none), the statuses that may replace the last
request, whether the connection is closed, and the options. C tests read both; a fuzzer uses the
.raw files as seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wire.corpus import Case, load_cases


def export(directory: Path) -> int:
    """Write all cases below `directory`; return their number."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for case in load_cases():
        name = f"{case.kind}-{case.name}.raw"
        (directory / name).write_bytes(case.data)
        lines.append("\t".join([name, *_columns(case)]) + "\n")
    (directory / "index.tsv").write_text("".join(lines), "ascii")
    return len(lines)


def _columns(case: Case) -> list[str]:
    options = ",".join(f"{name}={value}" for name, value in case.options.items())
    return [
        str(len(case.requests)),
        "|".join(case.statuses) or "-",
        "|".join(case.alternatives) or "-",
        "closed" if case.closed else "kept",
        options or "-",
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: PYTHONPATH=tests python -m wire.export DIRECTORY")
    sys.stdout.write(f"{export(Path(sys.argv[1]))} cases written to {sys.argv[1]}\n")
