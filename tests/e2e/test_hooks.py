"""--hooks: functions that are called when processes start and end, and cannot stop the server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from support.processes import ask, children, eventually, lives, write_app
from support.stops import TERM, reload

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prometheus"
#: Each writes a line: its name, its process, and its arguments.
HOOKS = """
import os
from pathlib import Path

def note(*words):
    with Path(__file__).with_name("called").open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def on_start(): note("on_start", os.getpid())
def worker_start(): note("worker_start", os.getpid())
def worker_stop(): note("worker_stop", os.getpid())
def worker_exit(pid, status): note("worker_exit", os.getpid(), pid, status)
def on_reload(): note("on_reload", os.getpid())
def on_stop(): note("on_stop", os.getpid())
"""


@pytest.fixture
def serve_hooks(picowsgi, tmp_path):
    def start(*options, hooks=HOOKS, **more):
        write_app(tmp_path)
        (tmp_path / "site_hooks.py").write_text(hooks)
        return picowsgi("app:app", "--hooks", "site_hooks", *options, directory=tmp_path, **more)

    return start


def called(directory):
    """Return the calls so far: each name and its numbers."""
    file = directory / "called"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(name, *map(int, rest)) for name, *rest in map(str.split, lines)]


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_each_hook_is_called_in_its_process(serve_hooks, tmp_path, preload):
    command = serve_hooks("--workers", "2", *preload)
    first = command.process.pid
    before = children(first)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(set(children(first)) | set(before)) == 3, "another worker")
    eventually(lambda: len(called(tmp_path)) == 5, "the hooks to be called")
    after = children(first)
    assert command.stop() == 0
    calls = called(tmp_path)
    assert calls[0] == ("on_start", first)
    assert calls[-1] == ("on_stop", first)
    assert sorted(calls[1:3]) == [("worker_start", pid) for pid in before]
    (new,) = set(after) - set(before)
    assert calls[3:5] == [("worker_exit", first, before[0], -signal.SIGKILL), ("worker_start", new)]
    assert sorted(calls[5:-1]) == sorted(
        [("worker_stop", pid) for pid in after] + [("worker_exit", first, pid, 0) for pid in after]
    )
    for pid in after:
        assert calls.index(("worker_stop", pid)) < calls.index(("worker_exit", first, pid, 0))


def test_a_single_process_is_the_worker_too(serve_hooks, tmp_path):
    command = serve_hooks()
    pid = command.process.pid
    assert command.stop() == 0
    names = ("on_start", "worker_start", "worker_stop", "on_stop")
    assert called(tmp_path) == [(name, pid) for name in names]


@pytest.mark.parametrize("options", [(), ("--workers=2",), ("--workers=2", "--preload")], ids=str)
def test_a_reload_calls_its_hook_once_and_start_and_stop_are_called_once(
    serve_hooks, tmp_path, options
):
    command = serve_hooks(*options)
    for _ in range(2):
        old = children(command.process.pid)
        reload(command)
        eventually(lambda old=old: not any(map(lives, old)), "the old workers to end")
        command.wait_for_log("info: reloaded")
    assert command.stop() == 0
    names = [name for name, *_ in called(tmp_path)]
    assert (names[0], names[-1]) == ("on_start", "on_stop")
    assert (names.count("on_start"), names.count("on_stop")) == (1, 1)
    assert names.count("on_reload") == 2
    assert names.count("worker_start") == names.count("worker_stop") == (6 if options else 3)


def test_errors_in_hooks_are_logged_and_stop_nothing(serve_hooks):
    hooks = re.sub(r"note\(\"(\w+)\".*\)", r"fail('\1')", HOOKS).replace(
        "def note", "def fail(name): raise SystemExit('in ' + name)\ndef note"
    )
    command = serve_hooks("--workers", "2", hooks=hooks)
    assert ask(command.port)
    reload(command)
    assert ask(command.port)
    assert command.stop() == 0
    for name in re.findall(r"def ((?:on|worker)_\w+)", HOOKS):
        assert f"the hook {name} has failed" in command.log
        assert f"SystemExit: in {name}" in command.log


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ("def on_exit(): pass", "site_hooks.on_exit is not a hook"),
        ("def worker_starts(): pass", "is not a hook; did you mean worker_start?"),
        ("def worker_exit(pid): pass", "expected the function worker_exit(pid, status)"),
        ("on_start = 3", "site_hooks.on_start: expected a function, got 3"),
        ("x = 3", "site_hooks has none of the functions on_start, worker_start"),
        ("1 / 0", "ZeroDivisionError"),
        ("import not_there", "not_there"),
    ],
)
def test_an_unsuitable_module_is_refused_at_the_start(serve_hooks, hooks, message):
    command = serve_hooks(hooks=hooks, listens=False)
    assert command.wait() in (1, 2)
    assert message in command.log
    assert "--hooks" in command.log
    assert "picowsgi/process" not in command.log


def test_private_names_and_values_that_are_not_functions_are_not_called(serve_hooks, tmp_path):
    hooks = HOOKS + "def _on_end(): pass\nworker_count = 3\n"
    assert serve_hooks(hooks=hooks).stop() == 0


def test_a_killed_worker_is_removed_from_the_prometheus_gauges(picowsgi, tmp_path):
    pytest.importorskip("prometheus_client")
    site, numbers = tmp_path / "site", tmp_path / "numbers"
    shutil.copytree(EXAMPLE, site, ignore=shutil.ignore_patterns("__pycache__"))
    numbers.mkdir()
    (numbers / "gauge_livesum_1.db").write_bytes(b"")  # of an earlier server
    command = picowsgi(
        *("metrics_app:app", "--hooks", "metrics_hooks", "--workers", "2"),
        directory=site,
        environ={"PROMETHEUS_MULTIPROC_DIR": str(numbers)},
    )

    def live():
        return float(re.search(r"^workers (.+)$", ask(command.port, "/metrics"), re.MULTILINE)[1])

    eventually(lambda: live() == 2, "both workers to be counted")
    for number in (signal.SIGKILL, TERM, signal.SIGKILL):
        before = children(command.process.pid)
        os.kill(before[0], number)
        eventually(
            lambda before=before: len(set(children(command.process.pid)) | set(before)) == 3,
            "another worker",
        )
        eventually(lambda: live() == 2, "the ended worker not to be counted")
    assert ask(command.port, "/a") == "Hello!\n"
    assert 'requests_total{path="/a"} 1.0' in ask(command.port, "/metrics")
    assert command.stop() == 0
