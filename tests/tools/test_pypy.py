"""tools/pypy.py prints the path of PyPy, or what is missing. `make test-pypy` fetches it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "pypy.py"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_an_installed_pypy_is_named_and_nothing_is_fetched(tmp_path: Path) -> None:
    python = tmp_path / "usr/bin/pypy3"
    python.parent.mkdir(parents=True)
    python.touch()
    for arguments in ([], ["--cached"]):
        done = run(*arguments, PYPY_FOLDER=str(tmp_path), PATH="")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{python}\n", "")


def test_the_cache_is_in_the_home_of_the_user(tmp_path: Path) -> None:
    python = tmp_path / "picowsgi/pypy3.11/usr/bin/pypy3"
    python.parent.mkdir(parents=True)
    python.touch()
    done = run("--cached", PYPY_FOLDER="", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout == f"{python}\n"


def test_a_missing_pypy_is_fetched_only_on_request(tmp_path: Path) -> None:
    done = run("--cached", PYPY_FOLDER=str(tmp_path / "none"), PATH="")
    assert (done.returncode, done.stdout) == (0, "\n")
    done = run(PYPY_FOLDER=str(tmp_path / "none"), PATH="")
    assert done.returncode == 1
    assert "apt-get is missing; name an installed PyPy: PYPY=/path/to/pypy3" in done.stderr
    assert not any(tmp_path.iterdir()), "expected no file to be left behind"
