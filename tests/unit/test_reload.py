"""The files whose change causes a reload, and the cost of looking at them."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import types
from pathlib import Path

import pytest

from picowsgi.app.pages.import_error import failure_page
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.reload import watcher
from picowsgi.reload.files import Files
from picowsgi.reload.modules import Report
from picowsgi.reload.snapshot import Snapshot, state_of

WANTED = ["app.py", "a/b/c.py", ".env", ".env.local", "t/x.html", "t/x.htm", "t/x.jinja", "x.j2"]
WANTED += ["t/mail.jinja2"]
UNWANTED = ["x.css", "README.md", "db.sqlite3", "4913", "app.py~", ".app.py.swp", ".app.py.swo"]
UNWANTED += ["#app.py#", ".#app.py", "app.py.tmp", "app.py___jb_tmp___", ".goutputstream-AB12CD"]
UNWANTED += ["flycheck_app.py", "app.pyc", "__pycache__/app.py", ".git/x.py", ".venv/lib/x.py"]
UNWANTED += ["node_modules/x/y.html", "lib/site-packages/x.py", "app.py.orig", "x.py.bak"]


def wants(tmp_path: Path, name: str, includes: list[str], excludes: list[str]) -> bool:
    return Files([str(tmp_path)], includes, excludes).wants(str(tmp_path / name))


@pytest.mark.parametrize("name", WANTED)
def test_code_settings_and_templates_matter(tmp_path: Path, name: str) -> None:
    assert wants(tmp_path, name, [], [])


@pytest.mark.parametrize("name", UNWANTED)
def test_data_and_files_of_editors_do_not_matter(tmp_path: Path, name: str) -> None:
    assert not wants(tmp_path, name, [], [])


@pytest.mark.parametrize(
    ("name", "includes", "excludes", "wanted"),
    [
        ("x.css", ["*.css"], [], True),
        ("a/x.css", ["*.css"], [], True),
        ("app.py", ["*.css"], [], True),
        ("x.css", ["*"], ["*.css"], False),
        ("app.py~", ["*"], [], False),
        ("a/b/x.csv", ["a/*.csv"], [], True),
        ("b/x.csv", ["a/*.csv"], [], False),
        ("data/x.csv", ["data"], [], True),
        ("data/x.csv", ["data/"], [], True),
        ("static/x.html", [], ["static/"], False),
        ("app/static/x.html", [], ["static/"], True),
        ("app/static/x.html", [], ["static"], False),
        ("tests/test_x.py", [], ["tests/*"], False),
        ("x.py", [], ["X.PY"], True),
    ],
)
def test_patterns_include_or_exclude_files(
    tmp_path: Path, name: str, includes: list[str], excludes: list[str], wanted: bool
) -> None:
    assert wants(tmp_path, name, includes, excludes) is wanted


def test_a_pattern_may_be_a_whole_path(tmp_path: Path) -> None:
    assert wants(tmp_path, "x.csv", [f"{tmp_path}/*.csv"], [])
    assert not wants(tmp_path, "a/x.py", [], [f"{tmp_path}/a"])


def test_modules_matter_anywhere_unless_they_are_excluded(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    files = Files([str(tmp_path / "root")], excludes=["no.py"])
    module = str(tmp_path / "elsewhere" / "x.so")
    assert not files.wants(module)
    files.modules |= {module, str(tmp_path / "no.py")}
    assert files.wants(module)
    assert not files.wants(str(tmp_path / "no.py"))
    assert not files.wants(str(tmp_path / "elsewhere" / "y.py"))
    assert not files.wants(str(tmp_path / "root2" / "y.py")), (
        "expected another name with the same beginning not to count"
    )


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "none"):
        with pytest.raises(ConfigError, match=r"--reload-dir: expected a directory, got '/"):
            Files([str(tmp_path / name)])


# --- changes --------------------------------------------------------------------------------------


def take(tmp_path: Path, *names: str) -> Snapshot:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    return Snapshot(Files([str(tmp_path)]))


def short(tmp_path: Path, changed: set[str]) -> set[str]:
    return {os.path.relpath(path, tmp_path) for path in changed}


def test_a_scan_of_all_files_finds_new_and_changed_and_removed_files(tmp_path: Path) -> None:
    snapshot = take(tmp_path, "a.py", "b/c.py", "b/d.py", "e/f.py", "x.css")
    assert snapshot.scan() == set()
    (tmp_path / "a.py").write_text("newer")
    (tmp_path / "b/c.py").unlink()
    (tmp_path / "n/m").mkdir(parents=True)
    (tmp_path / "n/m/o.html").touch()
    (tmp_path / "x.css").write_text("newer")
    assert short(tmp_path, snapshot.scan()) == {"a.py", "b/c.py", "n/m/o.html"}
    assert snapshot.scan() == set()
    (tmp_path / "e/f.py").unlink()
    (tmp_path / "e").rmdir()
    assert short(tmp_path, snapshot.scan()) == {"e/f.py"}
    assert str(tmp_path / "e") not in snapshot.directories()


def test_a_file_that_is_written_at_the_same_instant_as_another_is_found(tmp_path: Path) -> None:
    """The clock of a file system is coarse: the time of the directory may not change."""
    snapshot = take(tmp_path, "a.py")
    snapshot.scan()
    before = tmp_path.stat()
    (tmp_path / "b.py").touch()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert short(tmp_path, snapshot.scan()) == {"b.py"}


def test_a_root_that_returns_is_scanned_again(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    snapshot = take(tmp_path / "root", "a.py")
    (tmp_path / "root").replace(tmp_path / "away")
    assert short(tmp_path, snapshot.scan()) == {"root/a.py"}
    (tmp_path / "away").replace(tmp_path / "root")
    assert short(tmp_path, snapshot.scan()) == {"root/a.py"}


def test_a_file_that_another_file_has_replaced_counts_as_changed(tmp_path: Path) -> None:
    snapshot = take(tmp_path, "a.py")
    found = (tmp_path / "a.py").stat()
    (tmp_path / "draft").write_text("new")
    os.utime(tmp_path / "draft", ns=(found.st_atime_ns, found.st_mtime_ns))
    (tmp_path / "draft").replace(tmp_path / "a.py")
    assert short(tmp_path, snapshot.scan()) == {"a.py"}


def test_a_scan_of_a_few_files_gives_the_same_result(tmp_path: Path) -> None:
    snapshot = take(tmp_path, "a.py", "b/c.py", "x.css")
    for name in ("a.py", "b/c.py", "x.css"):
        (tmp_path / name).write_text("newer")
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "o.py").touch()
    (tmp_path / "b").chmod(0o755)
    paths = [str(tmp_path / name) for name in ("a.py", "x.css", "n", "b")]
    assert short(tmp_path, snapshot.look(paths)) == {"a.py", "n/o.py"}
    assert short(tmp_path, snapshot.scan()) == {"b/c.py"}


def test_a_directory_that_is_moved_away_takes_its_files_with_it(tmp_path: Path) -> None:
    snapshot = take(tmp_path, "a/b.py")
    (tmp_path / "a").replace(tmp_path / ".a")
    assert short(tmp_path, snapshot.look([str(tmp_path / "a")])) == {"a/b.py"}


def test_recently_changed_files_are_scanned_first(tmp_path: Path) -> None:
    names = [f"{number}.py" for number in range(100)]
    snapshot = take(tmp_path, *names)
    for number, name in enumerate(names):
        os.utime(tmp_path / name, (number, number))
    snapshot.scan()
    (tmp_path / "99.py").write_text("newer")
    (tmp_path / "0.py").write_text("newer")
    assert short(tmp_path, snapshot.look_at_latest()) == {"99.py"}
    assert short(tmp_path, snapshot.scan()) == {"0.py"}


def test_a_module_that_has_changed_since_its_import_is_reported(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    snapshot = Snapshot(Files([str(tmp_path / "root")]))
    module = tmp_path / "x.py"
    module.touch()
    imported = {str(module): state_of(str(module))}
    assert snapshot.add(imported) == set()
    module.write_text("new")
    assert snapshot.add(imported) == {str(module)}
    assert snapshot.add(imported) == set(), "expected one report"
    module.unlink()
    assert snapshot.scan() == {str(module)}
    module.touch()
    assert snapshot.scan() == {str(module)}, "expected a report of a module that is there again"


def test_virtual_environments_are_not_scanned(tmp_path: Path) -> None:
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "env" / "lib" / "x.py").touch()
    assert take(tmp_path, "a.py").directories() == {str(tmp_path)}


# --- the watcher ----------------------------------------------------------------------------------


class Listener(watcher.Channel):
    """A channel that ends after some time."""

    def __init__(self, seconds: float) -> None:
        self.pipes = [*os.pipe(), *os.pipe()]
        super().__init__(self.pipes[0], self.pipes[3], os.getppid())
        self._end = time.monotonic() + seconds

    def has_news(self, timeout: float = 0.0) -> bool:
        if time.monotonic() > self._end:
            raise EOFError
        return super().has_news(timeout)


def test_files_are_scanned_when_the_system_refuses_to_watch_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = take(tmp_path, "a.py")
    module = types.ModuleType("watchfiles")

    def refuse(*_paths: str, **_options: object) -> None:
        (tmp_path / "a.py").write_text("newer")
        raise OSError("the limit is reached")

    monkeypatch.setattr(module, "watch", refuse, raising=False)
    monkeypatch.setitem(sys.modules, "watchfiles", module)
    monkeypatch.setattr(logging.getLogger("picowsgi"), "propagate", True)
    channel = Listener(0.5)
    try:
        watcher.watch(snapshot, channel)
        assert json.loads(os.read(channel.pipes[2], 65536)) == [str(tmp_path / "a.py")]
    finally:
        for descriptor in channel.pipes:
            os.close(descriptor)
    assert "cannot report changes (the limit is reached)" in caplog.text


@pytest.mark.measured
@pytest.mark.unsanitized  # which makes it several times slower
def test_a_scan_of_5000_files_takes_less_than_a_hundredth_of_a_cpu(tmp_path: Path) -> None:
    for directory in range(250):
        (tmp_path / f"d{directory}").mkdir()
        for number in range(20):
            (tmp_path / f"d{directory}" / f"{number}.py").touch()
    past = time.time() - 60  # as in a project that is not new
    for directory in tmp_path.iterdir():
        os.utime(directory, (past, past))
    snapshot = Snapshot(Files([str(tmp_path)]))
    begun = time.thread_time()
    snapshot.scan()
    once = time.thread_time() - begun
    channel = Listener(2.0)
    try:
        begun = time.thread_time()
        with pytest.raises(EOFError):
            watcher._watch_by_looking(snapshot, channel)
        used = time.thread_time() - begun
    finally:
        for descriptor in channel.pipes:
            os.close(descriptor)
    # The first scan comes at once, and its share of the time later.
    share = (used - once) / 2.0 + 1 / watcher._SHARE
    assert share < 0.01, f"{share:.2%} of a CPU; all files at once take {once * 1000:.0f} ms"


# --- the reports of a worker ----------------------------------------------------------------------


def test_imported_files_are_reported_once_and_those_of_libraries_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    report = Report(writer)
    own, library = tmp_path / "own.py", tmp_path / "site-packages" / "library.py"
    own.touch()
    for name, file in (
        ("own_module", str(own)),
        ("library_module", str(library)),
        ("standard_module", json.__file__),
        ("relative_module", "x.py"),
        ("no_file_module", None),
    ):
        module = types.ModuleType(name)
        module.__file__ = file
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "no_module", object())  # type: ignore[arg-type]
    report.send_imported()
    found = state_of(str(own))
    assert found is not None
    assert json.loads(os.read(reader, 65536)) == [str(own), list(found)]
    report.send_imported()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_escapes_its_text_and_has_no_content_for_head() -> None:
    error = AppImportError("<b>&", "Traceback <i>\udc80\n")
    heads = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        heads.append((status, dict(headers)))

    environ = {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": "text/html"}
    (content,) = failure_page(error)(environ, start_response)  # type: ignore[arg-type]
    assert b"<p>&lt;b&gt;&amp;</p>" in content
    assert b"Traceback &lt;i&gt;\\udc80" in content
    environ["REQUEST_METHOD"] = "HEAD"
    assert failure_page(error)(environ, start_response) == []  # type: ignore[arg-type]
    assert heads[0] == heads[1]
    status, headers = heads[0]
    assert status == "500 Internal Server Error"
    assert headers["Content-Length"] == str(len(content))
    assert headers["Cache-Control"] == "no-store"


# --- links to directories -------------------------------------------------------------------------


def test_templates_in_a_linked_directory_are_watched(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.html").write_text("old")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "templates").symlink_to(tmp_path / "elsewhere")
    snapshot = Snapshot(Files([str(tmp_path / "root")]))
    (tmp_path / "elsewhere" / "deep" / "a.html").write_text("newer")
    (tmp_path / "elsewhere" / "b.html").write_text("new")
    wanted = {"root/templates/deep/a.html", "root/templates/b.html"}
    assert short(tmp_path, snapshot.scan()) == wanted
    assert str(tmp_path / "root" / "templates" / "deep") in snapshot.directories()


def test_a_link_that_leads_to_another_directory_counts_as_changed(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "m.py").write_text(name)
    link = tmp_path / "root" / "current"
    link.symlink_to("v1")
    snapshot = Snapshot(Files([str(tmp_path / "root")]))
    module = str(link / "m.py")
    assert snapshot.add({module: state_of(module)}) == set()
    switches = snapshot.switches
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(link)
    changed = snapshot.look([str(link)])
    assert {"root/current", "root/current/m.py"} <= short(tmp_path, changed)
    assert snapshot.switches > switches, "expected new directories for the system to watch"
    assert snapshot.scan() == set()


def test_a_link_on_the_way_to_a_module_elsewhere_is_watched(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / "site" / name / "lib").mkdir(parents=True)
        (tmp_path / "site" / name / "lib" / "m.py").write_text(name)
    (tmp_path / "site" / "current").symlink_to("v1")
    (tmp_path / "root").mkdir()
    snapshot = Snapshot(Files([str(tmp_path / "root")]))
    module = str(tmp_path / "site" / "current" / "lib" / "m.py")
    snapshot.add({module: state_of(module)})
    assert str(tmp_path / "site") in snapshot.directories()
    (tmp_path / "site" / "current").unlink()
    (tmp_path / "site" / "current").symlink_to("v2")
    changed = snapshot.look([str(tmp_path / "site" / "current")])
    assert "site/current/lib/m.py" in short(tmp_path, changed)


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.py").touch()
    (root / "a" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "world").symlink_to("/")
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (root / name).symlink_to(tmp_path / name)
    (tmp_path / "left" / "to").symlink_to(tmp_path / "right")
    (tmp_path / "right" / "to").symlink_to(tmp_path / "left")
    snapshot = Snapshot(Files([str(root)]))
    assert len(snapshot.directories()) < 10
    (root / "a" / "x.py").write_text("new")
    assert short(tmp_path, snapshot.scan()) == {"root/a/x.py"}


def test_a_full_pipe_loses_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    report = Report(writing)
    names = [f"full_pipe_{number}" for number in range(3000)]
    for name in names:
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{'long' * 20}{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    report.send_imported()
    assert not report.is_complete
    data = b""
    while not report.is_complete:
        data += os.read(reading, 1 << 20)
        report.send_imported()
    data += os.read(reading, 1 << 20)
    paths = [json.loads(line)[0] for line in data.splitlines()]
    assert len(set(paths)) == len(names)
    os.close(reading)
    os.close(writing)
