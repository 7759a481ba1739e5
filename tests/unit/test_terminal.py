"""The output that gets colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from picowsgi.system.terminal import is_terminal, wants_colour


@pytest.mark.parametrize(
    ("environ", "terminal", "pipe", "file"),
    [
        ({}, True, False, False),
        ({"NO_COLOR": "1"}, False, False, False),
        ({"NO_COLOR": ""}, True, False, False),
        ({"FORCE_COLOR": "1"}, True, True, False),
        ({"FORCE_COLOR": "0"}, True, False, False),
        ({"FORCE_COLOR": ""}, True, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False, False),
        ({"TERM": "dumb"}, False, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True, False),
    ],
)
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    terminal: bool,
    pipe: bool,
    file: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(in_terminal=True) is terminal
    assert wants_colour(in_terminal=False) is pipe
    assert wants_colour(in_terminal=False, standard=False) is file


def test_a_closed_or_missing_stream_is_not_a_terminal() -> None:
    with Path(__file__).open() as reader:
        pass
    assert not is_terminal(reader)
    assert not is_terminal(None)
