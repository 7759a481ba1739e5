"""Listening sockets in rare cases: other owners, replaced files, full backlogs, refusals."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi.errors import BindError
from picowsgi.system import sockets
from picowsgi.system.sockets import (
    Bind,
    FilePermissions,
    Listener,
    UnixListener,
    adopt_listener,
    close_backlog,
    close_sockets,
    file_of,
    is_ours,
    open_bind,
    prepare,
)
from support import TIMEOUT


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    close_sockets(made)


def unix(path: Path, access: FilePermissions | None = None) -> UnixListener:
    sock = open_bind(Bind("unix", path=str(path)), 5, [], access)
    assert isinstance(sock, UnixListener)
    return sock


# The owner of a socket


def test_opened_sockets_belong_to_the_process_and_passed_ones_do_not(
    opened: list[socket.socket], tmp_path: Path
) -> None:
    opened.append(open_bind(Bind("tcp", host="127.0.0.1", port=0), 5, opened))
    opened.append(unix(tmp_path / "s"))
    assert [is_ours(sock) for sock in opened] == [True, True]
    with socket.create_server(("127.0.0.1", 0)) as passed:
        opened.append(open_bind(Bind("fd", fd=os.dup(passed.fileno())), 5, opened))
        assert not is_ours(opened[-1])
        assert not is_ours(passed)


def test_only_the_backlog_of_own_sockets_is_closed() -> None:
    class Noted(Listener):
        calls: list[int]

        def listen(self, backlog: int = 5, /) -> None:
            self.calls.append(backlog)

    made = [Noted(socket.AF_INET, socket.SOCK_STREAM) for _ in range(3)]
    for sock, ours in zip(made, (True, False, True), strict=True):
        sock.calls = []
        sock.is_ours = ours
    close_backlog(made)
    assert [sock.calls for sock in made] == [[0], [], [0]]
    for sock in made:
        sock.close()
    one = Listener(socket.AF_INET, socket.SOCK_STREAM)
    one.is_ours = True
    one.close()
    close_backlog([one])  # which is already closed


@pytest.mark.parametrize("ours", [True, False])
def test_a_listener_of_an_earlier_process_is_adopted(tmp_path: Path, ours: bool) -> None:
    path = tmp_path / "s"
    first = unix(path)
    number = os.dup(first.fileno())
    os.set_inheritable(number, True)
    one = adopt_listener(number, str(path), is_ours=ours)
    assert (is_ours(one), file_of(one), one.getblocking()) == (ours, path, False)
    assert not one.get_inheritable()
    first.close()
    close_sockets([one])
    assert not path.exists()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        other = adopt_listener(os.dup(sock.fileno()), None)
        assert (is_ours(other), file_of(other)) == (False, None)
        other.close()


def test_an_inherited_socket_is_not_inherited_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        prepare(sock)
        assert not sock.get_inheritable()
        assert not sock.getblocking()


# Refusals


@pytest.mark.parametrize(
    ("port", "privileged"), [(0, False), (1, True), (80, True), (1023, True), (1024, False)]
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_ports_below_1024_are_privileged(
    monkeypatch: pytest.MonkeyPatch, port: int, privileged: bool, number: int
) -> None:
    def refuse(*_arguments: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sockets, "_listen_tcp", refuse)
    with pytest.raises(BindError) as caught:
        open_bind(Bind("tcp", host="127.0.0.1", port=port), 5, [])
    assert ("ports below 1024 are privileged" in str(caught.value)) == privileged
    assert caught.value.errno == number


def test_the_error_for_a_socket_of_another_type_is_that_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(BindError, match=os.strerror(errno.EPROTOTYPE)):
            unix(path)
    assert path.exists()


def test_the_check_does_not_wait_for_a_server_with_a_full_backlog(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(BindError, match="another program listens there") as caught:
            unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        for client in waiting:
            client.close()
    assert path.exists()


def test_a_socket_whose_setup_fails_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    def refuse(sock: socket.socket, _backlog: int) -> None:
        made.append(sock)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Listener, "listen", refuse, raising=False)
    for bind in (Bind("tcp", host="127.0.0.1"), Bind("unix", path=str(tmp_path / "s"))):
        with pytest.raises(BindError, match="broken"):
            open_bind(bind, 5, [])
    assert [sock.fileno() for sock in made] == [-1, -1]


# The file of a unix socket


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("through", ["ioctl", "path"])
@pytest.mark.parametrize("mode", [0o600, 0o666, 0])
def test_a_mode_without_an_owner_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, through: str
) -> None:
    if through == "path":
        without_ioctl(monkeypatch)
    with unix(tmp_path / "s", FilePermissions(mode)):
        assert mode_of(tmp_path / "s") == mode


def test_an_owner_without_a_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "chown", lambda _path, *owner: given.append(owner))
    before = os.umask(0o27)
    try:
        with unix(tmp_path / "s", FilePermissions(-1, (5, 6))):
            assert given == [(5, 6)]
            assert mode_of(tmp_path / "s") == 0o750
        with unix(tmp_path / "t"):
            assert mode_of(tmp_path / "t") == 0o750
        assert given == [(5, 6)]
    finally:
        os.umask(before)


def without_ioctl(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> int:
        raise PermissionError

    monkeypatch.setattr(fcntl, "ioctl", refuse)


def replaced(path: Path) -> UnixListener:
    """A socket whose file was replaced by another."""
    one = unix(path)
    path.rename(path.with_name("moved"))
    path.touch(0o640)
    return one


@pytest.mark.parametrize("name", [False, True])
def test_a_file_that_replaces_a_socket_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bool
) -> None:
    path = tmp_path / "s"
    without_ioctl(monkeypatch)
    if name:
        monkeypatch.delattr(os, "O_PATH")
    monkeypatch.setattr(os, "chown", lambda *_: pytest.fail("expected no change of another file"))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with replaced(path) as one:
        for access in (FilePermissions(0o666), FilePermissions(-1, (5, 6))):
            with pytest.raises(OSError, match="another process has replaced the socket's file"):
                one.set_permissions(access)
    assert mode_of(path) == 0o640
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_no_link_is_followed_when_a_file_cannot_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.delattr(os, "O_PATH")
    monkeypatch.setattr(os, "chown", lambda *what, **how: given.append((*what, how)))
    monkeypatch.setattr(Path, "chmod", lambda path, mode, **how: given.append((path, mode, how)))
    path = tmp_path / "s"
    with unix(path) as one:
        one.set_permissions(FilePermissions(-1, (5, 6)))
        one.set_permissions(FilePermissions(0o600))
        one.set_permissions(FilePermissions())
    how = {"follow_symlinks": False}
    assert given == [(path, 5, 6, how), (path, 0o600, how)]


def test_a_missing_file_needs_no_removal(tmp_path: Path) -> None:
    path = tmp_path / "s"
    one = unix(path)
    path.unlink()
    close_sockets([one])
    other = unix(path)
    path.rename(tmp_path / "moved")
    path.touch()
    close_sockets([other])
    assert path.exists(), "expected another file to stay"


def test_a_relative_path_is_valid_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = open_bind(Bind("unix", path="s"), 5, [])
    assert file_of(one) == tmp_path / "s"
    monkeypatch.chdir("/")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(tmp_path / "s"))
    close_sockets([one])
    assert not (tmp_path / "s").exists()
