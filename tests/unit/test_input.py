"""wsgi.input and wsgi.errors (PEP 3333, "Input and Error Streams")."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from types import SimpleNamespace

import pytest

from picowsgi.wsgi.input import NO_CONTENT, ErrorStream, open_spooled


def test_the_input_of_a_request_without_content_is_at_its_end() -> None:
    with NO_CONTENT as stream:
        assert stream.read() == stream.read(5) == stream.read(None) == b""
        assert stream.readline() == stream.read1(3) == stream.getvalue() == b""
        assert stream.readlines() == stream.readlines(1) == list(stream) == []
        buffer = bytearray(b"abc")
        assert stream.readinto(buffer) == stream.readinto1(buffer) == 0
        assert buffer == b"abc"
        assert stream.tell() == stream.seek(0) == stream.seek(5, 1) == 0
        assert iter(stream) is stream
    stream.flush()
    stream.close()
    assert stream.closed is False, "expected it to stay open for the next request"
    assert stream.mode == "rb"


def test_the_input_of_a_request_without_content_is_a_stream_for_reading_only() -> None:
    assert isinstance(NO_CONTENT, io.BufferedIOBase)
    assert (NO_CONTENT.readable(), NO_CONTENT.seekable()) == (True, True)
    assert (NO_CONTENT.writable(), NO_CONTENT.isatty()) == (False, False)
    for refused in (
        NO_CONTENT.fileno,
        lambda: NO_CONTENT.write(b"a"),
        lambda: NO_CONTENT.writelines([b"a"]),
        lambda: NO_CONTENT.truncate(0),
    ):
        with pytest.raises(io.UnsupportedOperation):
            refused()
    with pytest.raises(AttributeError):
        NO_CONTENT.seen = True


def test_content_in_a_file_is_read_from_its_beginning_and_owned_by_the_stream() -> None:
    descriptor, name = tempfile.mkstemp()
    os.unlink(name)  # noqa: PTH108 (a descriptor's)
    os.write(descriptor, b"content")
    request = SimpleNamespace(content_file=descriptor)
    stream = open_spooled(request)
    assert request.content_file == -1, "expected one owner of the descriptor"
    assert stream.fileno() == descriptor
    assert stream.read() == b"content"
    stream.close()
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(descriptor)


def test_errors_are_written_to_the_current_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = ErrorStream()
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    assert stream.write("abc") == 3
    monkeypatch.setattr(sys, "stderr", second)
    stream.writelines(["d", "e"])
    assert (first.getvalue(), second.getvalue()) == ("abc", "de")


def test_written_text_is_flushed_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "utf-8"))
    stream = ErrorStream()
    stream.write("late")
    stream.flush()
    assert raw.getvalue() == b"late"


class Broken:
    """A stream that is closed, or whose disk is full."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _fail(self, *_arguments: object) -> None:
        raise self.error

    write = writelines = flush = _fail


@pytest.mark.parametrize("error", [OSError("full"), ValueError("closed")])
def test_an_application_that_reports_an_error_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stream = ErrorStream()
    for broken in (Broken(error), None):
        monkeypatch.setattr(sys, "stderr", broken)
        assert stream.write("abc") == 3
        stream.writelines(["d"])
        stream.flush()
    with pytest.raises(AttributeError):
        stream.seen = True  # type: ignore[attr-defined]
