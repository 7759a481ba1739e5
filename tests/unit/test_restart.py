"""The command starts again: real programs print the values that they got."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from picowsgi.config.settings import Settings
from picowsgi.process import restart
from picowsgi.process.restart import Command, Inherited, describe, take_inherited
from picowsgi.process.status_pipe import READY, make_pair, read
from picowsgi.system.sockets import adopt_listener, close_sockets, is_ours, open_sockets

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

SAY = """
import json, os
given = json.loads(os.environ["PICOWSGI_INHERITED"])
numbers = [one[0] for one in given["listeners"]] + [given["channel"]]
os.write({0}, json.dumps([
    given["role"], os.getcwd(), os.environ["X"], [os.fstat(one).st_ino for one in numbers]
]).encode())
"""


def command(code: str, directory: Path) -> Command:
    environ = {**os.environ, "X": "of the start"}
    return Command((sys.executable, "-c", code), str(directory), environ, is_running=True)


def test_a_program_has_its_directory_its_environment_and_the_descriptors(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    ours, its = make_pair()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        given = Inherited("worker", os.getpid(), ((sock.fileno(), None, True),), channel=its)
        pid = command(SAY.format(writer), tmp_path).start(given, [its, writer])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        said = json.loads(os.read(reader, 4096))
        inodes = [os.fstat(one).st_ino for one in (sock.fileno(), its)]
    assert said == ["worker", str(tmp_path), "of the start", inodes]
    for end in (reader, writer, ours, its):
        os.close(end)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    absent = Command(("/nonexistent",), str(tmp_path), {}, is_running=True)
    with pytest.raises(OSError, match="nonexistent"):
        absent.start(Inherited("worker", 1, ()), [])


def test_a_process_becomes_the_program_with_the_same_pid(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    ours, its = make_pair()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        given = Inherited("keeper", os.getpid(), ((sock.fileno(), None, True),), channel=its)
        pid = os.fork()
        if pid == 0:
            try:
                command(SAY.format(writer), tmp_path).become(given, [its, writer])
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        said = json.loads(os.read(reader, 4096))
        inodes = [os.fstat(one).st_ino for one in (sock.fileno(), its)]
    assert said == ["keeper", str(tmp_path), "of the start", inodes]
    for end in (reader, writer, ours, its):
        os.close(end)


# The inherited values


def test_only_existing_descriptors_are_inherited() -> None:
    listeners = ((5, None, True), (6, "/s", False))
    assert Inherited("worker", 1, listeners, channel=7).descriptors() == [5, 6, 7]
    assert Inherited("keeper", 1, listeners, child=(99, 0)).descriptors() == [5, 6, 0]


def test_only_a_worker_has_a_status_pipe() -> None:
    ours, its = make_pair()
    for role in ("successor", "keeper"):
        assert Inherited(role, os.getppid(), (), channel=its).status_pipe() is None  # type: ignore[arg-type]
    link = Inherited("worker", os.getppid(), (), channel=its).status_pipe()
    assert link is not None
    assert link.fileno() == its
    assert not link.is_supervisor_gone()
    os.close(ours)
    os.close(its)


def test_only_a_successor_reports_that_it_serves_and_closes_its_end() -> None:
    ours, its = make_pair()
    for role in ("worker", "keeper"):
        Inherited(role, 1, (), channel=its).report_ready()  # type: ignore[arg-type]
    assert read(ours) is None
    Inherited("successor", 1, (), channel=its).report_ready()
    assert [read(ours), read(ours)] == [bytes([READY]), b""]
    os.close(ours)


def test_only_a_keeper_has_settings() -> None:
    assert Inherited("worker", 1, ()).read_settings() is None


def test_the_file_of_a_socket_is_passed_to_the_process_that_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        one = adopt_listener(os.dup(sock.fileno()), str(path), is_ours=True)
    with one:
        assert describe([one], with_files=True) == ((one.fileno(), str(path), True),)
        assert describe([one], with_files=False) == ((one.fileno(), None, True),)


def test_a_closed_descriptor_is_ignored() -> None:
    end = os.open(os.devnull, os.O_RDONLY)
    os.close(end)
    fields = {"role": "worker", "parent": 1, "listeners": [], "channel": end, "child": [-1, -1]}
    given = take_inherited({restart.VARIABLE: json.dumps(fields)})
    assert given is not None
    assert (given.channel, given.listeners, given.child) == (end, (), (-1, -1))


# The command


def printed(code: str, directory: Path, **environ: str) -> str:
    begin = "from picowsgi.process.restart import Command\nimport os, sys\n"
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env={**os.environ, **environ},
        timeout=60,
    ).stdout.strip()


def test_the_command_of_the_program_itself_ends_with_the_server(tmp_path: Path) -> None:
    code = "print([Command.of_this_process(argv).is_running for argv in (None, [])])"
    assert printed(code, tmp_path) == "[True, False]"


def test_a_python_without_the_original_arguments_is_started_as_a_module(tmp_path: Path) -> None:
    code = """
