"""`make stress` finds wrong bytes, and says whose they are. Without a fault it finds nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stress.clients import Client
from stress.exchanges import KINDS, Exchange
from stress.findings import Findings, first_difference, wrong_stretch
from stress.server import tracebacks_in
from stress.stress import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from conftest import Serve

ENOUGH = 60  # outcomes


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WSGIApplication:
    monkeypatch.chdir(tmp_path)  # the application writes a file there when it is imported
    from stress.application import application

    return application


@pytest.fixture
def ask(serve: Serve) -> Callable[..., Findings]:
    """Have one client ask a server until a response is wrong, or enough of them are right."""

    def ask(app: WSGIApplication, aspects: tuple[str, ...] = ("whole",)) -> Findings:
        findings = Findings()

        def over() -> bool:
            return bool(findings.failures) or findings.outcomes.total() >= ENOUGH

        Client(serve(app, threads=1).port, "a seed", aspects, findings).run(over)
        return findings

    return ask


def test_a_server_without_faults_has_no_findings(
    ask: Callable[..., Findings], application: WSGIApplication
) -> None:
    findings = ask(application, KINDS)
    assert not findings.failures
    assert findings.outcomes.total() >= ENOUGH


def test_one_wrong_byte_is_found(
    ask: Callable[..., Findings], application: WSGIApplication, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        content = bytearray(b"".join(application(environ, start_response)))
        if len(content) > 1_000:
            content[700] ^= 1
        return [bytes(content)]

    assert ask(faulty).failures["content"] > 0
    assert "1 bytes are wrong, from byte 700 of" in capsys.readouterr().out


def test_a_stretch_of_another_response_is_traced_to_that_response(
    ask: Callable[..., Findings], application: WSGIApplication, capsys: pytest.CaptureFixture[str]
) -> None:
    last: dict[str, Any] = {"content": b"", "id": ""}

    def faulty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        content = b"".join(application(environ, start_response))
        size = min(len(content), len(last["content"]))
        wrong = last["content"][:500] + content[500:] if size > 1_000 else content
        last["content"] = content
        return [wrong]

    assert ask(faulty).failures["content"] > 0
    assert "content, from its byte 0 on" in capsys.readouterr().out


def test_headers_of_another_response_are_found(
    ask: Callable[..., Findings], application: WSGIApplication
) -> None:
    last: list[Any] = [[]]

    def faulty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Any) -> Callable[[bytes], object]:
            last.append([*headers])
            return start_response(status, last[-2])

        return application(environ, start)

    assert ask(faulty).failures["head"] > 0


def test_a_response_that_is_too_short_is_found(
    ask: Callable[..., Findings], application: WSGIApplication
) -> None:
    def faulty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Any) -> Callable[[bytes], object]:
            return start_response(status, [pair for pair in headers if pair[0][0] != "C"])

        return [b"".join(application(environ, start))[:-1]]

    assert ask(faulty).failures["ending"] > 0


def test_the_report_has_the_first_difference_and_its_length() -> None:
    right = Exchange("0", "whole", size=5_000).content()
    wrong = right[:1_234] + bytes(byte ^ 255 for byte in right[1_234:1_300]) + right[1_300:]
    assert first_difference(right, right) == -1
    assert first_difference(right, right[:3_000]) == -1
    assert first_difference(right, wrong) == 1_234
    assert wrong_stretch(right, wrong, 1_234) == 66


def test_the_last_error_of_chained_tracebacks_counts() -> None:
    log = """\
2026-01-01 error: error in the application: GET /
    Traceback (most recent call last):
      File "a.py", line 1, in a
    KeyError: 1

    During handling of the above exception, another exception occurred:

    Traceback (most recent call last):
      File "a.py", line 2, in a
    ValueError: 2
2026-01-01 error: error in the application: GET /
    Traceback (most recent call last):
      File "a.py", line 3, in a
    OSError: 3
"""
    assert [found[-1] for found in tracebacks_in(log)] == ["ValueError: 2", "OSError: 3"]
    assert [len(found) for found in tracebacks_in(log)] == [3, 3]


def test_a_run_of_a_few_seconds_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seconds=4", "--round=0", "--clients=8", "--only", ",".join(KINDS)])
    printed = capsys.readouterr().out
    assert "no failure" in printed, printed
    assert "whole: large complete" in printed
