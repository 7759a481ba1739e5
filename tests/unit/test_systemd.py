"""sd_listen_fds(3) and sd_notify(3), without systemd."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from picowsgi.errors import BindError
from picowsgi.system.systemd import Notifier, take_sockets
from support import TIMEOUT


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(TIMEOUT)
        yield sock


def notifier(manager: socket.socket, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **more})


def nothing_came(manager: socket.socket) -> bool:
    manager.setblocking(False)
    try:
        return not manager.recv(100)
    except BlockingIOError:
        return True


def test_each_state_has_its_message(manager: socket.socket) -> None:
    one = notifier(manager)
    one.ready()
    one.stopping()
    one.succeeded_by(77)
    assert [manager.recv(100) for _ in range(3)] == [
        b"READY=1",
        b"STOPPING=1",
        b"MAINPID=77\nREADY=1",
    ]


def test_a_reload_message_has_the_time_of_its_beginning(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notifier(manager).reloading()
    word, stamp = manager.recv(100).decode().split("\n")
    assert word == "RELOADING=1"
    name, _, microseconds = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


def test_the_watchdog_gets_a_message_at_half_of_its_interval(manager: socket.socket) -> None:
    one = notifier(manager, WATCHDOG_USEC="3000000")
    assert one.interval == 1.5
    for now in (1000.0, 1001.0, 1001.5, 1002.9, 1003.0):
        one.ping(now)
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    assert nothing_came(manager)


@pytest.mark.parametrize("microseconds", ["", "x", "-5", "1.5", "0"])
def test_without_an_interval_there_is_no_watchdog(
    manager: socket.socket, microseconds: str
) -> None:
    one = notifier(manager, WATCHDOG_USEC=microseconds)
    assert one.interval == 0
    one.ping(1000.0)
    assert nothing_came(manager)


def test_another_process_may_send_the_messages_instead(manager: socket.socket) -> None:
    one = notifier(manager, WATCHDOG_USEC="3000000")
    one.disable()
    one.ready()
    one.ping(1000.0)
    assert one.interval == 0
    assert nothing_came(manager)


def test_an_invalid_address_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("notify")
        Notifier({"NOTIFY_SOCKET": "notify"}).ready()
        assert nothing_came(sock)


def test_a_manager_that_is_gone_or_does_not_read_causes_no_error(
    manager: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "picowsgi")
    one = notifier(manager)
    for _ in range(2000):
        one.ready()
        if caplog.records:
            break
    assert "cannot notify the service manager" in caplog.text
    caplog.clear()
    Path(tmp_path / "notify").unlink()
    one.ready()
    assert len(caplog.records) == 1


# Sockets


@pytest.mark.parametrize("count", ["", "x", "-1"])
def test_an_invalid_count_means_no_sockets(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "X": "y"}
    assert take_sockets(environ, 5) == []
    assert environ == {"X": "y"}


def taken(count: int, names: str, *descriptors: int) -> str:
    """The sockets of a process whose descriptors from 3 on are these, as systemd starts one."""
    code = f"""
import os, sys
for number, old in enumerate(map(int, sys.argv[1:]), 3):
    os.dup2(old, number)
from picowsgi.errors import BindError
from picowsgi.system.systemd import take_sockets
environ = {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "{count}", "LISTEN_FDNAMES": "{names}"}}
try:
    print([(one.fileno(), one.getsockname()[1]) for one in take_sockets(environ, 5)])
except BindError as error:
    print(error, error.errno is not None)
"""
    # Free descriptors above those that the process will use: this one may have any of them open.
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, 50) for one in descriptors]
    try:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, high)],
            capture_output=True,
            text=True,
            check=True,
            pass_fds=high,
            timeout=60,
        ).stdout.strip()
    finally:
        for one in high:
            os.close(one)


def test_sockets_come_from_descriptor_3_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [sock.getsockname()[1] for sock in (one, two)]
        assert taken(2, "", one.fileno(), two.fileno()) == str([(3, ports[0]), (4, ports[1])])


def test_the_error_for_a_descriptor_that_cannot_listen_has_the_name_from_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, Path(os.devnull).open() as file:
        for names, label in (("web:log", "log"), ("web", "unknown")):
            text = taken(2, names, one.fileno(), file.fileno())
            assert text.startswith("cannot listen on fd://4: not a socket")
            assert text.endswith(f"(LISTEN_FDNAMES calls it {label}) True")


def test_the_error_is_a_bind_error() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "200"}
    with pytest.raises(BindError, match="LISTEN_FDNAMES calls it"):
        take_sockets(environ, 5)


# The addresses and numbers of the environment


def test_without_a_manager_no_message_is_sent() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier(dict(environ))
        notifier.ready()
        assert notifier.interval == 0


def test_the_watchdog_gets_two_messages_per_interval_unless_it_is_for_another_process() -> None:
    environ = {"NOTIFY_SOCKET": "@picowsgi-test", "WATCHDOG_USEC": "3000000"}
    assert Notifier(environ).interval == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": str(os.getpid())}).interval == 1.5
    assert Notifier({**environ, "WATCHDOG_PID": "1"}).interval == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the name is in no folder")
def test_a_message_reaches_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0picowsgi-test-{os.getpid()}")
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": f"@picowsgi-test-{os.getpid()}"})
        notifier.stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_sockets_for_another_process_are_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "X": "y"}
    assert take_sockets(environ, 10) == []
    assert environ == {"X": "y"}
