"""The format of the access log, run by an interpreter of this test, and its file."""

from __future__ import annotations

import os
import pty
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.log_format import check_format, is_json
from picowsgi.config.settings import Settings
from picowsgi.threads.access_log import AccessLog, compile_format

#: The value of each atom for one request (docs/option-notes.md).
VALUES = {
    core.ATOM_ADDRESS: "192.0.2.1",
    core.ATOM_USER: "eva",
    core.ATOM_METHOD: "GET",
    core.ATOM_TARGET: "/a%20b?q",
    core.ATOM_PATH: "/a b",
    core.ATOM_QUERY: "q",
    core.ATOM_PROTOCOL: "HTTP/1.1",
    core.ATOM_STATUS: "404",
    core.ATOM_BYTES: "0",
    core.ATOM_BYTES_OR_DASH: "-",
    core.ATOM_SECONDS: "1",
    core.ATOM_DECIMAL_SECONDS: "1.500000",
    core.ATOM_MILLISECONDS: "1500",
    core.ATOM_MICROSECONDS: "1500000",
    core.ATOM_QUEUE: "7",
    core.ATOM_CLOCK: "12:00:00",
    core.ATOM_DURATION: "1.50 s",
    core.ATOM_REQUEST_ID: "an-id",
    core.ATOM_TIME: "30/Nov/2026:12:00:00 +0000",
}
DURATION = 1500  # milliseconds
FIELDS = {"referer": "http://b/", "user-agent": "curl", "x-y": "in"}
RESPONSE_FIELDS = {"x-y": "out"}


def line(program: bytes, status: str = "404") -> str:
    """The line that a program makes of the request above (csrc/api.h, PW_ATOM_LITERAL)."""
    text = ""
    while program:
        code, size = program[0], int.from_bytes(program[1:3], "big")
        data, program = program[3 : 3 + size].decode("latin-1"), program[3 + size :]
        assert len(data) == size, "expected as many bytes as the length says"
        if code == core.ATOM_LITERAL:
            text += data
        elif code == core.ATOM_FIELD:
            text += FIELDS[data]
        elif code == core.ATOM_RESPONSE_FIELD:
            text += RESPONSE_FIELDS[data]
        elif code == core.ATOM_IF_STATUS:
            text += data[1:] if status[0] == data[0] else ""
        elif code == core.ATOM_IF_SLOW:
            least = int.from_bytes(data[:4].encode("latin-1"), "big")
            text += data[4:] if least <= DURATION else ""
        else:
            assert data == ""
            text += status if code == core.ATOM_STATUS else VALUES[code]
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(h)s %(l)s %(u)s", "192.0.2.1 - eva"),
        ("%(t)s", "[30/Nov/2026:12:00:00 +0000]"),
        ("%(r)s", "GET /a%20b?q HTTP/1.1"),
        ("%(m)s %(U)s %(q)s %(H)s", "GET /a b q HTTP/1.1"),
        ("%(R)s", "/a%20b?q"),
        ("%(s)s %(B)s %(b)s", "404 0 -"),
        ("%(T)s %(L)s %(M)s %(D)s", "1 1.500000 1500 1500000"),
        ("%(d)s %(Q)s %(c)s", "1.50 s 7 12:00:00"),
        ("%(I)s", "an-id"),
        ("%(p)s", "<PID>"),
        ('"%(f)s" "%(a)s"', '"http://b/" "curl"'),
        ("%({X-Y}i)s %({x-y}o)s", "in out"),
        ("100%% of %(m)s%%", "100% of GET%"),
        ("", ""),
        (
            "common",
            '192.0.2.1 - eva [30/Nov/2026:12:00:00 +0000] "GET /a%20b?q HTTP/1.1" 404 -',
        ),
        (
            "combined",
            (
                '192.0.2.1 - eva [30/Nov/2026:12:00:00 +0000] "GET /a%20b?q HTTP/1.1" 404 -'
                ' "http://b/" "curl"'
            ),
        ),
        ("short", "12:00:00 404 GET /a%20b?q 0 B 1.50 s"),
        (
            "json",
            (
                '{"time":"30/Nov/2026:12:00:00 +0000","remote_addr":"192.0.2.1","user":"eva",'
                '"method":"GET","target":"/a%20b?q","protocol":"HTTP/1.1","status":404,"bytes":0,'
                '"duration":1500000,"queued":7,"referer":"http://b/","user_agent":"curl",'
                '"pid":PID}'
            ),
        ),
        (' {"at":"%(t)s"}', ' {"at":"30/Nov/2026:12:00:00 +0000"}'),
    ],
)
def test_each_atom_has_the_value_that_the_documentation_names(text: str, expected: str) -> None:
    assert line(compile_format(text)) == expected.replace("PID", str(os.getpid()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", "printable ASCII text with atoms like %(h)s"),
        ("é", "printable ASCII text with atoms like %(h)s"),
        ("50%", "%% for a percent sign; not '50%'"),
        ("%(h)s %(m)", "%% for a percent sign"),
        ("%(hh)s", "%% for a percent sign"),
        (
            "%(z)s",
            "one of the atoms B, D, H, I, L, M, Q, R, T, U, a, b, c, d, f, h, l, m, p, q, r, s",
        ),
        ("%({x}e)s", "a field's name; not {x}e"),
        ("%({a b}i)s", "a field's name; not {a b}i"),
        ("%({" + "a" * 257 + "}i)s", "a field's name"),
        ("a" * 4097, "at most 4096 characters between two atoms"),
    ],
)
def test_an_invalid_format_is_refused_and_the_message_says_what_was_expected(
    text: str, expected: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared)
        check_format(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["auto", "short", "a" * 4096, "%({" + "a" * 256 + "}i)s"])
