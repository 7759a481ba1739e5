"""Starting the command again, with the sockets and the children that this process has.

What is handed over stands as JSON in one variable of the environment. Never decides when.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from picowsgi.config.settings import Settings
from picowsgi.process.status_pipe import READY, StatusPipe, write
from picowsgi.system.sockets import adopt_listener, file_of, is_ours

VARIABLE = "PICOWSGI_INHERITED"

Role = Literal["worker", "successor", "keeper"]


@dataclass(frozen=True)
class Inherited:
    """What a process was started with.

    A worker is a program of its own that a supervisor watches; a successor takes a server's place;
    a keeper is the same process as before, now without an application of its own. `channel` leads
    to the process that has started this one (`status_pipe`). `child` is the keeper's worker: its
    number and the keeper's end of their channel. `signals` is the pipe of the signals that came
    before the keeper began (`Signals`).
    """

    role: Role
    parent: int
    listeners: tuple[tuple[int, str | None, bool], ...]
    channel: int = -1
    child: tuple[int, int] = (-1, -1)
    signals: int = -1
    settings: dict[str, Any] | None = None

    def descriptors(self) -> list[int]:
        """Return all that was handed over."""
        numbers = [number for number, *_ in self.listeners]
        numbers += [self.channel, self.child[1], self.signals]
        return [number for number in numbers if number >= 0]

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets; only who owns a unix socket's file removes it."""
        return [
            adopt_listener(descriptor, file, is_ours=ours)
            for descriptor, file, ours in self.listeners
        ]

    def status_pipe(self) -> StatusPipe | None:
        """Return a worker's end of what it shares with its supervisor."""
        if self.role != "worker":
            return None
        return StatusPipe(self.channel, self.parent)

    def report_ready(self) -> None:
        """Tell the process whose successor this one is that it serves."""
        if self.role == "successor":
            write(self.channel, bytes([READY]))
            os.close(self.channel)

    def read_settings(self) -> Settings | None:
        """Return the settings of the process that this one was, where it is a keeper."""
        if self.settings is None:
            return None
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.settings.items()
        }
        return Settings(**values)


def take_inherited(environ: MutableMapping[str, str]) -> Inherited | None:
    """Return what this process was given, and remove it from `environ`."""
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    import json  # only where processes replace each other

    values = json.loads(text)
    if values["role"] == "keeper" and values["parent"] != os.getpid():
        return None  # another program's
    values["listeners"] = tuple(map(tuple, values["listeners"]))
    values["child"] = tuple(values["child"])
    inherited = Inherited(**values)
    for descriptor in inherited.descriptors():  # what the application starts is not to have them
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
    return inherited


def describe(
    sockets: Sequence[socket.socket], *, with_files: bool
) -> tuple[tuple[int, str | None, bool], ...]:
    """Return the sockets as `Inherited.listeners`."""
    found = []
    for sock in sockets:
        file = file_of(sock) if with_files else None
        found.append((sock.fileno(), None if file is None else str(file), is_ours(sock)))
    return tuple(found)


@dataclass(frozen=True)
class Command:
    """How this program was started, to start it again: as the user did, from where the user did."""

    arguments: tuple[str, ...]
    directory: str
    environ: dict[str, str]
    #: This process is nothing else: it ends when the server has ended.
    is_running: bool

    @classmethod
    def of_this_process(cls, argv: Sequence[str] | None = None) -> Command:
        """Return the command of this process, or of `python -m picowsgi` with other arguments."""
        original: list[str] = getattr(sys, "orig_argv", [])
        if argv is None and original:
            arguments = [sys.executable, *original[1:]]
        else:
            arguments = [
                sys.executable,
                "-m",
                "picowsgi",
                *(sys.argv[1:] if argv is None else argv),
            ]
        environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)
        return cls(tuple(arguments), _current_directory(), environ, is_running=argv is None)

    def start(self, inherited: Inherited, descriptors: Sequence[int]) -> int:
        """Start it as a child that has `descriptors`; return its number. Raises OSError."""
        import subprocess  # only where it is asked for

        kept = [*(listener[0] for listener in inherited.listeners), *descriptors]
        process = subprocess.Popen(
            self.arguments, cwd=self.directory, env=self._environ(inherited), pass_fds=kept
        )
        process.returncode = 0  # the caller waits for the child; the object is not to warn
        return process.pid

    def become(self, inherited: Inherited, descriptors: Sequence[int]) -> NoReturn:
        """Make this process a new one of the command, with `descriptors`. Raises OSError."""
        for descriptor in (*(listener[0] for listener in inherited.listeners), *descriptors):
            os.set_inheritable(descriptor, True)
        os.chdir(self.directory)
        os.execve(self.arguments[0], self.arguments, self._environ(inherited))  # noqa: S606

    def _environ(self, inherited: Inherited) -> dict[str, str]:
        import json

        return {**self.environ, VARIABLE: json.dumps(dataclasses.asdict(inherited))}


def _current_directory() -> str:
    """Return the directory as the shell names it: a link in it may lead elsewhere by next time."""
    try:
        named = Path(os.environ.get("PWD", ""))
        if named.is_absolute() and named.samefile("."):
            return str(named)
    except OSError:
        pass
    try:
        return str(Path.cwd())
    except OSError:
        return "/"
