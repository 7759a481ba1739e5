"""Puts picohttpparser and its licence into csrc/vendor/picohttpparser, and checks their hashes.

    python tools/vendor.py              download the source package with pip, if needed
    python tools/vendor.py PACKAGE      use this file of the package, from another machine

Never runs or unpacks anything else of the package, and never changes an existing file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

DESTINATION = Path(__file__).resolve().parent.parent / "csrc" / "vendor" / "picohttpparser"

REQUIREMENT = "gunicorn_h1c==0.6.9"
PACKAGE = "gunicorn_h1c-0.6.9.tar.gz"
PACKAGE_SHA256 = "1847ff14fe6354a0808785dbcab25c7fbf5e621a1593bc1456c2fadf018103b1"
FOLDER = "gunicorn_h1c-0.6.9/src/gunicorn_h1c/picohttpparser"
SHA256 = {
    "picohttpparser.c": "ddada2e27e9010f678a68a93a08fc13dee32178cc497b602322d80900eb94044",
    "picohttpparser.h": "9630a0215f776d30445bc02eeec48cd4d83b7f3c22e2c37b19c1ab5e498aaf50",
}

_ELSEWHERE = (
    f"Or fetch {PACKAGE} on another machine (pip download --no-deps --no-binary=:all: "
    f"{REQUIREMENT}), and give it to `python tools/vendor.py {PACKAGE}`. "
    "The source packages and wheels of picowsgi contain it and need no network."
)


class VendorError(Exception):
    """picohttpparser is not available. The message says what was expected, and what to do."""


def provide(
    destination: Path = DESTINATION, package: Path | None = None, pip: list[str] | None = None
) -> None:
    """Add picohttpparser to `destination` if it is missing, from `package` or else by `pip`.

    `pip` is the command that runs it; without it, this is the pip of the running Python.

    Raises VendorError if an existing or downloaded file is not the expected one.
    """
    found = {name: destination / name for name in SHA256 if (destination / name).exists()}
    files = {name: path.read_bytes() for name, path in found.items()}
    for name, content in files.items():
        _check(
            found[name], content, SHA256[name], f"Remove the folder {destination} and build again."
        )
    if files.keys() != SHA256.keys():
        files = _read(package) if package else _fetch(pip)
    files["LICENSE"] = _licence(files["picohttpparser.c"])
    destination.mkdir(parents=True, exist_ok=True)
    # Each file appears in one step, even if two builds do this at once.
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        for name, content in files.items():
            if not (destination / name).exists():
                Path(folder, name).write_bytes(content)
                Path(folder, name).replace(destination / name)


def _check(what: Path | str, content: bytes, expected: str, advice: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise VendorError(
            f"{what} is not the expected file: expected sha256 {expected}, found {actual}. {advice}"
        )


def _fetch(pip: list[str] | None) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="picowsgi-vendor-") as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{REQUIREMENT} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
        command = [*(pip or [sys.executable, "-m", "pip"]), "download", "--quiet", "--no-deps"]
        command += ["--no-binary=:all:", "--require-hashes", "--dest", folder]
        if pip or _can_prepare():
            command.append("--no-build-isolation")
        result = subprocess.run(
            [*command, "-r", str(requirements)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if result.returncode != 0:
            raise _failure(result.stdout)
        return _read(Path(folder, PACKAGE))


def _can_prepare() -> bool:
    """Return whether pip can prepare a source package without downloading other packages."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    return int(version.partition(".")[0]) >= 71  # it builds wheels by its own code since 70.1


def _failure(output: str) -> VendorError:
    other = re.search(r"Got\s+([0-9a-f]{64})", output)
    if other:
        return VendorError(
            f"pip found a {PACKAGE} that is not the expected file: expected sha256 "
            f"{PACKAGE_SHA256}, found {other[1]}. It was not used. Check whether you trust the "
            f"package index that `{sys.executable} -m pip config list` shows. {_ELSEWHERE}"
        )
    said = "".join(f"\n    {line.strip()}" for line in output.strip().splitlines())
    return VendorError(
        f"picohttpparser is not in {DESTINATION} and could not be fetched: expected pip to find "
        f"{REQUIREMENT} (sha256 {PACKAGE_SHA256}), but it said:{said}\n"
        f"Connect to the network, or give pip a package index, and build again. {_ELSEWHERE}"
    )


def _read(package: Path) -> dict[str, bytes]:
    """Return the needed files of the source package, which is read once and never unpacked."""
    try:
        content = package.read_bytes()
    except OSError as error:
        raise VendorError(f"{package} cannot be read: {error.strerror}. {_ELSEWHERE}") from error
    _check(package, content, PACKAGE_SHA256, f"It was not used. {_ELSEWHERE}")
    files = {}
    with tarfile.open(package) as archive:
        for name, expected in SHA256.items():
            member = archive.extractfile(f"{FOLDER}/{name}")
            files[name] = member.read() if member else b""
            _check(f"{name} in {package}", files[name], expected, "It was not used.")
    return files


def _licence(source: bytes) -> bytes:
    """Return the first comment of picohttpparser.c, without the marks of the comment."""
    comment = source.decode("utf-8").partition("/*\n")[2].partition("*/")[0]
    lines = (line.strip().removeprefix("*").removeprefix(" ") for line in comment.splitlines())
    return ("\n".join(lines).strip() + "\n").encode()


def main() -> int:
    try:
        provide(package=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except VendorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
