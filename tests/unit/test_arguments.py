"""The texts of the command: help, version, and the output of --check; and their imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import picowsgi
from picowsgi import core
from picowsgi.cli import main as cli
from picowsgi.config.settings import OPTIONS

NOTES = Path(__file__).resolve().parents[2] / "docs" / "option-notes.md"

# Modules whose import takes long, and that few users need.
SLOW_MODULES = {
    "asyncio",
    "ctypes",
    "email",
    "http",
    "importlib.metadata",
    "logging.config",
    "multiprocessing",
    "picowsgi.app.pages.demo",
    "picowsgi.app.pages.error",
    "socketserver",
    "sqlite3",
    "ssl",
    "unittest",
    "urllib.request",
    "webbrowser",
    "werkzeug",
    "whitenoise",
    "xml",
    "zipfile",
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory of its own, and an environment without options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(cli, "configure", lambda *_, **_looks: None)  # the log of the test run
    monkeypatch.setenv("COLUMNS", "80")
    for variable in list(os.environ):
        if variable in ("PORT", "WEB_CONCURRENCY") or variable.startswith("PICOWSGI_"):
            monkeypatch.delenv(variable)
    return tmp_path


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert cli.main(list(argv)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


# Help


def test_the_help_fits_a_screen_and_has_the_everyday_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = output(capsys, "--help")
    assert lines[0] == "Usage: picowsgi [OPTIONS] [APP]"
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    shown = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", "\n".join(lines), re.MULTILINE))
    general = {"--config", "--check", "--version", "--help", "--help-all"}
    assert shown == general | {option.flag for option in OPTIONS.values() if option.everyday}


def test_the_whole_help_has_one_line_for_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "--help-all")
    assert max(map(len, lines)) <= 80
    for option in OPTIONS.values():
        flags = ", ".join(option.flags)
        (line,) = [line for line in lines if line.startswith(f"  {flags} ")]
        default = option.show(option.default)
        assert option.help in line
        assert line.endswith(f" [{default}]") or not default


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_the_options_are_in_groups(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    headings = [line for line in output(capsys, flag) if re.fullmatch(r"[A-Z][a-z ]*:", line)]
    shown = [option for option in OPTIONS.values() if option.everyday or flag == "--help-all"]
    assert headings == [
        *(f"{group}:" for group in dict.fromkeys(o.group for o in shown)),
        "General:",
    ]


def test_the_detailed_options_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (`--[^|]*`) \|([^|]*)\|", NOTES.read_text("utf-8"), re.MULTILINE)
    defaults = {}
    for flags, default in rows:
        names = re.findall(r"`(--[a-z-]+)`", flags)
        given = (
            default.strip().split(", ")
            if default.count(", ") == len(names) - 1
            else [default.strip()] * 99
        )
        defaults |= dict(zip(names, given, strict=False))
    pairs = {f"--no-{option.flag[2:]}" for option in OPTIONS.values() if option.switch}
    assert set(defaults) - pairs == {option.flag for option in OPTIONS.values()}
    for option in OPTIONS.values():
        if not option.switch:  # whose default is described in words
            said = defaults[option.flag].replace(" ", "")
            shown = option.show(option.default).replace(" ", "")
            assert said in (shown, shown.removesuffix("s")), f"the default of {option.flag}"


# Version


def test_the_version_shows_what_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    first, python, build = output(capsys, "--version")
    assert first == f"picowsgi {picowsgi.__version__}"
    assert f" {sys.version.split()[0]}, {sys.platform}" in python
    assert build == ", ".join(core.build())
    assert re.fullmatch(
        r"(gcc|clang) \d+\.\d+, (epoll|kqueue) \(or poll\), picohttpparser [0-9a-f]{8}, "
        r"(SSE4\.2|no SIMD)(, sanitizers [a-z,]+)?",
        build,
    )


def test_the_version_shows_the_simd_of_the_processor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    has_sse42 = re.search(r"^flags\b.*\bsse4_2\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert ("SSE4.2" if has_sse42 else "no SIMD") in output(capsys, "--version")[2]


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert picowsgi.__version__ == version("picowsgi")


# Check


def test_check_shows_each_option_and_where_its_value_comes_from(
    capsys: pytest.CaptureFixture[str], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "checked.py").write_text("def app(environ, start_response): ...\n")
    (directory / "pyproject.toml").write_text("[tool.picowsgi]\nbacklog = 7\nbody_memory = '1M'\n")
    monkeypatch.setenv("PICOWSGI_THREADS", "3")
    monkeypatch.setenv("PORT", "9000")
    first, empty, *lines = output(capsys, "--check", "checked:app", "--max-fields", "50")
    assert first == f"picowsgi {picowsgi.__version__} can serve checked:app"
    assert empty == ""
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert list(rows) == list(OPTIONS)
    shown = {name: tuple(re.split(r" {2,}", row)) for name, row in rows.items()}
    assert shown["max_fields"] == ("50", "--max-fields")
    assert shown["threads"] == ("3", "PICOWSGI_THREADS in the environment")
    assert shown["port"] == ("9000", "PORT in the environment")
    assert shown["backlog"] == ("7", "backlog in pyproject.toml")
    assert shown["body_memory"] == ("1 MiB", "body_memory in pyproject.toml")
    assert shown["host"] == ("127.0.0.1", "default")


def test_check_opens_no_socket(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert output(capsys, "--check", "--port", str(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "1 / 0\n",
            "importing failing failed with ZeroDivisionError; its own traceback says where",
        ),
        ("", "failing has neither 'application' nor 'app'"),
    ],
)
def test_check_fails_with_the_same_errors_as_the_server(
    capsys: pytest.CaptureFixture[str], directory: Path, source: str, message: str
) -> None:
    (directory / "failing.py").write_text(source)
    shown = []
    for argv in (["--check", "failing"], ["--port", "0", "failing"]):
        assert cli.main(argv) == 1
        sys.modules.pop("failing", None)
        shown.append(capsys.readouterr())
    assert shown[0] == shown[1]
    assert shown[0].out == ""
    assert message in shown[0].err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--chdir", "absent"], "--chdir: absent: No such file or directory"),
        (["--user", "no-such-user"], "no-such-user"),
        (["--static", "/s/=absent"], "--static: absent is not a directory"),
        (["--mount", "/a=b", "--mount", "/a=c"], "the prefix /a is given twice"),
        (["--reload", "--preload"], "--reload: it cannot load again what --preload has loaded"),
        (["--reload", "--reload-dir", "absent"], "--reload-dir: expected a directory"),
    ],
)
def test_check_refuses_the_same_settings_as_the_server(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert cli.main(["--check", *argv]) == 2
    assert message in capsys.readouterr().err


# What is imported


def imported_by(*argv: str) -> set[str]:
    script = (
        "import sys; from picowsgi.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


def test_the_server_imports_only_modules_that_it_needs(directory: Path) -> None:
    # The server has imported all modules that it needs when the application ends the process.
    (directory / "tell.py").write_text(
        "import os, sys\n"
        "def app(environ, start_response): ...\n"
        "def make():\n"
        "    print(*sys.modules, flush=True)\n"
        "    os._exit(0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--port", "0", "tell:make()"],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(run.stdout.split())
    assert "picowsgi.threads.pool" in modules
    assert modules & SLOW_MODULES == set()


def test_the_help_does_not_import_the_server() -> None:
    assert (
        imported_by("--help")
        & {*SLOW_MODULES, "picowsgi.app.importer", "picowsgi.process.supervisor"}
        == set()
    )


def test_the_package_alone_does_not_import_the_server() -> None:
    script = "import sys, picowsgi; print(*sys.modules); print(picowsgi.Server, picowsgi.serve)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "picowsgi.server" not in run.stdout.splitlines()[0].split()
    with pytest.raises(AttributeError, match="has no attribute 'sevre'"):
        picowsgi.sevre  # type: ignore[attr-defined]  # noqa: B018
