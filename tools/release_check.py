"""Tests the packages of a release as a new user would use them.

    python tools/release_check.py FOLDER

Installs the wheel and the source package of FOLDER into empty environments of every Python on this
machine, 3.10 to 3.13, and runs tests with them. Then it runs the README's first two commands in a
clean clone. Never lets a test import src/: the tests run in the unpacked source package, where src/
is removed.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")

# The tests that depend on the build and the installation. `make test` in the clone runs all.
TESTS = [
    "tests/bench",
    "tests/tools",
    "tests/unit",
    "--ignore=tests/unit/test_reload.py",  # measures CPU time, of Python alone
    "tests/wire",
    "tests/integration/test_clients.py",
    "tests/integration/test_django.py",
    "tests/integration/test_examples.py",
    "tests/e2e/test_files.py",
    "tests/integration/test_flask.py",
    "tests/e2e/test_pep3333.py",
    "tests/e2e/test_processes.py",
    "tests/e2e/test_server_api.py",
    "tests/e2e/test_signals.py",
    "tests/e2e/test_simple_server.py",
    "tests/e2e/test_simple_server_requests.py",
    "tests/e2e/test_simple_server_steps.py",
    "tests/e2e/test_streaming.py",
    "tests/e2e/test_threads.py",
    "tests/e2e/test_uploads.py",
    "tests/e2e/test_validator.py",
]


def pythons() -> dict[str, str]:
    """Return the Pythons of these versions on this machine, from PATH or pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in VERSIONS:
        for program in (shutil.which(f"python{version}"), *root.glob(f"{version}.*/bin/python")):
            if program and _answers(program):
                found[version] = str(program)
                break
    return found


def _answers(program: str | Path) -> bool:
    """Return whether a Python runs. pyenv puts programs on PATH that only print a message."""
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


def run(*command: str | Path, cwd: Path = PROJECT) -> None:
    """Run a command outside of any virtual environment and without the paths of this checkout."""
    print("$", shlex.join(map(str, command)), flush=True)
    subprocess.run(command, cwd=cwd, env=_environ(), check=True)


_OURS = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PICOWSGI_DEV")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def answers(*command: str | Path, cwd: Path) -> None:
    """Start a server, request the page whose address it prints, and stop the server."""
    print("$", shlex.join(map(str, command)), flush=True)
    server = subprocess.Popen(
        command, cwd=cwd, env=_environ(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        for line in server.stderr or ():
            print(line, end="", flush=True)
            address = re.search(r"http://([\d.]+):(\d+)", line)
            if address:
                client = http.client.HTTPConnection(address[1], int(address[2]), timeout=10)
                client.request("GET", "/")
                status = client.getresponse().status
                client.close()
                if status != 200:
                    raise SystemExit(f"error: expected 200 of {address[0]}, got {status}")
                break
        else:
            raise SystemExit(f"error: expected a line with the URL, but it ended: {server.wait()}")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)


def check_installed(version: str, program: str, package: Path, tests: Path) -> None:
    """Install a package into an empty environment, start its server, and run its tests."""
    print(f"\n== {package.name} on Python {version}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run(program, "-m", "venv", folder)
        python = Path(folder, "bin", "python")
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, package)
        answers(Path(folder, "bin", "picowsgi"), "--port", "0", cwd=Path(folder))
        run(*pip, f"picowsgi[test,bench] @ {package.as_uri()}")
        run(python, "-c", _WHERE, folder, cwd=tests)
        run(python, "-m", "pytest", "-q", "-m", "not browser", *TESTS, cwd=tests)


_WHERE = """
import sys
import picowsgi._core
assert picowsgi._core.__file__.startswith(sys.argv[1]), f"not installed: {picowsgi._core.__file__}"
"""


def main() -> int:
    dist = Path(sys.argv[1]).resolve()
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    found = pythons()
    print("Pythons:", ", ".join(found), "- not here:", ", ".join({*VERSIONS} - {*found}) or "none")
    if not found:
        raise SystemExit(f"error: expected a Python of {', '.join(VERSIONS)}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        tests = Path(folder, source.name.removesuffix(".tar.gz"))
        shutil.rmtree(tests / "src")
        for version, program in found.items():
            for package in (wheel, source):
                check_installed(version, program, package, tests)

    print("\n== the README's commands in a clean clone", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run("git", "clone", "--quiet", PROJECT, folder)
        answers("make", "run", "ARGS=--port 0", cwd=Path(folder))
        run("make", "test", cwd=Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
