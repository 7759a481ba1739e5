"""A supervisor that reloads: its watcher, the data that its workers share, and their reports."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.reload.modules import Report
from picowsgi.reload.reloader import Reloader, watched_files
from support import open_descriptors, wait_until

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")

Make = Callable[..., Reloader]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    gc.collect()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("VALUE = 1\n")
    return tmp_path


@pytest.fixture
def make(project: Path) -> Iterator[Make]:
    made: list[Reloader] = []

    def start(*listeners: socket.socket, **options: Any) -> Reloader:
        made.append(Reloader(Settings(**options), listeners))
        return made[-1]

    yield start
    for one in made:
        one.close()
    assert project.exists()


def change(reloader: Reloader, path: Path, text: str) -> list[str]:
    """Save a file, and return the report of it."""
    path.write_text(text)
    found: list[str] = []

    def look() -> bool:
        found.extend(reloader.read_changes())
        return bool(found)

    wait_until(look, "a report of the change")
    return found


def test_unsuitable_options_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="--reload: it cannot load again what --preload"):
        watched_files(Settings(preload=True))
    assert watched_files(Settings()).wants(str(project / "app.py"))


def test_options_name_other_directories_and_patterns(project: Path) -> None:
    other = project / "other"
    other.mkdir()
    files = watched_files(
        Settings(reload_dir=(str(other),), reload_include=("*.x",), reload_exclude=("b.py",))
    )
    wanted = [files.wants(str(other / name)) for name in ("a.py", "a.x", "b.py", "a.y")]
    assert wanted == [True, True, False, False]


def test_a_changed_file_is_reported_once(make: Make, project: Path) -> None:
    one = make()
    assert one.read_changes() == []
    assert not os.get_blocking(one.changes)
    assert change(one, project / "app.py", "VALUE = 22\n") == [str(project / "app.py")]
    assert one.read_changes() == []


def test_a_change_may_fix_an_application_that_could_not_be_loaded(
    make: Make, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = make()
    one.note_failure(AppImportError("worker 5 is broken", "Traceback"))
    assert caplog.messages == ["worker 5 is broken; waiting for a change"]
    one.note_failure(AppImportError("worker 67 is broken", "Traceback"))
    assert len(caplog.messages) == 1, "expected several workers to fail alike"
    one.note_failure(AppImportError("another reason"))
    assert len(caplog.messages) == 2
    assert str(one.failure) == "another reason"
    change(one, project / "app.py", "VALUE = 22\n")
    assert one.failure is None


def test_the_end_of_the_watcher_is_reported_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make()
    os.kill(one._watcher, 9)

    def look() -> bool:
        assert one.read_changes() == []
        return one.changes == -1

    wait_until(look, "the end of the watcher to be noticed")
    assert one.read_changes() == []
    assert caplog.messages == ["the file watcher has ended; no change reloads the application"]
    with pytest.raises(ChildProcessError):
        os.waitpid(one._watcher, os.WNOHANG)


def test_close_ends_the_watcher_and_leaves_nothing_open(project: Path) -> None:
    before = open_descriptors()
    one = Reloader(Settings(), [])
    one.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(one._watcher, os.WNOHANG)
    assert open_descriptors() == before
    assert project.exists()


def test_the_watcher_keeps_no_socket_open_and_no_signal_ends_it(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        one = make(sock)
        place = Path(f"/proc/{one._watcher}")
        inode = f"socket:[{os.fstat(sock.fileno()).st_ino}]"

        def sockets() -> list[str]:
            found = []
            for entry in (place / "fd").iterdir():
                with suppress(FileNotFoundError):  # closed in the meantime
                    found.append(str(entry.readlink()))
            return found

        wait_until(
            lambda: inode not in sockets(),
            "the watcher to close descriptors that are not its own",
        )

        def ignored() -> int:
            lines = (place / "status").read_text().splitlines()
            return int(dict(line.split(":\t", 1) for line in lines)["SigIgn"], 16)

        wait_until(
            lambda: all(ignored() >> number - 1 & 1 for number in (1, 2, 15)),
            "the watcher to ignore signals that end its supervisor",
        )


# Data that workers share


def test_connections_go_through_a_pair_of_sockets_until_its_end(make: Make) -> None:
    source, target = make_pair = make().connections
    for end in make_pair:
        assert not end.getblocking()
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 1 << 17
    target.send(b"x")
    assert source.recv(10) == b"x"


def test_no_connection_goes_through_after_the_transfer(make: Make) -> None:
    one = make()
    one.end_transfer()
    one.end_transfer()
    with pytest.raises(OSError):  # noqa: PT011
        one.connections[1].send(b"x")


# In a worker


def in_worker(reloader: Reloader, work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(7 if work() else 8)
        finally:
            os._exit(9)
    assert reloader
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_worker_loads_the_application(make: Make) -> None:
    one = make()

    def work() -> bool:
        changes = one.changes
        loaded: Any = one.load(lambda: "application")  # type: ignore[arg-type,return-value]
        try:
            os.fstat(changes)
        except OSError:
            return bool(loaded == "application")
        return False

    assert in_worker(one, work) == 7


def test_a_worker_serves_the_reason_when_the_application_cannot_be_loaded(make: Make) -> None:
    one = make()
    one.failure = AppImportError("it is broken", "Traceback")
    statuses: list[str] = []

    def work() -> bool:
        application = one.load(lambda: pytest.fail("loaded"))
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        body = b"".join(application(environ, lambda status, _: statuses.append(status)))  # type: ignore[arg-type,return-value]
        return b"it is broken" in body and statuses[0][0] == "5"

    assert in_worker(one, work) == 7


def test_the_compiled_file_of_a_changed_file_is_removed(make: Make, project: Path) -> None:
    one = make()
    change(one, project / "app.py", "VALUE = 22\n")
    compiled = Path(importlib.util.cache_from_source(str(project / "app.py")))
    other = Path(importlib.util.cache_from_source(str(project / "other.py")))
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"old")
    other.write_bytes(b"old")

    def work() -> bool:
        one.load(lambda: "application")  # type: ignore[arg-type,return-value]
        return not compiled.exists() and other.exists()

    assert in_worker(one, work) == 7
    assert in_worker(one, work) == 7, "expected no error for a removed file"


def test_an_error_of_the_import_is_raised(make: Make) -> None:
    one = make()

    def fail() -> Any:
        raise AppImportError("broken")

    def work() -> bool:
        try:
            one.load(fail)
        except AppImportError:
            return True
        return False

    assert in_worker(one, work) == 7


def test_a_module_that_is_imported_late_is_watched_after_the_report(
    make: Make, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    module = elsewhere / "picowsgi_late_module.py"
    module.write_text("VALUE = 1\n")
    one = make()

    def work() -> bool:
        spec = importlib.util.spec_from_file_location("picowsgi_late_module", module)
        assert spec is not None
        loaded = importlib.util.module_from_spec(spec)
        import sys

        sys.modules["picowsgi_late_module"] = loaded
        one.report_modules()
        return True

    assert in_worker(one, work) == 7
    found: list[str] = []
    texts = count()

    def look() -> bool:
        module.write_text(f"VALUE = {'1' * next(texts)}\n")
        found.extend(one.read_changes())
        return bool(found)

    wait_until(look, "a report of the change of the module")
    assert {*found} == {str(module)}
    assert project.exists()


def test_many_files_are_reported_in_a_few_messages_that_stay_together(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    report = Report(writer)
    pieces: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _pipe, data: pieces.append(data))
    files = [str(project / f"{number:03}-{'x' * 150}.py") for number in range(100)]
    for name in files:
        Path(name).touch()
    error: BaseException | None = None
    for name in files:
        other = SyntaxError("broken")
        other.filename = name
        other.__cause__ = error
        error = other
    report.send_failed(error)
    reported = [json.loads(line)[0] for piece in pieces for line in piece.splitlines()]
    assert reported == files[::-1], "expected each file once"
    assert all(len(piece) <= 4096 for piece in pieces), (
        "expected messages of a size that a pipe writes in one piece"
    )
    assert len(pieces) < 20
    os.close(reader)
    os.close(writer)
