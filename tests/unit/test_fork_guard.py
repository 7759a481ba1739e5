"""The functions around a fork, and the end of a child that has returned to the server."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from picowsgi.system import fork_guard
from picowsgi.system.fork_guard import ClosedInChildren, guard, own_process
from support import TIMEOUT

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


class Guarded:
    """Records each call, and the process of the call."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls
        self.is_held = False
        guard(self)

    def before_fork(self) -> None:
        if not self.is_held:  # a second call changes nothing
            self.calls.append(f"{self.name} before")
        self.is_held = True

    def after_fork_in_parent(self) -> None:
        self.is_held = False
        self.calls.append(f"{self.name} parent")

    def after_fork_in_child(self) -> None:
        self.calls.append(f"{self.name} child")


def in_child(calls: list[str]) -> list[str]:
    """Fork, and return the calls in the child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, "\n".join(calls).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:  # noqa: PTH123 (a descriptor)
        text = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return text.split("\n")


@pytest.fixture
def calls() -> list[str]:
    gc.collect()
    return []


def test_functions_run_before_a_fork_and_in_reverse_order_after_it(calls: list[str]) -> None:
    things = [Guarded(name, calls) for name in "abc"]
    child = in_child(calls)
    assert len(things) == 3
    first = calls[:3]
    assert {*first} == {"a before", "b before", "c before"}
    names = [text[0] for text in reversed(first)]
    assert calls[3:] == [f"{name} parent" for name in names]
    assert child[3:] == [f"{name} child" for name in names]
    before = len(calls)
    in_child(calls)
    assert len(calls) == before + 6, "expected one call of each for each fork"


def test_a_freed_object_is_not_called(calls: list[str]) -> None:
    thing = Guarded("a", calls)
    del thing
    gc.collect()
    in_child(calls)
    assert calls == []


def test_a_child_that_the_server_forks_itself_counts_as_the_parent(calls: list[str]) -> None:
    thing = Guarded("a", calls)
    with own_process():
        assert in_child(calls) == ["a before", "a parent"]
    assert in_child(calls)[-2:] == ["a before", "a child"]
    with pytest.raises(KeyError), own_process():
        raise KeyError
    assert in_child(calls)[-1] == "a child"
    assert thing.calls is calls


def test_a_fork_in_another_thread_belongs_to_the_application(calls: list[str]) -> None:
    thing = Guarded("a", calls)
    found: list[str] = []
    with own_process():
        thread = threading.Thread(target=lambda: found.extend(in_child(calls)))
        thread.start()
        thread.join(TIMEOUT)
    assert found == ["a before", "a child"]
    assert thing.name == "a"


def test_an_object_that_is_closed_in_children_stays_open_in_the_parent(calls: list[str]) -> None:
    closed = ClosedInChildren(lambda: calls.append("closed"))
    assert in_child(calls) == ["closed"]
    assert calls == []
    assert closed


def test_one_fork_waits_for_another_and_releases_the_locks_afterwards(calls: list[str]) -> None:
    in_child(calls)
    done = threading.Event()

    def take() -> None:
        with fork_guard._forking:
            done.set()

    threading.Thread(target=take, daemon=True).start()
    assert done.wait(TIMEOUT), "expected the lock to be free after a fork"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        taken = fork_guard._forking.acquire(blocking=False)
        thread = threading.Thread(target=lambda: os.write(writer, b"x"))
        thread.start()
        thread.join()
        os._exit(0 if taken else 1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_waits_for_a_thread_that_registers_an_object(calls: list[str]) -> None:
    forked = threading.Event()

    def fork() -> None:
        in_child(calls)
        forked.set()

    with fork_guard._forking:
        thread = threading.Thread(target=fork, daemon=True)
        thread.start()
        assert not forked.wait(0.05)
    assert forked.wait(TIMEOUT)
    thread.join(TIMEOUT)


def test_the_second_call_repairs_an_error_in_one_of_the_functions(
    calls: list[str],
) -> None:
    class Interrupted(Guarded):
        times = 0

        def after_fork_in_child(self) -> None:
            self.times += 1
            if self.times == 1:
                raise KeyboardInterrupt
            super().after_fork_in_child()

    things = [Guarded("a", calls), Interrupted("i", calls), Guarded("b", calls)]
    child = in_child(calls)
    assert len(things) == 3
    assert {"a child", "b child", "i child"} <= {*child}


# The end of a child


def ended(error: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
from picowsgi.log import configure
from picowsgi.system.fork_guard import leave_child
configure("info")
sys.stdout.write("to be flushed")
{before}
leave_child({error})
"""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        ("SystemExit()", 0, ""),
        ("SystemExit(None)", 0, ""),
        ("SystemExit(3)", 3, ""),
        ("SystemExit(True)", 1, ""),
        ("SystemExit(-1)", 255, ""),
        ("SystemExit(259)", 3, ""),
        ("SystemExit('a reason')", 1, "a reason\n"),
        ("SystemExit(2.5)", 1, "2.5\n"),
    ],
)
def test_an_exit_in_a_child_ends_the_child(error: str, status: int, text: str) -> None:
    one = ended(error)
    assert (one.returncode, one.stderr, one.stdout) == (status, text, "to be flushed")


@pytest.mark.parametrize("error", ["None", "ValueError('wrong')"])
def test_a_child_that_returns_to_the_server_is_an_error(error: str) -> None:
    one = ended(error)
    assert (one.returncode, one.stdout) == (1, "to be flushed")
    assert "forked by the application, has returned to the server of its parent" in one.stderr
    assert ("ValueError: wrong" in one.stderr) == (error != "None")


@pytest.mark.parametrize(
    "before",
    [
        "sys.stdout = sys.stderr = None",
        "sys.stderr.close()",
        "class Deaf:\n    def write(self, _): raise KeyboardInterrupt\nsys.stderr = Deaf()",
        "class Deaf:\n    def flush(self): raise KeyboardInterrupt\nsys.stdout = Deaf()",
    ],
)
def test_a_child_ends_even_if_it_cannot_report_the_error(before: str) -> None:
    for error, status in (("SystemExit('x')", 1), ("ValueError()", 1), ("SystemExit(5)", 5)):
        assert ended(error, before).returncode == status


def test_any_object_can_be_guarded(calls: list[str]) -> None:
    things: list[Any] = [Guarded("a", calls), ClosedInChildren(lambda: calls.append("b"))]
    assert {*in_child(calls)} == {"a before", "a child", "b"}
    assert things
