"""Creates a virtual environment with all that building and running picowsgi needs, and pip.

    python tools/make_venv.py FOLDER

`make run` waits for this, so it is made to be quick: the pip of the running Python fills the
environment, no bytecode is compiled, and picohttpparser is fetched meanwhile.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import vendor

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements() -> tuple[list[str], list[str]]:
    """Return the requirement of the build backend, and all others of the build and the package."""
    project = _load(PYPROJECT.read_text(encoding="utf-8"))
    backend = project["build-system"]["build-backend"].partition(".")[0]
    every: list[str] = project["build-system"]["requires"] + project["project"]["dependencies"]
    first = [needed for needed in every if needed.startswith(backend)]
    return first, [needed for needed in every if needed not in first]


def _load(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # before any package is installed, only pip has one
        from pip._vendor import tomli as tomllib
    project: dict[str, Any] = tomllib.loads(text)
    return project


def pip_command(python: Path) -> list[str]:
    """Return the command that runs pip for the environment of `python`."""
    try:
        version = importlib.metadata.version("pip").split(".")
    except importlib.metadata.PackageNotFoundError:
        version = ["0", "0"]
    if (int(version[0]), int(version[1])) >= (22, 3):  # it knows --python
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([python, "-m", "ensurepip"], stdout=subprocess.DEVNULL, check=True)
    return [str(python), "-m", "pip", "--disable-pip-version-check"]


def main() -> int:
    folder = Path(sys.argv[1])
    venv.create(folder, symlinks=True)
    pip = pip_command(folder / "bin" / "python")
    install = [*pip, "install", "--quiet", "--no-compile"]
    first, others = requirements()
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(subprocess.run, [*install, *others], check=True)
        try:
            subprocess.run([*install, *first], check=True)
            vendor.provide(pip=pip)
            rest.result()
        except subprocess.CalledProcessError as error:
            return error.returncode  # pip has said why
        except vendor.VendorError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
