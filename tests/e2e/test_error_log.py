"""--error-log: the error log is a file instead of standard error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support import outer_environ, wait_until
from support.processes import ask

APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"too much"]
    print("a complaint", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
BOTH = pytest.mark.parametrize(
    "options", [(), ("--workers=2",)], ids=["one process", "two workers"]
)


@pytest.fixture
def start(picowsgi, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "error.log"

    def run(*options):
        command = picowsgi(
            f"--error-log={log}", *options, "app:app", directory=tmp_path, listens=False
        )
        wait_until(
            lambda: log.exists() and "press Ctrl-C" in log.read_text(), "the server to serve"
        )
        url = log.read_text().partition(" on ")[2].partition(" ")[0]
        return command, int(url.rpartition(":")[2]), log

    return run


@BOTH
def test_all_lines_go_to_the_file_and_to_a_new_file_after_a_rotation(start, options):
    command, port, log = start(*options)
    ask(port, "/")
    ask(port, "/error")
    wait_until(lambda: "more content" in log.read_text(), "the line of an error")
    assert "a complaint\n" in log.read_text()
    old = log.rename(log.with_name("old.log"))
    before = old.read_text()
    command.process.send_signal(signal.SIGUSR1)

    def is_in_new():
        ask(port, "/error")
        return log.exists() and "more content" in log.read_text()

    wait_until(log.exists, "the new file")
    for _ in range(4):  # each worker may take its time
        wait_until(is_in_new, "the line of an error in the new file")
    assert command.stop() == 0
    assert old.read_text().startswith(before)
    assert command.log == ""


def test_a_file_that_cannot_be_opened_again_leaves_the_old_one_open(start):
    command, port, log = start()
    old = log.rename(log.with_name("old.log"))
    log.mkdir()
    command.process.send_signal(signal.SIGUSR1)
    wait_until(
        lambda: "cannot open the error log again" in old.read_text(), "a line about the failure"
    )
    ask(port, "/error")
    wait_until(lambda: "more content" in old.read_text(), "the line of an error")
    assert command.stop() == 0


def run(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "picowsgi", *arguments],
        cwd=directory,
        env=outer_environ(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_error_that_ends_a_start_is_on_standard_error_and_in_the_file(tmp_path):
    done = run(tmp_path, "--error-log=error.log", "--port=0", "none:app")
    assert done.returncode == 1
    assert "none" in done.stderr
    assert (tmp_path / "error.log").read_text() == done.stderr


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path):
    done = run(tmp_path, "--error-log=none/error.log", "--port=0")
    assert done.returncode == 2
    assert done.stderr.startswith("picowsgi: error: --error-log: cannot open ")


def test_the_path_of_the_file_is_relative_to_chdir_and_its_mode_follows_the_umask(tmp_path):
    (tmp_path / "there").mkdir()
    done = run(
        tmp_path, "--error-log=error.log", "--chdir=there", "--umask=077", "--port=0", "none:app"
    )
    assert done.returncode == 1
    assert (tmp_path / "there" / "error.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user, which only root can")
@BOTH
def test_the_user_of_the_workers_owns_the_file(picowsgi, options):
    folder = Path(tempfile.mkdtemp())  # other users cannot enter tmp_path
    try:
        folder.chmod(0o755)
        (folder / "app.py").write_text(APP)
        logs = folder / "logs"
        logs.mkdir()
        os.chown(logs, 65534, 65534)
        log = logs / "error.log"
        command = picowsgi(
            "--user=65534",
            "--group=65534",
            f"--error-log={log}",
            *options,
            "app:app",
            directory=folder,
            listens=False,
        )
        wait_until(
            lambda: log.exists() and "press Ctrl-C" in log.read_text(), "the server to serve"
        )
        assert (log.stat().st_uid, log.stat().st_gid) == (65534, 65534)
        log.rename(logs / "old.log")
        command.process.send_signal(signal.SIGUSR1)
        wait_until(log.exists, "the new file")
        assert log.stat().st_uid == 65534
        assert command.stop() == 0
    finally:
        shutil.rmtree(folder)
