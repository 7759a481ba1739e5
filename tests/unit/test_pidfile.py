"""The pid file, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from picowsgi.errors import ConfigError
from picowsgi.system.pidfile import PidFile
from support import open_descriptors


def test_a_pid_file_is_written_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    file.remove()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "x", "-5", "0", "999999999"])
def test_a_pid_file_that_names_no_living_process_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pid"
    path.write_text(content)
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_names_a_living_process_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(str(os.getppid()))
    with pytest.raises(ConfigError, match=f"process {os.getppid()}, which is running"):
        PidFile(str(path)).write()
    assert path.read_text() == str(os.getppid())


@pytest.mark.parametrize("kind", ["link", "endless", "pipe", "directory"])
def test_a_pid_file_that_is_not_a_regular_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "pid", tmp_path / "other"
    other.write_text(f"{os.getppid()}\n")
    if kind == "link":
        path.symlink_to(other)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    file = PidFile(str(path))
    if kind == "directory":
        with pytest.raises(ConfigError, match="cannot write the pid file"):
            file.write()
        return
    file.write()
    assert not path.is_symlink()
    assert path.read_text() == f"{os.getpid()}\n"
    assert other.read_text() == f"{os.getppid()}\n"


def test_a_pid_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        PidFile(str(tmp_path / "absent" / "pid")).write()


def test_a_pid_file_makes_room_for_that_of_a_successor_and_returns(tmp_path: Path) -> None:
    path, old = tmp_path / "pid", tmp_path / "pid.old"
    file = PidFile(str(path))
    file.write()
    file.make_room()
    assert (path.exists(), old.exists()) == (False, True)
    file.take_back()
    assert (path.exists(), old.exists()) == (True, False)
    file.make_room()
    path.write_text(f"{os.getppid()}\n")
    file.take_back()
    assert path.read_text() == f"{os.getppid()}\n", "expected the successor to be alive"
    file.remove()
    assert (path.exists(), old.exists()) == (True, False)


def test_a_pid_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        file = PidFile(str(tmp_path / "pid"))
        file.write()
        file.remove()
    assert open_descriptors() == before
