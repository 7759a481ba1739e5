"""Checks the packages of a release, and builds the source package without a network.

    python tools/check_dist.py FOLDER [TAG]

TAG is the tag of the release: v and the version. Never changes a file in FOLDER.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Container

PROJECT = Path(__file__).resolve().parent.parent

LICENCES = ["LICENSE", "csrc/vendor/picohttpparser/LICENSE"]
SOURCES = ["csrc/vendor/picohttpparser/picohttpparser.c", "csrc/api.h", "tests/conftest.py"]
TYPES = ["picowsgi/py.typed", "picowsgi/_core.pyi"]
# The compiled module, by the tags of the wheel.
MODULES = {
    "cp310-abi3-": "picowsgi/_core.abi3.so",
    "cp314-cp314t-": "picowsgi/_core.cpython-314t-*.so",
    "pp311-pypy311_pp73-": "picowsgi/_core.pypy311-pp73-*.so",
}
# The names of the C library and the loader, of glibc and musl.
LIBRARIES = re.compile(r"libc\.so\.6|libc\.musl-\w+\.so\.1|libc\.so|ld-linux-[\w-]+\.so\.[12]")


class PackageError(Exception):
    """A package is wrong. The message says what was expected."""


def version() -> str:
    """Return the version, from the only file that contains it."""
    text = (PROJECT / "src/picowsgi/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if not found:
        raise PackageError("src/picowsgi/__init__.py: expected a line __version__ = ...")
    return found[1]


def check_tag(tag: str) -> None:
    """Raises PackageError unless the tag is that of the version, which the changelog has."""
    if tag != f"v{version()}":
        raise PackageError(f"tag {tag}: expected v{version()}, as in src/picowsgi/__init__.py")
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version())}\b", changes, re.MULTILINE):
        raise PackageError(f"CHANGELOG.md: expected a section '## {version()}'")


def check_wheel(wheel: Path) -> None:
    """Raises PackageError unless the tags, types, licences and libraries of a wheel are correct."""
    tags = wheel.name.removeprefix(f"picowsgi-{version()}-")
    module = next((name for tag, name in MODULES.items() if tags.startswith(tag)), None)
    if module is None:
        wanted = " or ".join(f"picowsgi-{version()}-{tag}PLATFORM.whl" for tag in MODULES)
        raise PackageError(f"{wheel.name}: expected {wanted}")
    facts = f"picowsgi-{version()}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    _expect(wheel, files, [*TYPES, *(f"{facts}/licenses/{name}" for name in LICENCES)])
    made = {name for name in files if name.endswith(".so") or name.startswith(facts)}
    for name in sorted(made):
        for place in _places():
            if place in files[name]:
                raise PackageError(f"{wheel.name}: {name} contains a local path, {place.decode()}")
    compiled = [name for name in made if name.endswith(".so")]
    if len(compiled) != 1 or not fnmatchcase(compiled[0], module):
        raise PackageError(f"{wheel.name}: expected only {module}, found {compiled}")
    if "-macosx_" not in wheel.name:  # on macOS, delocate has checked this
        _check_libraries(wheel, files[compiled[0]])


def _check_libraries(wheel: Path, library: bytes) -> None:
    sections = ELFFile(io.BytesIO(library)).iter_sections()
    for section in sections:
        if not isinstance(section, DynamicSection):
            continue
        for tag in section.iter_tags():
            if tag.entry.d_tag == "DT_NEEDED" and not LIBRARIES.fullmatch(tag.needed):
                raise PackageError(f"{wheel.name}: expected only the C library, found {tag.needed}")
            if tag.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}:
                raise PackageError(f"{wheel.name}: expected no search path for libraries")


def _places() -> list[bytes]:
    """Return folders of this machine, and of the containers that build wheels."""
    folders = {str(PROJECT), str(Path.home()), tempfile.gettempdir(), sys.base_prefix, "/project"}
    return [os.fsencode(folder) for folder in sorted(folders - {"/", "/usr"})]


def check_source(package: Path) -> None:
    """Raises PackageError unless the source package is complete, and builds without a network."""
    root = f"picowsgi-{version()}"
    if package.name != f"{root}.tar.gz":
        raise PackageError(f"{package.name}: expected {root}.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(package) as archive:
            _expect(package, archive.getnames(), [f"{root}/{n}" for n in LICENCES + SOURCES])
            archive.extractall(folder, filter="data")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", folder, f"{folder}/{root}"]
        alone = ["unshare", "--map-root-user", "--net"]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
            command = [*alone, *command]
        else:
            print("the system allows no separate network: only pip is kept from downloading")
        built = subprocess.run(
            command,
            env={**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise PackageError(
                f"{package.name}: expected to build without a network:\n"
                f"{built.stdout}{built.stderr}"
            )
        for wheel in Path(folder).glob("*.whl"):
            check_wheel(wheel)


def _expect(package: Path, files: Container[str], wanted: list[str]) -> None:
    for name in wanted:
        if name not in files:
            raise PackageError(f"{package.name}: {name} is missing")


def main() -> int:
    folder, *tags = sys.argv[1:]
    try:
        for tag in tags:
            check_tag(tag)
        wheels, sources = (sorted(Path(folder).glob(kind)) for kind in ("*.whl", "*.tar.gz"))
        if not wheels or len(sources) != 1:
            raise PackageError(f"{folder}: expected wheels and one source package")
        for package in wheels:
            check_wheel(package)
        check_source(sources[0])
    except PackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(wheels)} wheels and the source package of {version()} are correct")
    return 0


if __name__ == "__main__":
    sys.exit(main())
