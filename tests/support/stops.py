"""Ways to stop a server: signals to its processes, keys in a terminal, as process 1."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios

import pytest

from support import outer_environ
from support.held import HOLDING_APP
from support.processes import children, write_app

TWO = ("--workers", "2")
MODES = pytest.mark.parametrize(
    "options",
    [(), TWO, (*TWO, "--preload")],
    ids=["one process", "two workers", "preload"],
)


def to_process(command, number):
    command.process.send_signal(number)


def to_group(command, number):
    os.killpg(command.process.pid, number)


def to_workers(command, number):
    for pid in children(command.process.pid):
        os.kill(pid, number)


TERM, INT = signal.SIGTERM, signal.SIGINT


def reload(command):
    command.process.send_signal(signal.SIGHUP)
    command.wait_for_log("info: reloaded")


UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


def can_be_first():
    """Return whether this process may start another one as the first of a container."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def start_as_first(command, directory, *options, **more):
    run = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    picowsgi = (sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options)
    return command("-c", run, *UNSHARE, *picowsgi, directory=directory, **more)


class Terminal:
    """The command in the foreground of a terminal of its own; the terminal handles Ctrl-C."""

    def __init__(self, directory, *options):
        write_app(directory, HOLDING_APP)
        self._keyboard, inner = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "picowsgi", "--port", "0", "app:app", *options],
            cwd=directory,
            env=outer_environ(),
            stdin=inner,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.log = ""
        while "Ctrl-C" not in self.log:
            self.log += self.process.stderr.readline().decode()
        self.port = int(self.log.partition("http://127.0.0.1:")[2].split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self._keyboard)

    def press_ctrl_c(self):
        os.write(self._keyboard, b"\x03")
