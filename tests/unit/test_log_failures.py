"""The error log with failures: broken handlers, broken objects, renamed files."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi.config.log_config import read_log_config
from picowsgi.errors import ConfigError
from picowsgi.log import (
    configure,
    get_logger,
    log_failure,
    printable_lines,
    reopen,
    request_line,
    show,
    write_standard_error,
)
from support import TIMEOUT


@pytest.fixture(autouse=True)
def _unchanged_logger() -> Iterator[None]:
    logger = logging.getLogger("picowsgi")
    before = (list(logger.handlers), logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


class Broken(logging.Handler):
    """A handler that raises the error of the test."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def handle(self, _record: logging.LogRecord) -> bool:
        raise self.error


def only(handler: logging.Handler) -> None:
    logger = get_logger().logger
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel("INFO")


class Unshowable:
    def __repr__(self) -> str:
        raise KeyError("no repr")

    __str__ = __repr__


# The format


def test_a_line_has_its_time_its_process_and_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    get_logger().warning("it %s", "works")
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} \[\d+\] warning: it works\n", line
    )


def test_a_stack_is_below_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    get_logger().warning("here", stack_info=True)
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("warning: here")
    assert second == "    Stack (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    try:
        raise ValueError("wrong")
    except ValueError:
        get_logger().warning("here", stack_info=True, exc_info=True)
    text = capsys.readouterr().err
    assert 0 < text.index("    ValueError: wrong\n") < text.index("    Stack (most recent")


def test_a_line_names_its_source(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("one")
    get_logger().log(logging.WARNING, "two")
    assert [Path(record.pathname).name for record in caplog.records] == ["test_log_failures.py"] * 2


def test_a_json_object_has_a_time_and_only_an_error_has_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    get_logger().info("one")
    log_failure("two", "Traceback\n  of \x1b another process\n\n")
    one, two = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert set(one) == {"time", "level", "pid", "message"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", one["time"])
    assert two["traceback"] == "Traceback\n  of \\x1b another process"
    assert (two["level"], two["message"]) == ("error", "two")


def test_details_of_another_process_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log_failure("broken", "Traceback\n  of it\n")
    head, *details = capsys.readouterr().err.splitlines()
    assert head.endswith("error: broken")
    assert details == ["    Traceback", "      of it"]
    log_failure("broken", "")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_configuring_again_adds_no_second_handler(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "json", "text"):
        configure("info", form)
    get_logger().info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert not get_logger().logger.propagate


def test_a_level_that_is_off_formats_nothing() -> None:
    only(Broken(KeyError()))
    get_logger().debug("not written", Unshowable())


# Handlers that fail


@pytest.mark.parametrize("error", [KeyError("no disk"), OSError("no disk")])
def test_a_line_that_a_handler_loses_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    only(Broken(error))
    get_logger().error("a\n%s", "line")
    assert capsys.readouterr().err == (
        f"picowsgi: error: a\\nline (logging it failed: {error!r})\n"
    )
    get_logger().warning("100%", exc_info=ValueError("the cause"))
    assert capsys.readouterr().err == (
        f"picowsgi: warning: 100%: ValueError (logging it failed: {error!r})\n"
    )
    log_failure("no application", "Traceback")
    assert capsys.readouterr().err == (
        f"picowsgi: error: no application (logging it failed: {error!r})\n"
    )


def test_only_the_main_thread_handles_a_signal_in_a_log_handler(
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        get_logger().error("a line")
    assert capsys.readouterr().err == ""
    raised: list[BaseException] = []

    def other() -> None:
        try:
            get_logger().error("a line")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(TIMEOUT)
    assert raised == []
    assert "a line (logging it failed: KeyboardInterrupt())" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_standard_error_may_be_missing_or_closed(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    only(Broken(KeyError()))
    get_logger().error("lost")
    write_standard_error("lost")


def test_output_to_standard_error_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "utf-8"))
    write_standard_error("text")
    assert raw.getvalue() == b"text"


# Objects and texts of an application


def test_an_object_that_cannot_be_printed_is_named_by_its_type() -> None:
    assert show([1]) == "[1]"
    assert show(Unshowable()) == "<Unshowable object: KeyError in its __repr__>"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REQUEST_METHOD": "GET", "REQUEST_URI": "/a\x1b"}, "GET /a\\x1b"),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/p"}, "GET /p"),
        ({"REQUEST_METHOD": "GET", "REQUEST_URI": 5, "PATH_INFO": "/p"}, "GET /p"),
        ({"REQUEST_METHOD": 5, "REQUEST_URI": "/"}, "? /"),
        ({}, "? ?"),
    ],
)
def test_a_request_is_named_by_its_method_and_target(
    environ: dict[str, Any], expected: str
) -> None:
    assert request_line(environ) == expected


def test_lines_keep_their_line_ends_and_no_other_control_character() -> None:
    assert printable_lines("a\tb\n\x00\x7f\x9f\xe9\r\n") == "a\\tb\n\\x00\\x7f\\x9f\xe9\\r\n"


# Files


def test_renamed_files_are_opened_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = logging.FileHandler(folder / "log")
    late = logging.FileHandler(folder / "late", delay=True)
    logger = logging.getLogger("picowsgi.of.the.tests")
    logger.handlers[:] = [handler, late]
    logger.propagate = False
    try:
        logger.warning("one")
        before = handler.stream
        (folder / "log").rename(folder / "log.1")
        reopen()
        logger.warning("two")
        assert before.closed
        assert (folder / "log").read_text() == "two\n"
        assert (folder / "late").read_text() == "one\ntwo\n"
        folder.rename(tmp_path / "elsewhere")
        reopen()
        assert "cannot open a log file again" in caplog.text
        logger.warning("three")
        assert (tmp_path / "elsewhere" / "log").read_text() == "two\nthree\n"
    finally:
        logger.handlers.clear()
        handler.close()
        late.close()


def test_the_files_of_the_root_logger_are_opened_again_too(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        before = handler.stream
        reopen()
        assert before.closed
        assert not handler.stream.closed
    finally:
        root.removeHandler(handler)
        handler.close()


# The configuration file


def test_a_configuration_replaces_standard_error_when_it_takes_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("error")
    other = logging.getLogger("of.the.tests")
    file = tmp_path / "log.toml"
    file.write_text("[loggers.else]\nlevel = 'INFO'\n")
    apply = read_log_config(str(file))
    logger = get_logger().logger
    assert len(logger.handlers) == 1
    apply()
    assert logger.handlers == []
    assert (logger.propagate, logger.level) == (True, logging.NOTSET)
    assert not other.disabled, "expected existing loggers to stay"
    get_logger().error("not to standard error")
    assert "not to" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("log.json", None, "cannot read .*: No such file or directory"),
        ("log.json", "a = 1", "is no logging configuration"),
        ("log.toml", "{}", "is no logging configuration"),
        ("log.toml", "version = 7", "is no logging configuration: Unsupported version: 7"),
        ("log.toml", "[handlers.a]\nclass = 'x.y'", "is no logging configuration: .*x"),
    ],
)
def test_an_invalid_file_gives_the_reason(
    tmp_path: Path, name: str, text: str | None, expected: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=f"--log-config: .*{expected}"):
        read_log_config(str(file))()
