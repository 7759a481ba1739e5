"""The messages between a worker and its supervisor."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from picowsgi.errors import AppImportError
from picowsgi.process import status_pipe
from picowsgi.process.status_pipe import StatusPipe, make_pair, read, read_failure, write

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture
def pair() -> Iterator[list[int]]:
    ends = [*make_pair()]
    yield ends
    for end in ends:
        os.close(end)


def shut(pair: list[int]) -> int:
    """Close the second end, and return the first."""
    os.close(pair.pop())
    return pair[0]


def test_neither_end_blocks_or_is_inherited(pair: list[int]) -> None:
    for end in pair:
        assert not os.get_blocking(end)
        assert not os.get_inheritable(end)
        assert read(end) is None


def test_each_end_reads_the_messages_of_the_other(pair: list[int]) -> None:
    assert write(pair[0], b"abc")
    assert write(pair[1], b"d")
    assert (read(pair[1]), read(pair[0])) == (b"abc", b"d")
    assert read(pair[1]) is None


def test_the_pipe_has_room_for_a_whole_failure_and_hundreds_of_messages(pair: list[int]) -> None:
    assert all(write(pair[0], b".") for _ in range(200))
    assert write(pair[0], b"F" + b"x" * 49152)


def test_a_write_does_not_wait_for_a_peer_that_does_not_read(pair: list[int]) -> None:
    while write(pair[0], b"x" * 10000):
        pass
    assert not write(pair[0], b"x" * 10000)
    assert read(pair[1])


def test_the_exit_of_the_peer_is_an_end_of_file(pair: list[int]) -> None:
    write(pair[1], b"last")
    end = shut(pair)
    assert [read(end), read(end), read(end)] == [b"last", b"", b""]


def test_the_exit_of_a_peer_that_has_not_read_is_an_end_of_file_too(pair: list[int]) -> None:
    write(pair[0], b"unread")
    end = shut(pair)
    assert read(end) == b""


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_write_to_a_closed_peer_does_not_end_the_process(
    pair: list[int], handler: signal.Handlers
) -> None:
    end = shut(pair)
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        assert not write(end, b"x")
        assert signal.SIGPIPE not in signal.sigpending()
        assert signal.SIGPIPE not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_signal_that_was_blocked_before_stays_blocked(pair: list[int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        write(pair[0], b"x")
        assert signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_write_to_a_closed_descriptor_fails() -> None:
    end = os.open(os.devnull, os.O_RDONLY)
    os.close(end)
    assert not write(end, b"x")


# The worker's end


def test_a_worker_sends_single_bytes_and_knows_whether_they_arrive(pair: list[int]) -> None:
    link = StatusPipe(pair[0], os.getppid())
    assert link.send(status_pipe.READY)
    assert link.send(status_pipe.HEARTBEAT)
    assert read(pair[1]) == b"R."
    assert link.fileno() == pair[0]
    shut(pair)
    assert not link.send(status_pipe.HEARTBEAT)


def test_orders_arrive_in_their_order_until_the_supervisor_is_gone(pair: list[int]) -> None:
    link = StatusPipe(pair[0], os.getppid())
    assert link.read_orders() == b""
    write(pair[1], b"L")
    write(pair[1], b"DN")
    assert link.read_orders() == b"LDN"
    assert (link.is_supervisor_gone(), link.fileno()) == (False, pair[0])
    write(pair[1], b"D")
    shut(pair)
    assert link.read_orders() == b"D"
    assert (link.is_supervisor_gone(), link.fileno(), link.read_orders()) == (True, -1, b"")


def test_the_supervisor_of_a_worker_is_gone_when_the_parent_is_another_process(
    pair: list[int],
) -> None:
    assert StatusPipe(pair[0], os.getppid() + 1).is_supervisor_gone()
    assert not StatusPipe(pair[0], os.getppid()).is_supervisor_gone()


def test_a_failure_arrives_as_it_was_sent(pair: list[int]) -> None:
    error = AppImportError("it \N{SNOWMAN} failed", "Traceback\n  of it\n")
    StatusPipe(pair[0], 1).send_failure(error)
    data = read(pair[1])
    assert data is not None
    assert data[:1] == b"F"
    again = read_failure(data[1:])
    assert (str(again), again.application_traceback) == (str(error), error.application_traceback)


def test_a_long_failure_keeps_its_beginning_and_the_end_of_its_traceback(
    pair: list[int],
) -> None:
    error = AppImportError("first " + "m" * 9000, "t" * 9000 + " last")
    StatusPipe(pair[0], 1).send_failure(error)
    again = read_failure((read(pair[1]) or b"")[1:])
    assert str(again) == "first " + "m" * 1994
    assert again.application_traceback == "t" * 5995 + " last"


@pytest.mark.parametrize("text", [b"", b'["it', b'["a"]', b'["a", "b", "c"]', b"\xff"])
def test_an_incomplete_failure_has_no_reason(text: bytes) -> None:
    again = read_failure(text)
    assert str(again) == "the application could not be loaded"
    assert again.application_traceback == ""
    assert str(read_failure(json.dumps(["a", "b"]).encode())) == "a"


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_has_no_status_pipe_and_its_own_children_keep_their_files(
    pair: list[int],
) -> None:
    gc.collect()  # pipes of other tests, whose descriptors are closed
    descriptor = os.dup(pair[0])
    link = StatusPipe(descriptor, os.getppid())
    pid = os.fork()
    if pid == 0:
        was_open = is_open(descriptor)
        os.dup2(pair[1], descriptor)  # a file of the child with the same number
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if is_open(descriptor) else 1)
        os._exit(2 * was_open + status_of(grandchild))
    assert status_of(pid) == 0
    with socket.socket(fileno=descriptor):
        assert link.send(status_pipe.HEARTBEAT), "expected the parent to keep it"
