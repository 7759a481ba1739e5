"""The error log: no client can break a line, and the program can configure it."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from picowsgi.config.log_config import read_log_config
from picowsgi.errors import ConfigError
from picowsgi.log import configure, get_logger, log_stack, printable


@pytest.fixture(autouse=True)
def _unchanged_logger():
    logger = logging.getLogger("picowsgi")
    before = (list(logger.handlers), logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def fail(message):
    try:
        raise ValueError(message)
    except ValueError:
        get_logger().error("error in %s", message, exc_info=True)


def test_a_record_is_one_line_and_its_traceback_is_indented(capsys):
    configure("info")
    fail("a\nb\x1b[31m")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith(r"error: error in a\nb\x1b[31m")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)


def test_a_record_is_one_json_object(capsys):
    configure("info", "json")
    fail('a\nb"\x1b')
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert entry["message"] == 'error in a\nb"\x1b'
    assert "ValueError" in entry["traceback"]
    assert entry["pid"] > 0


def test_the_level_and_the_format_can_be_changed(capsys):
    configure("error", "json")
    configure("warning", "text")
    get_logger().info("not shown")
    get_logger().warning("shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("warning: shown")


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_file_can_configure_logging_instead(tmp_path, suffix):
    log = tmp_path / "own.log"
    if suffix == "json":
        handler = {"class": "logging.FileHandler", "filename": str(log)}
        loggers = {"picowsgi": {"handlers": ["own"], "level": "INFO"}}
        text = json.dumps({"handlers": {"own": handler}, "loggers": loggers})
    else:
        text = f"""
            [handlers.own]
            class = "logging.FileHandler"
            filename = "{log}"
            [loggers.picowsgi]
            handlers = ["own"]
            level = "INFO"
        """
    file = tmp_path / f"logging.{suffix}"
    file.write_text(text)
    configure("error")
    read_log_config(str(file))()
    get_logger().info("to the file")
    for handler in list(logging.getLogger("picowsgi").handlers):
        handler.close()
    assert log.read_text() == "to the file\n"


@pytest.mark.parametrize(
    "text", [None, "{", '{"handlers": 5}', '{"handlers": {"a": {"class": "x.y"}}}']
)
def test_an_invalid_configuration_file_is_a_clear_error(tmp_path, text):
    file = tmp_path / "logging.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match="log-config"):
        read_log_config(str(file))()


def test_a_missing_or_closed_standard_error_causes_no_error(monkeypatch):
    configure("info")
    monkeypatch.setattr(sys, "stderr", None)
    get_logger().error("lost")
    assert get_logger().logger is logging.getLogger("picowsgi")


def test_printable_text_has_no_control_characters_and_can_be_parsed_again():
    text = "a\\b\r\n\x00\x7f\xe9\u20ac"
    assert printable(text).isprintable()
    assert printable(text).encode().decode("unicode_escape") == text


def test_a_stack_is_lines_in_text_and_a_field_in_json(capsys):
    stack = '  File "a.py", line 1\n    call()\x1b[1m\n'
    configure("info")
    log_stack("a thread is at:", stack)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("error: a thread is at:")
    assert rest == ['      File "a.py", line 1', r"        call()\x1b[1m"]
    configure("info", "json")
    log_stack("a thread is at:", stack)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "a thread is at:"
    assert entry["stack"] == '  File "a.py", line 1\n    call()' + r"\x1b[1m"
