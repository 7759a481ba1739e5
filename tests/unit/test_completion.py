"""Shell completion: click's scripts, options, values and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from picowsgi.cli import main as cli

BASH = """
eval "$(_PICOWSGI_COMPLETE=bash_source picowsgi)" || exit 1
COMP_WORDS=(picowsgi --log-level w) COMP_CWORD=2
_picowsgi_completion picowsgi
echo "${COMPREPLY[@]}"
"""


def completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> set[str]:
    """Return the completions of the last word, each as `TYPE,VALUE`."""
    monkeypatch.setenv("_PICOWSGI_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["picowsgi", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert cli.main([]) == 0
    return set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--reload-i"], {"plain,--reload-include"}),
        (["--no-ac"], {"plain,--no-access-log"}),
        (
            ["--log-level", ""],
            {"plain,debug", "plain,info", "plain,warning", "plain,error"},
        ),
        (["--workers", "a"], {"plain,auto"}),
        (["-w", "a"], {"plain,auto"}),
        (["--env-file", "d"], {"file,d"}),
        (["--app-dir", "d"], {"dir,d"}),
        (["-c", "d"], {"file,d"}),
        (["mysite"], {"file,mysite"}),
        (["top", "--on"], {"plain,--once"}),
    ],
)
def test_options_and_values_are_completed(monkeypatch, capsys, words, expected) -> None:
    assert completed(monkeypatch, capsys, *words) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_value_with_the_script_of_the_command() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", BASH],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["warning"], done.stderr
