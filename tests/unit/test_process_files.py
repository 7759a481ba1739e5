"""The pid file, identities, the handover and what a worker says: without a server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.process import restart
from picowsgi.process.members import ChildProcess
from picowsgi.process.status_pipe import StatusPipe, make_pair
from picowsgi.system.pidfile import PidFile
from picowsgi.system.privileges import Identity, find_identity
from picowsgi.system.sockets import is_ours
from picowsgi.system.systemd import Notifier, take_sockets
from support import open_descriptors

# The pid file


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
def test_a_pid_file_that_names_nobody_is_replaced(tmp_path: Path, content: str) -> None:
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
def test_a_pid_file_that_is_no_plain_file_is_not_read(tmp_path: Path, kind: str) -> None:
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


def test_a_pid_file_makes_room_for_a_successors_and_comes_back(tmp_path: Path) -> None:
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
    assert path.read_text() == f"{os.getppid()}\n", "the successor lives"
    file.remove()
    assert (path.exists(), old.exists()) == (True, False)


def test_a_pid_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        file = PidFile(str(tmp_path / "pid"))
        file.write()
        file.remove()
    assert open_descriptors() == before


# User and group


class System:
    """Notes what a process would become."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
        self.calls: list[Any] = []
        self.refuses = False
        for name, value in (("geteuid", uid), ("getuid", uid), ("getegid", gid)):
            monkeypatch.setattr(os, name, lambda value=value: value)
        for name in ("initgroups", "setgroups", "setgid", "setuid"):
            monkeypatch.setattr(os, name, lambda *what, name=name: self._note(name, *what))

    def _note(self, *what: Any) -> None:
        if self.refuses:
            raise PermissionError(1, "Operation not permitted")
        self.calls.append(what)


def test_root_becomes_a_user_with_the_groups_of_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, 0, 0)
    Identity(5, 6, "eva").assume()
    assert system.calls == [("initgroups", "eva", 6), ("setgid", 6), ("setuid", 5)]
    assert Identity(5, 6, "eva").owner == (5, 6)


def test_root_becomes_a_group_without_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, 0, 0)
    Identity(0, 6, "").assume()
    assert system.calls == [("setgroups", [6]), ("setgid", 6), ("setuid", 0)]


def test_a_process_that_is_it_already_becomes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, 5, 6)
    Identity(5, 6, "eva").assume()
    assert system.calls == []
    assert Identity(5, 6, "eva").owner is None
    for other in (Identity(5, 7, ""), Identity(7, 6, "")):
        with pytest.raises(ConfigError, match="started as root"):
            other.assume()


def test_what_the_system_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    System(monkeypatch, 0, 0).refuses = True
    with pytest.raises(ConfigError, match="cannot become user 5, group 6: Operation not permitted"):
        Identity(5, 6, "eva").assume()


def test_nobody_is_meant_by_empty_names() -> None:
    assert find_identity("", "") is None


def test_names_and_numbers_mean_the_same() -> None:
    assert find_identity("root", "") == find_identity("0", "")
    found = find_identity("root", "")
    assert found is not None
    assert (found.uid, found.gid, found.name) == (0, 0, "root")
    only_group = find_identity("", "0")
    assert only_group is not None
    assert (only_group.uid, only_group.gid, only_group.name) == (os.geteuid(), 0, "")


@pytest.mark.parametrize("name", ["nobody-has-this-name", "99999999999999999999"])
def test_users_and_groups_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--user: there is no user"):
        find_identity(name, "")
    with pytest.raises(ConfigError, match="--group: there is no group"):
        find_identity("", name)


def test_only_root_may_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = find_identity("root", "root" if sys.platform == "linux" else "wheel")
    assert identity is not None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="started as root"):
        identity.assume()


def test_who_it_is_already_needs_no_rights() -> None:
    identity = find_identity(str(os.geteuid()), str(os.getegid()))
    assert identity is not None
    identity.assume()


# The handover


def test_what_is_handed_over_arrives_and_leaves_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "s"
    from picowsgi.system.sockets import close_sockets, open_sockets

    settings = Settings(bind=("127.0.0.1:0", f"unix:{path}"))
    sockets = open_sockets(settings.binds(), settings.backlog)
    try:
        inherited = restart.Inherited(
            "keeper",
            os.getpid(),
            tuple(
                (os.dup(number), file, ours)
                for number, file, ours in restart.describe(sockets, with_files=True)
            ),
            child=(9, os.open(os.devnull, os.O_RDONLY)),
            settings={"bind": ["a", "b"], "port": 5, "sources": {"port": "--port"}},
        )
        import dataclasses

        os.set_inheritable(inherited.child[1], True)
        environ = {restart.VARIABLE: json.dumps(dataclasses.asdict(inherited)), "X": "y"}
        taken = restart.take_inherited(environ)
        assert taken == inherited
        assert environ == {"X": "y"}
        settings = taken.read_settings()
        assert settings == Settings(bind=("a", "b"), port=5)
        assert taken.status_pipe() is None
        adopted = taken.sockets()
        assert [one.getsockname() for one in adopted] == [one.getsockname() for one in sockets]
        assert not any(one.get_inheritable() for one in adopted)
        assert all(map(is_ours, adopted))
        assert not os.get_inheritable(inherited.child[1])
        os.close(inherited.child[1])
        close_sockets(adopted)
        assert not path.exists(), "the process that gets the file removes it"
    finally:
        close_sockets(sockets)


