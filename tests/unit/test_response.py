"""A response of the application, without a core, and the files that the core may send."""

from __future__ import annotations

import gzip
import io
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from picowsgi import core
from picowsgi.errors import ClientGoneError, ResponseError
from picowsgi.wsgi.response import FileWrapper, Response, real_file, to_bytes
from picowsgi.wsgi.response_head import HeadEncoder

TEXT = [("Content-Type", "text/plain")]


class Wire:
    """Records the calls to the core, and returns the given results."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.outcome = 0
        self.exchange = 7


class Recorded(Response):
    """A response whose core is a list."""

    __slots__ = ()

    @staticmethod
    def send_first(wire: Wire, *arguments: Any) -> int:
        wire.calls.append(("first", *arguments))
        return wire.outcome

    @staticmethod
    def send_data(wire: Wire, *arguments: Any) -> int:
        wire.calls.append(("data", *arguments))
        return wire.outcome

    @staticmethod
    def check_client(wire: Wire, exchange: int) -> int:
        wire.calls.append(("check", exchange))
        return wire.outcome

    @staticmethod
    def is_detached(_wire: Wire, _exchange: int) -> int:
        return 0

    @staticmethod
    def current_exchange(wire: Wire) -> int:
        return wire.exchange


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def response(wire: Wire) -> Response:
    return Recorded(wire, HeadEncoder().encode)


def failure() -> Any:
    try:
        raise KeyError("the application's")
    except KeyError:
        return sys.exc_info()


def test_the_head_goes_to_the_core_with_the_first_content_and_once(
    wire: Wire, response: Response
) -> None:
    write = response.start_response("200 OK", [*TEXT, ("Content-Length", "6")])
    assert wire.calls == []
    write(b"abc")
    write(b"de")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"
    flags = core.ADD_DATE | core.ADD_SERVER | core.HAS_LENGTH
    assert wire.calls == [
        ("first", 7, head, len(head), 6, flags, b"abc", 3, 0),
        ("data", 7, b"de", 2, 0),
    ]
    assert (response.exchange, response.started) == (7, True)


def test_a_head_without_content_is_passed_alone(wire: Wire, response: Response) -> None:
    response.start_response("200 OK", TEXT)
    response.begin()
    (call,) = wire.calls
    assert (call[0], call[4:]) == ("first", (-1, core.ADD_DATE | core.ADD_SERVER, b"", 0, 0))


@pytest.mark.parametrize("use", [lambda one: one.begin(), lambda one: one.send(b"a")])
def test_content_without_a_head_is_an_error(wire: Wire, response: Response, use: Any) -> None:
    with pytest.raises(ResponseError, match="has not called start_response"):
        use(response)
    assert wire.calls == []
    assert not response.started


def test_a_second_head_needs_exc_info(response: Response) -> None:
    response.start_response("200 OK", TEXT)
    with pytest.raises(ResponseError, match="again without exc_info"):
        response.start_response("204 No Content", [])
    response.start_response("500 Oops", TEXT, failure())
    assert response.head is not None
    assert response.head.data.startswith(b"HTTP/1.1 500 Oops\r\n")


def test_an_error_after_the_first_content_is_raised_with_its_traceback(
    response: Response,
) -> None:
    response.start_response("200 OK", TEXT)
    response.send(b"a")
    error = failure()
    with pytest.raises(KeyError) as caught:
        response.start_response("500 Oops", TEXT, error)
    assert caught.value is error[1]
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "failure"
    response.start_response("500 Oops", TEXT, (None, None, None))


def test_a_response_cannot_change_after_the_end_of_the_request(
    wire: Wire, response: Response
) -> None:
    write = response.start_response("200 OK", TEXT)
    response.over = True
    response.exchange = 3
    with pytest.raises(ResponseError, match="write is called after the end"):
        write(b"a")
    assert response.exchange == 3
    with pytest.raises(ResponseError, match="start_response is called after the end"):
        response.start_response("200 OK", TEXT, failure())
    assert wire.calls == []


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (0, (False, False, False)),
        (core.COMPLETE, (True, False, False)),
        (core.UNWANTED, (False, True, False)),
        (core.OVERFLOW, (False, True, True)),
    ],
)
def test_the_result_of_a_send_is_kept(
    wire: Wire, response: Response, outcome: int, expected: tuple[bool, bool, bool]
) -> None:
    response.start_response("200 OK", TEXT)
    for _ in range(2):
        wire.outcome = outcome
        response.send(b"a")
        assert (response.complete, response.enough, response.overflow) == expected


@pytest.mark.parametrize(
    ("outcome", "error"), [(core.GONE, ClientGoneError), (core.OVER, ResponseError)]
)
def test_an_application_gets_an_error_when_no_client_reads_its_content(
    wire: Wire, response: Response, outcome: int, error: type[Exception]
) -> None:
    response.start_response("200 OK", TEXT)
    wire.outcome = outcome
    with pytest.raises(error):
        response.send(b"a")
    with pytest.raises(error):
        response.send(b"")
    with pytest.raises(error):
        response.begin()


def test_empty_content_checks_the_client_and_sends_nothing(wire: Wire, response: Response) -> None:
    response.send(b"")
    response.start_response("200 OK", TEXT)
    response.send(b"")
    assert wire.calls == [("check", 0), ("check", 0)]
    assert (response.started, response.enough) == (False, False)
    wire.outcome = core.UNWANTED
    response.send(b"")
    assert response.enough


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_empty_content_is_valid_for_a_status_without_content(
    response: Response, status: str
) -> None:
    response.start_response(status, [])
    response.send(b"")
    assert response.enough


def test_content_is_bytes_or_like_bytes(wire: Wire, response: Response) -> None:
    class Kind(bytes):
        pass

    response.start_response("200 OK", TEXT)
    for item in (bytearray(b"ab"), memoryview(b"ab"), Kind(b"ab"), b"ab"):
        response.send(item, 4)
        data, size, flags = wire.calls[-1][-3:]
        assert (type(data), data, size, flags) == (bytes, b"ab", 2, 4)
        assert to_bytes(item) == b"ab"
    for wrong in ("ab", 5, None, [b"ab"]):
        with pytest.raises(ResponseError, match="content must be bytes, not"):
            response.send(wrong)  # type: ignore[arg-type]
    response.send(memoryview(b"abcd").cast("I"))
    assert wire.calls[-1][-3:] == (b"abcd", 4, 0)


# Files


def test_the_core_sends_only_real_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    for mode, buffering in (("rb", -1), ("rb", 0), ("r+b", -1), ("r+b", 0)):
        with path.open(mode, buffering) as file:
            assert real_file(file) is file
        assert real_file(file) is None, "expected a closed file to be read, which raises"
    with tempfile.NamedTemporaryFile() as named:
        named.write(b"x")
        named.flush()
        assert real_file(named) is named.file


def test_an_object_that_does_not_read_from_its_descriptor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")

    class Own(io.BufferedReader):
        pass

    class OwnRaw(io.FileIO):
        pass

    with gzip.open(path) as zipped, path.open() as text:
        assert real_file(zipped) is None
        assert real_file(text) is None
    with Own(io.FileIO(path)) as own, OwnRaw(path) as raw, io.BufferedReader(OwnRaw(path)) as both:
        assert [real_file(each) for each in (own, raw, both)] == [None] * 3
    with io.BufferedReader(io.BytesIO(b"abc")) as memory:  # type: ignore[arg-type]
        assert real_file(memory) is None
    with path.open("ab", 0) as writer:
        assert real_file(writer) is None


def test_a_file_without_a_size_is_read() -> None:
    reader, writer = os.pipe()
    ours, its = socket.socketpair()
    with open(reader, "rb") as pipe, open(writer, "wb", 0), ours, its:  # noqa: PTH123
        assert real_file(pipe) is None
        with ours.makefile("rb") as stream:
            assert real_file(stream) is None
    with Path("/dev/zero").open("rb", 0) as zero:
        assert real_file(zero) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and /sys")
def test_a_file_that_the_system_generates_is_read(tmp_path: Path) -> None:
    for name in ("/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled"):
        if os.access(name, os.R_OK):
            with Path(name).open("rb") as made:
                assert real_file(made) is None, name
    empty = tmp_path / "empty"
    empty.touch()
    with empty.open("rb") as file:
        assert real_file(file) is file
    for size in (5, 1):
        os.truncate(empty, size)  # a hole, which has no blocks
        with empty.open("rb") as file:
            assert real_file(file) is file


def test_a_file_whose_size_is_larger_than_its_content_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "file"
    empty.touch()
    os.truncate(empty, 5)
    asked: list[tuple[int, int]] = []

    def pread(_descriptor: int, count: int, offset: int) -> bytes:
        asked.append((count, offset))
        return b""

    with empty.open("rb") as file:
        monkeypatch.setattr(os, "pread", pread)
        assert real_file(file) is None
        assert asked == [(1, 4)], "expected a look at the last byte"

        def refuse(*_arguments: int) -> bytes:
            raise OSError

        monkeypatch.setattr(os, "pread", refuse)
        assert real_file(file) is None


def test_a_wrapper_reads_blocks_and_has_the_attributes_of_its_file() -> None:
    file = io.BytesIO(b"abcdefg")
    wrapper = FileWrapper(file, 3)
    assert iter(wrapper) is wrapper
    assert list(wrapper) == [b"abc", b"def", b"g"]
    wrapper.seek(1)
    assert wrapper.tell() == 1
    assert next(wrapper) == b"bcd"
    wrapper.close()
    assert file.closed
    with pytest.raises(AttributeError):
        _ = wrapper.absent
    assert next(FileWrapper(io.BytesIO(b"x" * 100_000))) == b"x" * 65536