def test_the_longest_texts_and_the_names_of_formats_are_accepted(text: str) -> None:
    check_format(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("json", True), ('  {"a":1}', True), ("short", False), ("a{", False), ("", False)],
)
def test_a_format_of_an_object_is_json(text: str, expected: bool) -> None:
    assert is_json(text) is expected


def test_the_class_of_a_status_has_a_colour() -> None:
    program = compile_format("%(s)s.", colour=True)
    reset = "\x1b[0m"
    assert line(program, "200") == f"\x1b[32m200{reset}."
    assert line(program, "302") == f"\x1b[36m302{reset}."
    assert line(program, "404") == f"\x1b[33m404{reset}."
    assert line(program, "500") == f"\x1b[1;31m500{reset}."


def test_a_slow_request_is_marked_from_its_limit_on() -> None:
    assert line(compile_format("%(m)s", slow=1.5)) == "GET slow"
    assert line(compile_format("%(m)s", slow=1.501)) == "GET"
    assert line(compile_format("%(m)s", slow=0.25)) == "GET slow"
    assert line(compile_format("%(m)s", slow=100_000)) == "GET"
    assert line(compile_format("%(m)s", slow=1, colour=True)) == "GET \x1b[1;35mslow\x1b[0m"


def test_json_has_neither_colours_nor_marks() -> None:
    text = '{"status":%(s)s}'
    assert line(compile_format(text, slow=0.1, colour=True)) == '{"status":404}'


# The file


def settings(**options: Any) -> Settings:
    return replace(Settings(), **options)


def test_without_a_terminal_the_log_is_off_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert AccessLog(settings()).descriptor == -1
    assert AccessLog(settings(access_log="off", access_log_file=str(tmp_path))).descriptor == -1
    file = tmp_path / "log"
    log = AccessLog(settings(access_log="on", access_log_file=str(file)))
    assert (log.in_terminal, log.json) == (False, False)
    assert line(log.program).startswith("192.0.2.1 - eva ["), "expected the combined format"
    assert file.stat().st_mode & 0o777 & ~0o644 == 0
    os.write(log.descriptor, b"1\n")
    assert not os.get_inheritable(log.descriptor)
    log.close()
    log.close()
    again = AccessLog(settings(access_log="on", access_log_file=str(file)))
    os.write(again.descriptor, b"2\n")
    again.close()
    assert file.read_text() == "1\n2\n", "expected lines at the end of the file"


def test_standard_output_is_written_through_a_descriptor_of_its_own() -> None:
    log = AccessLog(settings(access_log="on"))
    assert log.descriptor > 2
    assert os.path.sameopenfile(log.descriptor, 1)
    before = log.descriptor
    log.reopen(lambda _descriptor: pytest.fail("expected no second open of standard output"))
    assert log.descriptor == before
    log.close()
    assert log.descriptor == -1
    os.fstat(1)


@pytest.mark.parametrize("form", ["auto", "combined", "short", "json"])
@pytest.mark.parametrize("colour", ["", "1"])
def test_a_terminal_gets_short_lines_with_marks(
    monkeypatch: pytest.MonkeyPatch, form: str, colour: str
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", colour)
    ours, its = pty.openpty()
    log = AccessLog(
        settings(access_log="on", access_log_file=os.ttyname(its), access_log_format=form)
    )
    text = line(log.program)
    assert log.in_terminal
    assert log.json == (form == "json")
    if form == "json":
        assert text.startswith('{"time"')
        assert text.endswith("}")
    else:
        assert text.startswith("192.0.2.1" if form == "combined" else "12:00:00 ")
        assert ("slow" in text, "\x1b" in text) == (True, not colour)
    log.close()
    os.close(ours)
    os.close(its)


def test_without_a_terminal_only_the_short_format_marks_a_slow_request(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"access_log": "on", "access_log_file": str(tmp_path / "log")}
    for form, marked in (("short", True), ("combined", False), ("%(m)s", False)):
        log = AccessLog(settings(access_log_format=form, **options))
        assert line(log.program).endswith("slow") == marked
        log.close()


def test_a_renamed_file_is_created_again_and_otherwise_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = AccessLog(settings(access_log="on", access_log_file=str(folder / "log")))
    reopened: list[int] = []
    old = log.descriptor
    (folder / "log").rename(folder / "log.1")
    log.reopen(reopened.append)
    assert reopened == [log.descriptor]
    assert log.descriptor != old
    with pytest.raises(OSError):  # noqa: PT011
        os.fstat(old)
    os.write(log.descriptor, b"new")
    assert (folder / "log").read_bytes() == b"new"
    folder.rename(tmp_path / "elsewhere")
    log.reopen(reopened.append)
    assert len(reopened) == 1
    assert "cannot open the access log again" in caplog.text
    os.write(log.descriptor, b"er")
    assert (tmp_path / "elsewhere" / "log").read_bytes() == b"newer"
    (tmp_path / "elsewhere").rename(folder)
    log.close()
    log.reopen(reopened.append)
    assert log.descriptor == -1, "expected a closed log to stay closed"


def test_forced_colours_are_for_standard_output_and_not_for_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for file, coloured in (("-", True), (str(tmp_path / "log"), False)):
        log = AccessLog(settings(access_log="on", access_log_file=file, access_log_format="short"))
        assert ("\x1b" in line(log.program)) == coloured
        log.close()
