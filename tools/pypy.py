"""Downloads the Debian packages of PyPy 3.11 into a folder, and prints the path of PyPy.

    python tools/pypy.py [--cached]

Any machine with apt-get and a Debian mirror can use it. The packages are those of Debian 13, with
the C library that they need. They do not change the system. With `--cached`, it downloads nothing,
and prints an empty line if PyPy is not there yet. The folder is `$PYPY_FOLDER`, or
picowsgi/pypy3.11 in the user's cache. The mirror is `$DEBIAN_MIRROR`, or the first one of apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "trixie"
PACKAGES = ["pypy3", "pypy3-dev", "pypy3-venv"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Modules that need other libraries. PyPy is complete if they can be imported.
_CHECK = (
    "import bz2, cffi, ensurepip, lzma, resource, sqlite3, ssl, sys; assert sys.pypy_version_info"
)
# Debian's launcher does the same. This one also finds its C library and its folder, so a virtual
# environment and its child processes need no environment variables.
_LAUNCHER = """\
int pypy_main_startup(int argc, char **argv);

int main(int argc, char **argv)
{
    return pypy_main_startup(argc, argv);
}
"""


class FetchError(Exception):
    """Something is missing. The message says what to do."""


def folder() -> Path:
    """Return the folder of PyPy."""
    chosen = os.environ.get("PYPY_FOLDER")
    if chosen:
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "picowsgi" / "pypy3.11"


def cached() -> Path | None:
    """Return the path of PyPy, or None if it is not there yet."""
    python = folder() / "usr/bin/pypy3"
    return python if python.exists() else None


def fetch() -> Path:
    """Download PyPy, and return its path. Raises FetchError."""
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise FetchError(f"{program} is missing; name an installed PyPy: PYPY=/path/to/pypy3")
    if not Path(KEYRING).exists():
        raise FetchError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")
    home = folder()
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{home.name}-", dir=home.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        for package in _download(Path(temporary)):
            _run(["dpkg-deb", "-x", str(package), str(made)])
        _link(made, home)
        shutil.rmtree(home, ignore_errors=True)
        made.rename(home)
    python = home / "usr/bin/pypy3"
    try:
        _run([str(python), "-c", _CHECK])
    except FetchError:
        shutil.rmtree(home)
        raise
    return python


def _download(place: Path) -> list[Path]:
    """Download the packages and all their dependencies, as if none were installed."""
    for name in ("lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True)
    (place / "status").touch()
    (place / "debian.sources").write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    settings = {
        "Dir::Etc::sourcelist": place / "debian.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": place / "lists",
        "Dir::State::status": place / "status",
        "Dir::Cache": place / "cache",
        "APT::Sandbox::User": "root",
    }
    lines = [f'{name} "{value}";\n' for name, value in settings.items()]
    (place / "apt.conf").write_text("".join(lines))
    environ = {**os.environ, "APT_CONFIG": str(place / "apt.conf")}
    _run(["apt-get", "--quiet", "update"], environ)
    command = ["apt-get", "--quiet", "--yes", "--no-install-recommends", "--download-only"]
    _run([*command, "install", *PACKAGES], environ)
    return sorted((place / "cache/archives").glob("*.deb"))


def _mirror() -> str:
    chosen = os.environ.get("DEBIAN_MIRROR")
    if chosen:
        return chosen
    form = "$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)"
    for line in _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).split(
        "\n"
    ):
        origin, component, release, *address = line.split("|", 3)
        # apt knows no origin before the first `apt-get update`.
        if component == "main" and origin in {"Debian", ""} and "security" not in release:
            return address[0]
    raise FetchError("apt has no Debian mirror; name one: DEBIAN_MIRROR=URL")


def _link(made: Path, home: Path) -> None:
    """Add a launcher and wheels to the unpacked PyPy in `made`, which will move to `home`."""
    [library] = made.glob("usr/lib/*/libpypy3.11-c.so")
    [loader] = library.parent.glob("ld-linux*.so.*")
    libraries = home / library.parent.relative_to(made)
    launcher = made / "usr/bin/pypy3.11"
    launcher.unlink()
    source = made / "launcher.c"
    source.write_text(_LAUNCHER)
    options = (
        f"-Wl,--disable-new-dtags,-rpath,{libraries},--dynamic-linker,{libraries / loader.name}"
    )
    compiler = [*os.environ.get("CC", "cc").split(), "-O2", "-o", str(launcher), str(source)]
    # The libraries may need a newer C library than the one of this system.
    at = [f"-L{library.parent}", "-lpypy3.11-c", "-Wl,--allow-shlib-undefined"]
    _run([*compiler, *at, options])
    for data in made.glob("usr/lib/pypy3.11/_sysconfigdata*.py"):
        text = data.read_text(encoding="utf-8")
        wheels = "/usr/share/python-wheels"
        data.write_text(text.replace(wheels, f"{home}{wheels}"), encoding="utf-8")


def _run(command: list[str], environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(
            f"{' '.join(command[:3])} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


if __name__ == "__main__":
    try:
        found = cached()
        print(found or ("" if "--cached" in sys.argv[1:] else fetch()))
    except (FetchError, OSError) as error:
        sys.exit(f"error: {error}")
