"""The stub of the compiled module is the output of tools/stub.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import picowsgi

PROJECT = Path(__file__).resolve().parents[2]


def test_the_stub_matches_the_compiled_core():
    stub = Path(picowsgi.__file__).with_name("_core.pyi").read_text()
    made = subprocess.run(
        [sys.executable, "tools/stub.py"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert stub == made, (
        "expected the stub of this core: run `python tools/stub.py >src/picowsgi/_core.pyi`"
    )
    assert "def pw_next(self, _0: pw_thread, /) -> int: ..." in made, made
