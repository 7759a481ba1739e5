"""tools/vendor.py: the files that it takes into the build, and its errors for others."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "tools" / "vendor.py"
VENDORED = PROJECT / "csrc" / "vendor" / "picohttpparser"
NAMES = ["LICENSE", "picohttpparser.c", "picohttpparser.h"]


@pytest.fixture
def vendor() -> ModuleType:
    """The script as a module, new for each test."""
    spec = importlib.util.spec_from_file_location("vendor", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """pip has one index only, and no server listens there."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        yield


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def make_package(folder: Path, vendor: ModuleType, files: dict[str, bytes]) -> Path:
    package = folder / vendor.PACKAGE
    with tarfile.open(package, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return package


def test_correct_files_stay_as_they_are_and_need_no_network(
    vendor: ModuleType, tmp_path: Path, unreachable: None
) -> None:
    destination = tmp_path / "picohttpparser"
    shutil.copytree(VENDORED, destination)
    before = identities(destination)
    vendor.provide(destination)
    assert sorted(before) == NAMES
    assert identities(destination) == before


def test_a_wrong_file_is_named_and_not_changed(
    vendor: ModuleType, tmp_path: Path, unreachable: None
) -> None:
    (tmp_path / "picohttpparser.c").write_bytes(b"int other;\n")
    with pytest.raises(vendor.VendorError) as caught:
        vendor.provide(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "picohttpparser.c") in message
    assert f"expected sha256 {vendor.SHA256['picohttpparser.c']}" in message
    assert f"found {sha256(b'int other;' + bytes([10]))}" in message
    assert f"Remove the folder {tmp_path}" in message
    assert contents(tmp_path) == {"picohttpparser.c": b"int other;\n"}


def test_without_a_network_the_error_names_the_package_and_what_to_do(
    vendor: ModuleType, tmp_path: Path, unreachable: None
) -> None:
    destination = tmp_path / "picohttpparser"
    with pytest.raises(vendor.VendorError) as caught:
        vendor.provide(destination)
    message = str(caught.value)
    assert "could not be fetched" in message
    assert vendor.REQUIREMENT in message
    assert vendor.PACKAGE_SHA256 in message
    assert "Connect to the network" in message
    assert "python tools/vendor.py gunicorn_h1c-0.6.9.tar.gz" in message
    assert not destination.exists()


def test_an_unexpected_package_is_refused_by_its_hash(
    vendor: ModuleType, tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w')".encode()
    package = make_package(tmp_path, vendor, {"gunicorn_h1c-0.6.9/setup.py": setup})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    destination = tmp_path / "picohttpparser"
    with pytest.raises(vendor.VendorError) as caught:
        vendor.provide(destination)
    message = str(caught.value)
    assert f"expected sha256 {vendor.PACKAGE_SHA256}" in message
    assert f"found {sha256(package.read_bytes())}" in message
    assert "pip config list" in message
    assert not destination.exists()
    assert not ran.exists()


def test_a_local_package_is_refused_by_its_hash(vendor: ModuleType, tmp_path: Path) -> None:
    package = make_package(tmp_path, vendor, {})
    destination = tmp_path / "picohttpparser"
    with pytest.raises(vendor.VendorError, match=sha256(package.read_bytes())):
        vendor.provide(destination, package)
    assert not destination.exists()


def test_an_unreadable_local_package_is_named(vendor: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(vendor.VendorError, match=r"absent\.tar\.gz cannot be read"):
        vendor.provide(tmp_path / "picohttpparser", tmp_path / "absent.tar.gz")


def test_only_the_listed_files_are_unpacked(
    vendor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{vendor.FOLDER}/{name}": (VENDORED / name).read_bytes() for name in vendor.SHA256}
    others = {
        "../escaped": b"x",
        f"{vendor.FOLDER}/other.c": b"x",
        "gunicorn_h1c-0.6.9/LICENSE": b"x",
    }
    package = make_package(tmp_path, vendor, {**files, **others})
    monkeypatch.setattr(vendor, "PACKAGE_SHA256", sha256(package.read_bytes()))
    destination = tmp_path / "below" / "picohttpparser"
    vendor.provide(destination, package)
    assert contents(destination) == {name: (VENDORED / name).read_bytes() for name in NAMES}
    assert [path.name for path in destination.parent.iterdir()] == ["picohttpparser"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below", vendor.PACKAGE]


def test_a_changed_file_in_the_package_is_refused_by_its_own_hash(
    vendor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{vendor.FOLDER}/{name}": b"changed" for name in vendor.SHA256}
    package = make_package(tmp_path, vendor, files)
    monkeypatch.setattr(vendor, "PACKAGE_SHA256", sha256(package.read_bytes()))
    destination = tmp_path / "picohttpparser"
    with pytest.raises(vendor.VendorError, match=f"found {sha256(b'changed')}"):
        vendor.provide(destination, package)
    assert not destination.exists()


def test_the_licence_is_the_first_comment_of_the_source(
    vendor: ModuleType, tmp_path: Path, unreachable: None
) -> None:
    for name in vendor.SHA256:
        shutil.copy(VENDORED / name, tmp_path)
    vendor.provide(tmp_path)
    licence = (tmp_path / "LICENSE").read_text("utf-8")
    lines = licence.splitlines()
    assert lines[0].startswith("Copyright (c) 2009-2014 Kazuho Oku")
    assert lines[-1].endswith("IN THE SOFTWARE.")
    assert "Permission is hereby granted, free of charge" in licence
    assert "*" not in licence


def test_the_command_fails_with_one_error_and_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "tools" / "vendor.py"
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    result = subprocess.run(
        [sys.executable, script, tmp_path / "absent.tar.gz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "absent.tar.gz cannot be read" in result.stderr
    assert "Traceback" not in result.stderr
