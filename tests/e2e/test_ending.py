"""A process runs functions of atexit, executors, finalizers and threads at its end."""

from __future__ import annotations

import os
import sys
import time

import pytest

from support.processes import ask, children, eventually, lives, write_app
from support.stops import MODES, TERM

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BOTH = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
APP = """
import atexit, os, time
from pathlib import Path

HERE = Path(__file__).parent

def note(*words):
    with (HERE / "noted").open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def ends(what):
    note(what, os.getpid())

def app(environ, start_response):
    answer = serve(environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer or os.getpid()).encode()]

def serve(environ):
    pass

"""


@pytest.fixture
def serve_app(picowsgi, tmp_path):
    def start(app, *options, **more):
        write_app(tmp_path, APP + app)
        return picowsgi("app:app", *options, directory=tmp_path, **more)

    return start


def noted(directory):
    """Return the processes that have written each word."""
    file = directory / "noted"
    found: dict[str, list[int]] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        what, pid = line.split()
        found.setdefault(what, []).append(int(pid))
    return {what: sorted(pids) for what, pids in found.items()}


@BOTH
def test_workers_run_the_exit_functions_that_they_and_the_application_registered(
    serve_app, tmp_path, preload
):
    command = serve_app(
        'atexit.register(ends, "import")\n'
        'os.register_at_fork(after_in_child=lambda: atexit.register(ends, "fork"))\n'
        'def serve(environ): atexit.register(ends, "request")\n',
        *("--workers", "2", *preload),
    )
    workers = children(command.process.pid)
    served = int(ask(command.port))
    assert command.stop() == 0
    found = noted(tmp_path)
    first = [command.process.pid] if preload else []
    assert found.pop("import") == sorted(workers + first)
    if preload:
        assert found.pop("fork") == workers
    assert found == {"request": [served]}


@pytest.mark.parametrize("preload", ["False", "True"])
def test_a_program_runs_its_own_exit_functions_once(command, tmp_path, preload):
    write_app(tmp_path, APP + 'atexit.register(ends, "application")\n')
    (tmp_path / "program.py").write_text(
        "import atexit, os, picowsgi\n"
        "def call(environ, start_response):\n"
        "    from app import app\n"
        "    return app(environ, start_response)\n"
        "def end():\n"
        "    from app import note\n"
        "    note('program', os.getpid())\n"
        "atexit.register(end)\n"
        "from picowsgi.log import configure\n"
        "configure('info', 'text')\n"
        f"picowsgi.serve(call, port=0, workers=2, preload={preload})\n"
    )
    one = command("program.py", directory=tmp_path)
    served = int(ask(one.port))
    assert one.stop() == 0
    found = noted(tmp_path)
    assert found.pop("program") == [one.process.pid]
    assert served in found.pop("application")
    assert found == {}


def test_a_finalizer_runs_in_the_process_that_made_it(serve_app, tmp_path):
    command = serve_app(
        "import tempfile\n"
        'ours = tempfile.TemporaryDirectory(dir=HERE, prefix="shared")\n'
        "mine = []\n"
        "def serve(environ):\n"
        '    mine.append(tempfile.TemporaryDirectory(dir=HERE, prefix="mine"))\n',
        *("--workers", "2", "--preload"),
    )
    served = int(ask(command.port))
    assert len(list(tmp_path.glob("mine*"))) == 1
    os.kill(served, TERM)
    eventually(lambda: not lives(served), "the worker to end")
    assert list(tmp_path.glob("mine*")) == []
    assert len(list(tmp_path.glob("shared*"))) == 1
    assert command.stop() == 0
    assert list(tmp_path.glob("shared*")) == []


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="multiprocessing does not fork by default")
def test_a_worker_does_not_end_the_processes_of_its_parent(serve_app, tmp_path):
    command = serve_app(
        "import multiprocessing\n"
        "def sleep():\n"
        "    time.sleep(60)\n"
        "child = multiprocessing.Process(target=sleep, daemon=True)\n"
        "child.start()\n"
        "def serve(environ):\n"
        '    return child.pid if environ["PATH_INFO"] == "/child" else None\n',
        *("--workers", "1", "--preload"),
    )
    child, served = int(ask(command.port, "/child")), int(ask(command.port))
    os.kill(served, TERM)
    eventually(lambda: not lives(served), "the worker to end")
    assert lives(child)
    assert command.stop() == 0
    eventually(lambda: not lives(child), "the child to end")
    assert "Traceback" not in command.log


@MODES
def test_the_tasks_of_an_executor_are_done_before_the_end(serve_app, tmp_path, options):
    command = serve_app(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "executor = ThreadPoolExecutor(1)\n"
        "def late():\n"
        "    time.sleep(0.5)\n"
        '    ends("late")\n'
        "def serve(environ):\n"
        "    executor.submit(late)\n",
        *options,
    )
    served = int(ask(command.port))
    assert command.stop() == 0
    assert noted(tmp_path) == {"late": [served]}


@MODES
def test_a_thread_that_never_ends_gets_as_much_time_as_open_requests(serve_app, tmp_path, options):
    command = serve_app(
        "import threading\n"
        'atexit.register(ends, "end")\n'
        "def serve(environ):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=False).start()\n",
        *("--timeout-graceful", "1.5", *options),
    )
    served = int(ask(command.port))
    began = time.monotonic()
    assert command.stop() == 0
    assert 1 <= time.monotonic() - began < 6
    assert served in noted(tmp_path)["end"]
    assert "did not end in time" not in command.log
