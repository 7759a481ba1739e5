"""The command line: in this process with a stand-in for serving, and as a process of its own."""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import picowsgi
from picowsgi.app.pages import demo
from picowsgi.cli import main as cli
from picowsgi.config.settings import OPTIONS, Settings
from picowsgi.errors import BindError
from support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served from a file"]

def create_app():
    return app
"""


_OTHER_VARIABLES = ("PORT", "WEB_CONCURRENCY", "NO_COLOR", "FORCE_COLOR", "FLASK_DEBUG")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with `served.py`, and an environment without options."""
    (tmp_path / "served.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "80")
    for variable in list(os.environ):
        if variable in _OTHER_VARIABLES or variable.startswith("PICOWSGI_"):
            monkeypatch.delenv(variable)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


class Served:
    """Stands in for `run`: keeps its arguments, and returns at once."""

    def __init__(self) -> None:
        self.application: Any = None
        self.settings = Settings()
        self.log_level = ""

    def run(
        self,
        load: Callable[[], Any],
        settings: Settings,
        on_ready: Callable[..., None],
        _command: object,
        _given: object,
        prepare: Callable[[], None] | None,
    ) -> int:
        assert prepare is None
        self.application, self.settings = load(), settings
        with socket.create_server(("127.0.0.1", 0)) as first:
            on_ready([first])
        return 0

    def configure(self, level: str, _form: str, **_looks: bool) -> None:
        self.log_level = level


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    stand_in = Served()
    monkeypatch.setattr(cli, "run", stand_in.run)
    monkeypatch.setattr(cli, "configure", stand_in.configure)
    monkeypatch.setattr(cli, "read_log_config", lambda _file: lambda: None)
    return stand_in


# Arguments


def test_without_arguments_the_command_serves_the_demonstration_with_the_defaults(
    served: Served,
) -> None:
    assert cli.main([]) == 0
    assert served.application is demo.application
    assert served.settings == Settings()
    assert served.log_level == "info"


def test_the_application_may_come_before_or_after_the_options(served: Served) -> None:
    for argv in (["served:app", "--port", "1"], ["--port=1", "served:app"]):
        assert cli.main(argv) == 0
        assert served.application({}, lambda *args: None) == [b"served from a file"]
        assert served.settings.port == 1


def test_every_option_of_the_table_is_an_option_of_the_command(served: Served) -> None:
    Path("7").write_text("")
    for option in OPTIONS.values():
        examples = {"bind": "fd://3", "health": "/up", "health_live": "/live", "static": "/s/=."}
        examples["hooks"] = "hooks_of_served"
        examples["metrics"] = "127.0.0.1:0"
        examples["root_path"] = "/app"
        examples["mount"] = "/below=served:app"
        examples["app"] = "served:app"
        value = option.show(option.default) or examples.get(option.name, "7")
        argv = [option.flag, value]
        if option.kind == "flag" or option.switch:
            argv, value = [option.flag], "on"
        if option.name == "factory":
            continue
        assert cli.main(argv) == 0
        assert served.settings.sources == {option.name: option.flag}
        assert getattr(served.settings, option.name) == option.convert(value)


def test_the_application_may_come_from_an_option_the_environment_or_the_project_file(
    served: Served, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*argv: str) -> list[bytes]:
        assert cli.main(argv) == 0
        answered: list[bytes] = served.application({}, lambda *args: None)
        return answered

    (directory / "other.py").write_text(APP.replace("from a file", "from another"))
    project = directory / "pyproject.toml"
    project.write_text('[tool.picowsgi]\napp = "served:create_app"\nfactory = true\n')
    assert answer() == [b"served from a file"]
    monkeypatch.setenv("PICOWSGI_APP", "other")
    monkeypatch.setenv("PICOWSGI_FACTORY", "off")
    assert answer() == [b"served from another"]
    assert answer("--app", "served:app") == [b"served from a file"]
    assert answer("served:app") == [b"served from a file"]
    assert served.settings.sources["app"] == "the argument APP"


def test_modules_are_searched_in_the_directories_of_app_dir_first(
    served: Served, directory: Path
) -> None:
    for name in ("one", "two"):
        (directory / name).mkdir()
        (directory / name / "placed.py").write_text(APP.replace("a file", name))
    (directory / "hooks_here.py").write_text("def on_start(): ...")
    argv = ["--app-dir", "two", "--app-dir", "one", "--mount", "/a=placed", "placed"]
    assert cli.main(argv) == 0
    for path in ("/", "/a"):
        assert served.application({"PATH_INFO": path}, lambda *args: None) == [b"served from two"]


def test_everyday_options_have_short_forms(served: Served, directory: Path) -> None:
    (directory / "own.toml").write_text("backlog = 7\n")
    argv = ["-b", ":1", "-b", "unix:x", "-w", "2", "-t3", "-c", "own.toml", "served:app"]
    assert cli.main(argv) == 0
    settings = served.settings
    assert (settings.workers, settings.threads, settings.backlog) == (2, 3, 7)
    assert (settings.binds()[0].host, settings.binds()[0].port) == ("0.0.0.0", 1)
    assert cli.main(["-h"]) == 0


def test_bind_may_be_repeated(served: Served) -> None:
    assert cli.main(["--bind", "127.0.0.1:1", "--bind", "unix:x"]) == 0
    assert served.settings.bind == ("127.0.0.1:1", "unix:x")


def test_options_come_from_the_environment_and_the_project_file_too(
    served: Served, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "pyproject.toml").write_text("[tool.picowsgi]\nbacklog = 1\nmax_fields = 1\n")
    monkeypatch.setenv("PICOWSGI_MAX_FIELDS", "2")
    assert cli.main(["--port", "3"]) == 0
    settings = served.settings
    assert (settings.backlog, settings.max_fields, settings.port) == (1, 2, 3)


def test_a_config_file_is_read(served: Served, directory: Path) -> None:
    (directory / "own.toml").write_text("log_level = 'debug'\n")
    assert cli.main(["--config", "own.toml"]) == 0
    assert served.log_level == "debug"


def test_the_banner_names_address_application_process_and_threads(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["served:create_app()", "--loops", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(
        f"picowsgi {picowsgi.__version__} serving served:create_app() on http://127.0.0.1:"
    )
    assert first.endswith(f" (pid {os.getpid()})")
    assert second == "up to 16 threads; press Ctrl-C to stop"


def test_the_banner_names_the_modes_of_development(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["served:app", "--loops", "1", "--debug"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "up to 16 threads; debug is on; press Ctrl-C to stop" in lines


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "1"], "1 thread; press Ctrl-C to stop"),
        (["--loops", "2"], "up to 16 threads on 2 event loops; press Ctrl-C to stop"),
        (
            ["--loops", "1", "--workers", "2"],
            "2 workers, up to 16 threads each; press Ctrl-C to stop",
        ),
    ],
)
def test_the_banner_counts_workers_and_threads(
    served: Served, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert cli.main(["served:app", *argv]) == 0
    assert capsys.readouterr().err.splitlines()[1] == message


def test_the_banner_has_colours_when_they_are_on(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["served:app"]) == 0
    coloured = capsys.readouterr().err
    assert coloured.startswith("\x1b[32m\x1b[1mpicowsgi\x1b[0m ")
    assert "\x1b[36m\x1b[1mhttp://127.0.0.1:" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main(["served:app"]) == 0
    assert "\x1b" not in capsys.readouterr().err


def test_without_standard_error_the_command_serves(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["served:app"]) == 0


# Mistakes


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["--prot", "1"], 2, "unknown option --prot; did you mean --port?"),
        (["--port"], 2, "Option '--port' requires an argument"),
        (["served:app", "more"], 2, "expected one argument APP, got 'more' too"),
        (["served:app", "8000"], 2, "an address to listen on is --bind 127.0.0.1:8000"),
        (["served:app", "--app", "other"], 2, "--app other: the argument is served:app; use one"),
        (["--factory"], 2, "--factory: there is no APP that it is about"),
        (["--port", "x"], 2, "--port: expected a whole number from 0 to 65535, got 'x'"),
        (["--bind", "x"], 2, "--bind: expected HOST:PORT, "),
        (["--bind", "fd://3", "--bind", "8000"], 2, "from 0 to 65535, got '8000'"),
        (["--bind", "fd://3", "--port", "1"], 2, "--bind: it replaces port"),
        (["--max-head-size", "1"], 2, "--max-head-size: expected a size from 256 to 4 MiB"),
        (["--timeout-head", "0"], 2, "--timeout-head: expected a time from 0.001s"),
        (["--log-level", "x"], 2, "--log-level: expected one of debug, info, warning, error"),
        (["--config", "absent"], 2, "cannot read absent: No such file or directory"),
        (["absent:app"], 1, "there is no module 'absent' in "),
        (["served:ap"], 1, "served has no attribute 'ap'; did you mean served:app?"),
        (["served:create_app"], 1, "did you mean served:create_app()?"),
        (["absent.py"], 1, "there is no file 'absent.py' in "),
        ([""], 2, "APP is empty; it is MODULE:ATTRIBUTE"),
    ],
)
def test_a_mistake_is_one_or_two_lines_and_an_exit_status(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    status: int,
    message: str,
) -> None:
    assert cli.main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("picowsgi: error: ")
    assert message in err
    assert 1 <= err.count("\n") <= 2
    assert "Traceback" not in err
    assert served.application is None


