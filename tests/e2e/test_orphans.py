"""Process 1 of a container, and a child subreaper, reap the orphans of the application."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.processes import ask, children, eventually, write_app
from support.stops import TERM, UNSHARE, can_be_first, start_as_first

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

#: Leaves orphans that soon exit; a child of its own exits with a status.
APP = """
import atexit, os, subprocess
from pathlib import Path

HERE = Path(__file__).parent
LOADER = os.getpid()
child = subprocess.Popen(["sh", "-c", "exit 7"])

def end():
    if os.getpid() == LOADER:
        (HERE / "status").write_text(str(child.wait()))

atexit.register(end)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/orphans":
        code = "for i in 1 2 3; do (sleep 0.1; echo >>ended) & done"
        assert subprocess.run(["sh", "-c", code], cwd=HERE).returncode == 0
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"left"]
"""
SUBREAPER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); "


def zombies(parent):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, above = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if (state, above) == ("Z", str(parent)):
                found.append(int(entry.name))
    return found


def check(command, first, directory, own):
    """Make orphans, and check that the process `first` has `own` zombies."""
    assert ask(command.port, "/orphans") == "left"
    ended = directory / "ended"
    eventually(lambda: ended.exists() and len(ended.read_text()) == 3, "the orphans to end")
    eventually(lambda: len(zombies(first)) == own, "the orphans to be reaped")


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_subreaper_reaps_orphans_and_not_the_children_of_the_application(
    command, tmp_path, preload
):
    write_app(tmp_path, APP)
    run = SUBREAPER + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    picowsgi = ("-m", "picowsgi", "--port", "0", "app:app", "--workers", "2", *preload)
    one = command("-c", run, *picowsgi, directory=tmp_path)
    check(one, one.process.pid, tmp_path, own=len(preload))
    assert one.stop() == 0
    if preload:
        assert (tmp_path / "status").read_text() == "7"


@pytest.mark.skipif(not can_be_first(), reason=f"needs {UNSHARE[0]} and the right to use it")
def test_process_1_reaps_orphans_after_a_reload_too(command, tmp_path):
    write_app(tmp_path, APP)
    one = start_as_first(command, tmp_path, "--workers", "2")
    (first,) = children(one.process.pid)
    check(one, first, tmp_path, own=0)
    os.kill(first, 1)
    one.wait_for_log("info: reloaded")
    (tmp_path / "ended").unlink()
    check(one, first, tmp_path, own=0)
    os.kill(first, TERM)
    assert one.wait() == 0
    assert "error" not in one.log