def test_descriptors_of_a_handover_are_not_inheritable() -> None:
    pairs = [os.pipe() for _ in range(2)]
    numbers = [number for pair in pairs for number in pair]
    for number in numbers:
        os.set_inheritable(number, True)
    (channel, listener), (child, other) = pairs
    fields = {
        "role": "successor",
        "parent": 1,
        "listeners": [[listener, None, True]],
        "channel": channel,
        "child": [5, child],
    }
    try:
        restart.take_inherited({restart.VARIABLE: json.dumps(fields)})
        assert [os.get_inheritable(each) for each in numbers] == [False] * 3 + [True]
        assert numbers[-1] == other
    finally:
        for number in numbers:
            os.close(number)


def test_a_keepers_handover_is_for_the_same_process_only() -> None:
    text = json.dumps({"role": "keeper", "parent": os.getpid() + 1})
    assert restart.take_inherited({restart.VARIABLE: text}) is None
    assert restart.take_inherited({}) is None


def test_the_command_is_the_one_that_was_given() -> None:
    code = (
        "import sys; sys.argv = ['x']\n"
        "from picowsgi.process.restart import Command\n"
        "print(Command.of_this_process().arguments[1:])\n"
        "print(Command.of_this_process(['a:b', '--port', '1']).arguments[1:])\n"
    )
    output = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code, "an argument"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LISTEN_PID": "1"},
    ).stdout.splitlines()
    assert output[0] == repr(("-X", "utf8", "-c", code, "an argument"))
    assert output[1] == repr(("-m", "picowsgi", "a:b", "--port", "1"))


def test_the_commands_environment_is_that_of_the_start_without_handed_over_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(link))
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv(restart.VARIABLE, "x")
    command = restart.Command.of_this_process([])
    assert command.directory == str(link), "as the shell names it"
    assert not {"LISTEN_PID", restart.VARIABLE} & set(command.environ)
    monkeypatch.setenv("PWD", "/")
    assert restart.Command.of_this_process([]).directory == str(tmp_path)


# What a worker and its supervisor say


@pytest.fixture
def ends() -> Iterator[tuple[StatusPipe, ChildProcess]]:
    ours, its = make_pair()
    process = ChildProcess(0, ours)
    yield StatusPipe(its, os.getppid()), process
    process.close()
    os.close(its)


def test_a_worker_tells_that_it_is_ready_and_wants_a_successor(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    link, process = ends
    for byte in b"..R.":
        link.send(byte)
    process.read()
    assert (process.ready, process.needs_replacement, process.stopped_by_signal) == (
        True,
        False,
        False,
    )
    link.send(ord("X"))
    link.send(ord("T"))
    process.read()
    assert process.needs_replacement
    assert process.stopped_by_signal


def test_a_worker_is_told_how_to_stop_and_that_nobody_is_there(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    link, process = ends
    process.ready = True
    assert link.read_orders() == b""
    process.stop(others_accept=True)
    process.stop(others_accept=False)
    process.stop_now()
    assert link.read_orders() == b"LDN"
    assert not link.is_supervisor_gone()
    assert link.fileno() >= 0
    process.close()
    assert link.read_orders() == b""
    assert link.is_supervisor_gone()
    assert link.fileno() == -1, "an end of file is readable for ever"


def test_a_worker_that_has_not_read_its_orders_can_be_read_to_its_end() -> None:
    ours, its = make_pair()
    process = ChildProcess(0, ours)
    process.ready = True
    process.stop(others_accept=False)
    StatusPipe(its, os.getppid()).send(ord("X"))
    os.close(its)
    process.read()
    assert process.needs_replacement
    assert process.channel == -1


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_an_error_of_the_application_comes_whole_or_at_least_its_end(
    ends: tuple[StatusPipe, ChildProcess], size: int
) -> None:
    link, process = ends
    link.send(ord("."))
    link.send_failure(AppImportError("it \N{SNOWMAN} failed", "\udcff" * size + "the end"))
    process.read()
    process._exit = None
    process.pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", ""])
    assert process.has_ended(wait=True)
    assert process.failure is not None
    assert str(process.failure) == "it \N{SNOWMAN} failed"
    assert process.failure.application_traceback.endswith("the end")
    assert process.end == "ended with status 0"


def test_an_end_that_the_application_has_waited_for_is_no_failure(
    ends: tuple[StatusPipe, ChildProcess],
) -> None:
    _, process = ends
    process._exit = None
    process.pid = os.spawnv(
        os.P_NOWAIT, sys.executable, [sys.executable, "-c", "raise SystemExit(3)"]
    )
    os.waitpid(process.pid, 0)
    assert process.has_ended()
    assert process.end == "ended with status 0"


# systemd


def test_without_a_manager_nothing_is_told() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(dict(environ))
        notifier.ready()
        assert notifier.interval == 0


def test_a_watchdog_is_fed_twice_in_its_time_unless_it_is_for_another_process() -> None:
    environ = {"NOTIFY_SOCKET": "@picowsgi-test", "WATCHDOG_USEC": "3000000"}
    assert Notifier(environ).interval == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": str(os.getpid())}).interval == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": "1"}).interval == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the name stands in no folder")
def test_an_abstract_address_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0picowsgi-test-{os.getpid()}")
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": f"@picowsgi-test-{os.getpid()}"})
        notifier.stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_sockets_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "X": "y"}
    assert take_sockets(environ, 10) == []
    assert environ == {"X": "y"}
