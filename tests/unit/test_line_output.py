"""Lines for pipes, terminals and files that may take nothing for a while."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from picowsgi import line_output
from picowsgi.line_output import LineOutput, may_block, open_log, split_lines, write_lines
from support import wait_until

PIPE_SIZE = 4096


def describe_lost(count):
    return b"lost %d\n" % count


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, 1031, PIPE_SIZE)  # F_SETPIPE_SZ
    yield reader, writer
    os.set_blocking(reader, False)
    while True:  # so that a thread can end its last call
        try:
            os.read(reader, 1 << 20)
        except BlockingIOError:
            break
    os.close(writer)
    os.close(reader)


def read_lines(reader, count):
    data = b""
    while data.count(b"\n") < count:
        data += os.read(reader, 1 << 20)
    return data.splitlines()


@pytest.mark.parametrize("most", [1, 4, 5, 9, 100])
def test_parts_are_whole_lines_and_together_the_whole_text(most):
    data = b"a\nbcd\n\nlonger\nx\nno end"
    parts = list(split_lines(data, most))
    assert b"".join(parts) == data
    for part in parts[:-1]:
        assert part.endswith(b"\n")
        assert len(part) <= most or part.count(b"\n") == 1


def test_a_descriptor_that_may_block_is_recognised(tmp_path, pipe):
    with (tmp_path / "file").open("wb") as file, Path(os.devnull).open("wb") as null:
        assert not may_block(file.fileno())
        assert not may_block(null.fileno())
    assert may_block(pipe[1])
    pair = socket.socketpair()
    assert may_block(pair[0].fileno())
    terminal, other = os.openpty()
    assert may_block(other)
    for one in pair:
        one.close()
    os.close(terminal)
    os.close(other)


def test_a_line_is_written_when_the_call_returns(pipe):
    reader, writer = pipe
    output = LineOutput(describe_lost)
    output.write(writer, b"one\n")
    os.set_blocking(reader, False)
    assert os.read(reader, 100) == b"one\n"


def test_the_log_waits_once_for_a_pipe_without_a_reader(pipe):
    _, writer = pipe
    output = LineOutput(describe_lost)
    line = b"x" * 999 + b"\n"
    began = time.monotonic()
    for _ in range(200):
        output.write(writer, line)
    assert time.monotonic() - began < 20 * line_output.WAIT


def test_lines_beyond_the_room_are_dropped_and_counted(pipe):
    reader, writer = pipe
    output = LineOutput(describe_lost)
    line = b"x" * 999 + b"\n"
    for _ in range(400):
        output.write(writer, line)
    data = b""
    while b"lost" not in data:
        data += os.read(reader, 1 << 20)
    lines = data.splitlines()
    (lost,) = [int(one.split()[1]) for one in lines if one.startswith(b"lost")]
    assert lost > 0
    output.write(writer, b"last\n")
    while not data.endswith(b"last\n"):
        data += os.read(reader, 1 << 20)
    assert data.count(line) + lost == 400


def test_the_end_does_not_wait_for_a_pipe_without_a_reader(pipe):
    _, writer = pipe
    output = LineOutput(describe_lost)
    for _ in range(10):
        output.write(writer, b"x" * 999 + b"\n")
    began = time.monotonic()
    output.end(0.05)
    output.write(writer, b"after the end\n")
    assert time.monotonic() - began < 10 * line_output.WAIT


def test_lines_after_the_end_are_written_without_a_thread(pipe):
    reader, writer = pipe
    output = LineOutput(describe_lost)
    output.end()
    output.write(writer, b"one\n")
    assert os.read(reader, 100) == b"one\n"


def test_a_forked_child_writes_its_own_lines(pipe):
    reader, writer = pipe
    output = LineOutput(describe_lost)
    output.write(writer, b"parent\n")
    child = os.fork()
    if child == 0:
        output.write(writer, b"child\n")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    output.write(writer, b"parent again\n")
    assert read_lines(reader, 3) == [b"parent", b"child", b"parent again"]


def test_long_lines_of_two_processes_are_not_mixed():
    reader, writer = os.pipe()
    children = []
    for letter in (b"a", b"b"):
        child = os.fork()
        if child == 0:
            for _ in range(300):
                write_lines(writer, letter * 6000 + b"\n" + letter * 10 + b"\n")
            os._exit(0)
        children.append(child)
    os.close(writer)
    data = b""
    while part := os.read(reader, 1 << 20):
        data += part
    os.close(reader)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(set(data.splitlines())) == sorted(
        letter * size for letter in (b"a", b"b") for size in (6000, 10)
    )
    assert data.count(b"\n") == 1200


def test_lines_that_a_full_disk_refuses_are_written_later(tmp_path):
    output = LineOutput(describe_lost)
    path = tmp_path / "log"
    descriptor = open_log(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1005, before[1]))
    try:
        for number in range(200):
            output.write(descriptor, b"line %4d\n" % number)
        assert path.stat().st_size == 1005
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    output.write(descriptor, b"last\n")
    os.close(descriptor)
    expected = [f"line {number:4}" for number in range(200)]
    assert path.read_text().splitlines() == [*expected, "last"]


def test_a_disk_that_stays_full_loses_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(line_output, "QUEUE_MOST", 1000)
    output = LineOutput(describe_lost)
    path = tmp_path / "log"
    descriptor = open_log(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (95, before[1]))
    try:
        for number in range(200):
            output.write(descriptor, b"line %4d\n" % number)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for _ in range(2):
        output.write(descriptor, b"later\n")
    os.close(descriptor)
    lines = path.read_text().splitlines()
    kept = [line for line in lines if line.startswith("line")]
    assert kept == [f"line {number:4}" for number in range(len(kept))]
    assert lines[len(kept) :] == [f"lost {201 - len(kept)}", "later"]


def test_a_fifo_can_be_opened_without_a_reader(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    descriptor = open_log(path)
    assert write_lines(descriptor, b"early\n") == 0
    with path.open("rb") as reader:
        assert reader.readline() == b"early\n"
    os.close(descriptor)


def test_many_threads_lose_and_tear_no_line(pipe):
    reader, writer = pipe
    output = LineOutput(describe_lost)

    def run(letter):
        for _ in range(200):
            output.write(writer, letter * 99 + b"\n")

    threads = [threading.Thread(target=run, args=(b"%c" % code,)) for code in b"abcd"]
    for thread in threads:
        thread.start()
    lines = read_lines(reader, 800)
    for thread in threads:
        thread.join()
    assert sorted(lines) == sorted(b"%c" % code * 99 for code in b"abcd" for _ in range(200))


def test_a_closed_pipe_loses_only_the_lines():
    reader, writer = os.pipe()
    os.close(reader)
    output = LineOutput(describe_lost)
    output.write(writer, b"lost\n")
    os.close(writer)
    output.write(writer, b"lost as well\n")
    assert write_lines(writer, b"one\ntwo\n") == 2
    wait_until(lambda: not output._waiting, "the queue to be empty")
