"""tools/make_venv.py: what it installs, and its errors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "make_venv.py"
# What the build and the package require, except for what a Python may have itself.
NEEDED = ["setuptools", "pip", "click", "cffi", "tomli"]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with an empty wheel of each requirement."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in NEEDED:
        info = f"{name}-99.0.dist-info"
        with zipfile.ZipFile(folder / f"{name}-99.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n"
            )
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def run(folder: Path, **pip: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", **pip}
    return subprocess.run(
        [sys.executable, SCRIPT, folder],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_environment_has_what_the_build_and_the_package_require(
    tmp_path: Path, wheels: Path
) -> None:
    done = run(tmp_path / "venv", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stdout
    installed = {path.name.partition("-")[0] for path in tmp_path.glob("venv/lib*/*/*/*.dist-info")}
    own = {"cffi"} if sys.implementation.name == "pypy" else set()
    old = {"tomli"} if sys.version_info < (3, 11) else set()
    assert installed == {"setuptools", "pip", "click", "cffi"} - own | old
    python = tmp_path / "venv" / "bin" / "python"
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True)
    assert prefix.strip() == str(tmp_path / "venv")


def test_a_failure_of_pip_is_shown_and_ends_the_script(tmp_path: Path) -> None:
    with socket.socket() as reserved:  # no server listens there
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        done = run(tmp_path / "venv", PIP_INDEX_URL=f"http://127.0.0.1:{port}/simple")
    assert done.returncode == 1, done.stdout
    assert "No matching distribution found for setuptools" in done.stdout
    assert "Traceback" not in done.stdout
