"""The files of --env-file: which variables they set, and what is refused."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from picowsgi.cli import main as cli
from picowsgi.config.env_file import EnvFiles
from picowsgi.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

APP = "import os\nassert os.environ['GREETING'] == 'hello'\ndef app(environ, start_response): ...\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and an environment without options."""
    pytest.importorskip("dotenv")
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PICOWSGI_"):
            monkeypatch.delenv(name)
    return tmp_path


def test_a_variable_that_is_set_wins_and_a_later_file_wins_over_an_earlier_one(
    directory: Path,
) -> None:
    (directory / "first").write_text("A=1\nB=1\nC='1'\nexport E=\"x y\" # note\nF\n")
    (directory / "second").write_text("B=2\nC=2\nD=${A}${B}${C}\n")
    os.environ["C"] = "set"
    EnvFiles([directory / "first", directory / "second"]).apply()
    assert [os.environ.get(name) for name in "ABCDEF"] == ["1", "2", "set", "12set", "x y", None]


def test_a_second_call_reads_the_files_again(directory: Path) -> None:
    file = directory / ".env"
    file.write_text("A=1\nB=${A}\nC=1\n")
    files = EnvFiles([file])
    files.apply()
    file.write_text("A=2\nB=${A}\n")
    files.apply()
    assert [os.environ.get(name) for name in "ABC"] == ["2", "2", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"A=1\n\n\nno variable\n", r"\.env, line 4: expected NAME=VALUE, got 'no variable'"),
        (b"A=\xff\n", "is not UTF-8"),
        (b"PICOWSGI_ENV_FILE=x\n", "PICOWSGI_ENV_FILE cannot be set in a file of --env-file"),
        (None, r"cannot read .*\.env: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    directory: Path, text: bytes | None, message: str
) -> None:
    if text is not None:
        (directory / ".env").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        EnvFiles([directory / ".env"]).apply()


def test_without_python_dotenv_the_error_names_the_extra(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dotenv.main", None)
    with pytest.raises(ConfigError, match=r"--env-file needs python-dotenv: pip install 'picowsgi"):
        EnvFiles([directory / ".env"]).apply()


def test_the_file_sets_options_and_the_variables_of_the_application(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(cli, "configure", lambda *_, **_looks: None)
    (directory / "greeted.py").write_text(APP)
    (directory / "pyproject.toml").write_text(
        '[tool.picowsgi]\nenv_file = "dev.env"\nthreads = 1\nbacklog = 1\n'
    )
    (directory / "dev.env").write_text(
        "GREETING=hello\nPICOWSGI_APP=greeted:app\nPICOWSGI_THREADS=2\nPICOWSGI_WORKERS=2\n"
    )
    os.environ["PICOWSGI_WORKERS"] = "3"
    assert cli.main(["--check", "--port", "5"]) == 0
    shown = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines() if line)
    names = ("app", "threads", "backlog", "workers", "port")
    assert [shown[name] for name in names] == ["greeted:app", "2", "1", "3", "5"]
    sys.modules.pop("greeted")