def test_an_unknown_variable_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOWSGI_PROT", "1")
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "picowsgi: error: unknown option PICOWSGI_PROT in the environment; "
        "did you mean PICOWSGI_PORT?\n"
    )


def test_an_address_that_cannot_be_used_is_a_failure(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise BindError("cannot listen on x: the port is in use")

    monkeypatch.setattr(cli, "run", refuse)
    assert cli.main(["served:app"]) == 1
    assert capsys.readouterr().err == ("picowsgi: error: cannot listen on x: the port is in use\n")


def test_an_interrupt_while_the_application_is_imported_ends_quietly(
    directory: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "slow_app.py").write_text("raise KeyboardInterrupt")
    assert cli.main(["slow_app:app"]) == 130
    assert capsys.readouterr().err == ""


def test_the_error_of_an_application_keeps_only_its_own_traceback(
    directory: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "broken_app.py").write_text("import json\njson.loads('{')\n")
    assert cli.main(["broken_app:app"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{directory}/broken_app.py", line 2, in <module>'
    assert lines[-2].startswith("json.decoder.JSONDecodeError: ")
    assert lines[-1] == (
        "picowsgi: error: importing broken_app failed with JSONDecodeError; "
        "its own traceback says where"
    )
    ours = str(Path(cli.__file__).parent)
    assert not any(ours in line for line in lines)


# As a process


class Command:
    """`python -m picowsgi` running, with its standard error read line by line."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._unread = b""

    def read_banner(self) -> str:
        """The first of the two lines that report that it serves."""
        first = self.read_line()
        assert self.read_line().endswith("; press Ctrl-C to stop")
        return first

    def read_line(self) -> str:
        """The next line of standard error; empty at its end."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        deadline = time.monotonic() + TIMEOUT
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
            assert ready, f"expected a line within {TIMEOUT:g} s, got {self._unread!r}"
            data = os.read(descriptor, 4096)
            if not data:
                break
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def finish(self) -> tuple[int, str, str]:
        """Wait for the exit; return the status, standard output and the rest of standard error."""
        out, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, out.decode(), (self._unread + err).decode()


@contextmanager
def running(*arguments: str) -> Iterator[Command]:
    command = Command(arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate()


def port_of(line: str) -> int:
    return int(line.partition("http://127.0.0.1:")[2].partition(" ")[0])


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.measured
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_when_the_start_line_appears_and_ends_within_a_second_of_a_signal(
    number: signal.Signals,
) -> None:
    with running("--port", "0", "served:app") as command:
        line = command.read_banner()
        assert f"serving served:app on http://127.0.0.1:{port_of(line)} " in line
        assert f"(pid {command.process.pid})" in line
        assert get(port_of(line)) == (200, b"served from a file")
        begin = time.monotonic()
        command.process.send_signal(number)
        assert command.finish() == (0, "", "")
        assert time.monotonic() - begin < 1


def test_without_an_application_the_command_serves_the_demonstration() -> None:
    with running("--port", "0") as command:
        status, content = get(port_of(command.read_banner()))
        assert status == 200
        assert picowsgi.__version__.encode() in content


def test_a_file_is_served_on_a_unix_socket_whose_file_is_removed_afterwards(
    directory: Path,
) -> None:
    with running("--bind", "unix:s", "served.py") as command:
        assert "serving served.py on unix:s " in command.read_banner()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect("s")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(9) == b"HTTP/1.1 "
        command.process.terminate()
        assert command.finish() == (0, "", "")
        assert not (directory / "s").exists()


def test_several_addresses_are_in_the_start_line() -> None:
    with running("--bind", "127.0.0.1:0", "--bind", "unix:s") as command:
        line = command.read_banner()
        assert f"on http://127.0.0.1:{port_of(line)} and unix:s (pid " in line


def test_a_port_in_use_ends_with_status_1_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("--port", str(port)) as command:
            status, out, err = command.finish()
    assert (status, out) == (1, "")
    assert err == (
        f"picowsgi: error: cannot listen on 127.0.0.1:{port}: the port is in use; stop the "
        "program that has it, or choose another port (--port 0 takes a free one)\n"
    )


def test_an_unknown_option_ends_with_status_2_and_a_suggestion() -> None:
    with running("--prot", "1") as command:
        status, out, err = command.finish()
    assert (status, out) == (2, "")
    assert err.startswith("picowsgi: error: unknown option --prot; did you mean --port?")
    assert "--port" in err
    assert err.endswith("\nTry 'picowsgi --help' for the options.\n")


def test_a_missing_module_ends_with_status_1_and_one_line(directory: Path) -> None:
    with running("absent:app") as command:
        status, out, err = command.finish()
    assert (status, out) == (1, "")
    assert err == (
        f"picowsgi: error: there is no module 'absent' in {directory} or where Python looks\n"
    )


def test_a_module_that_raises_shows_only_its_own_frames(directory: Path) -> None:
    (directory / "broken_app.py").write_text("def fail():\n    1 / 0\n\nfail()\n")
    with running("broken_app:app") as command:
        status, _, err = command.finish()
    assert status == 1
    files = [line.split('"')[1] for line in err.splitlines() if line.startswith("  File ")]
    assert files == [f"{directory}/broken_app.py"] * 2
    assert err.endswith(
        "ZeroDivisionError: division by zero\n"
        "picowsgi: error: importing broken_app failed with ZeroDivisionError; "
        "its own traceback says where\n"
    )