del sys.orig_argv
sys.argv = ["x", "a:b"]
print(Command.of_this_process().arguments == (sys.executable, "-m", "picowsgi", "a:b"))
"""
    assert printed(code, tmp_path) == "True"


@pytest.mark.parametrize("pwd", ["", "relative", "/nonexistent", "/"])
def test_the_directory_is_that_of_the_system_when_the_shell_has_a_wrong_one(
    tmp_path: Path, pwd: str
) -> None:
    code = "print(Command.of_this_process().directory)"
    (tmp_path / "relative").symlink_to(".")
    assert printed(code, tmp_path, PWD=pwd) == str(tmp_path)


def test_a_removed_directory_becomes_the_root(tmp_path: Path) -> None:
    code = """
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
print(Command.of_this_process().directory)
"""
    assert printed(code, tmp_path, PWD=str(tmp_path / "gone")) == "/"


# The sockets and settings that a process hands over


def test_inherited_sockets_and_settings_arrive_and_leave_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "s"
    settings = Settings(bind=("127.0.0.1:0", f"unix:{path}"))
    sockets = open_sockets(settings.binds(), settings.backlog)
    try:
        inherited = Inherited(
            "keeper",
            os.getpid(),
            tuple(
                (os.dup(number), file, ours)
                for number, file, ours in describe(sockets, with_files=True)
            ),
            child=(9, os.open(os.devnull, os.O_RDONLY)),
            settings={"bind": ["a", "b"], "port": 5, "sources": {"port": "--port"}},
            metrics=(os.open(os.devnull, os.O_RDONLY), (os.open(os.devnull, 0), None, True)),
        )
        assert inherited.descriptors()[-2:] == inherited.metrics_descriptors()
        for number in inherited.metrics_descriptors():
            os.set_inheritable(number, True)
        os.set_inheritable(inherited.child[1], True)
        environ = {restart.VARIABLE: json.dumps(dataclasses.asdict(inherited)), "X": "y"}
        taken = take_inherited(environ)
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
        for number in inherited.metrics_descriptors():
            assert not os.get_inheritable(number)
            os.close(number)
        worker = Inherited("worker", 1, (), metrics=(7, None))
        assert worker.metrics_descriptors() == [7]
        message = {restart.VARIABLE: json.dumps(dataclasses.asdict(worker))}
        assert take_inherited(message) == worker
        close_sockets(adopted)
        assert not path.exists(), "expected the process that gets the file to remove it"
    finally:
        close_sockets(sockets)


def test_inherited_descriptors_are_not_inherited_again() -> None:
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
        take_inherited({restart.VARIABLE: json.dumps(fields)})
        assert [os.get_inheritable(each) for each in numbers] == [False] * 3 + [True]
        assert numbers[-1] == other
    finally:
        for number in numbers:
            os.close(number)


def test_a_keeper_accepts_only_a_message_from_its_own_process() -> None:
    text = json.dumps({"role": "keeper", "parent": os.getpid() + 1})
    assert take_inherited({restart.VARIABLE: text}) is None
    assert take_inherited({}) is None


def test_the_command_equals_that_of_the_start() -> None:
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


def test_the_command_has_the_environment_of_the_start_without_passed_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(link))
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv(restart.VARIABLE, "x")
    command = Command.of_this_process([])
    assert command.directory == str(link), "expected the name of the shell"
    assert not {"LISTEN_PID", restart.VARIABLE} & set(command.environ)
    monkeypatch.setenv("PWD", "/")
    assert Command.of_this_process([]).directory == str(tmp_path)
