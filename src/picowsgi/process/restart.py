"""Starts the command again, with the sockets and the children of this process.

One environment variable has the data for the new process, as JSON. Never decides when to start it.
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
    """The data that a process gets from the process that started it.

    The role `worker` is a program under a supervisor. A `successor` replaces a server on the same
    sockets. A `keeper` is the same process as before, but without an application: it watches the
    worker that has replaced it. `channel` is a socket to the process that started this one
    (`status_pipe`). `child` is the keeper's worker: its process number, and the keeper's end of
    their pair of sockets. `signals` is the pipe with the signals that came before the keeper began
    (`Signals`). `metrics` is for --metrics: the file of the memory, and the listening socket, as in
    `listeners`; a worker has no socket.
    """

    role: Role
    parent: int
    listeners: tuple[tuple[int, str | None, bool], ...]
    channel: int = -1
    child: tuple[int, int] = (-1, -1)
    signals: int = -1
    settings: dict[str, Any] | None = None
    metrics: tuple[int, tuple[int, str | None, bool] | None] | None = None

    def descriptors(self) -> list[int]:
        """Return the descriptors that the process has got."""
        numbers = [number for number, *_ in self.listeners]
        numbers += [self.channel, self.child[1], self.signals]
        return [number for number in [*numbers, *self.metrics_descriptors()] if number >= 0]

    def metrics_descriptors(self) -> list[int]:
        """Return those of `metrics`."""
        if self.metrics is None:
            return []
        memory, listener = self.metrics
        return [memory] if listener is None else [memory, listener[0]]

    def sockets(self) -> list[socket.socket]:
        """Return the listening sockets. Only the owner of a unix socket's file removes the file."""
        return [
            adopt_listener(descriptor, file, is_ours=ours)
            for descriptor, file, ours in self.listeners
        ]

    def status_pipe(self) -> StatusPipe | None:
        """Return a worker's end of the pair of sockets; None: this process is no worker."""
        if self.role != "worker":
            return None
        return StatusPipe(self.channel, self.parent)

    def report_ready(self) -> None:
        """Report to the previous server that its successor serves."""
        if self.role == "successor":
            write(self.channel, bytes([READY]))
            os.close(self.channel)

    def read_settings(self) -> Settings | None:
        """Return the settings from before the exec, if this process is a keeper."""
        if self.settings is None:
            return None
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.settings.items()
        }
        return Settings(**values)


def take_inherited(environ: MutableMapping[str, str]) -> Inherited | None:
    """Return the data for this process, and remove them from `environ`."""
    text = environ.pop(VARIABLE, "")
    if not text:
        return None
    import json  # only processes that replace each other need it

    values = json.loads(text)
    if values["role"] == "keeper" and values["parent"] != os.getpid():
        return None  # the variable is meant for another process
    values["listeners"] = tuple(map(tuple, values["listeners"]))
    values["child"] = tuple(values["child"])
    if values.get("metrics") is not None:
        memory, listener = values["metrics"]
        values["metrics"] = memory, None if listener is None else tuple(listener)
    inherited = Inherited(**values)
    for descriptor in inherited.descriptors():  # no program of the application gets them
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
    """The command that started this program, with its directory and environment."""

    arguments: tuple[str, ...]
    directory: str
    environ: dict[str, str]
    #: The command owns this process, which ends with the server.
    is_running: bool

    @classmethod
    def of_this_process(cls, argv: Sequence[str] | None = None) -> Command:
        """Return the command of this process, or `python -m picowsgi` with the arguments `argv`."""
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
        """Start a child with `descriptors`, and return its process number. Raises OSError."""
        import subprocess  # slow to import

        kept = [*(listener[0] for listener in inherited.listeners), *descriptors]
        process = subprocess.Popen(
            self.arguments, cwd=self.directory, env=self._environ(inherited), pass_fds=kept
        )
        process.returncode = 0  # the caller waits for the child, so the object must not warn
        return process.pid

    def become(self, inherited: Inherited, descriptors: Sequence[int]) -> NoReturn:
        """Execute the command in this process, with `descriptors`. Raises OSError."""
        for descriptor in (*(listener[0] for listener in inherited.listeners), *descriptors):
            os.set_inheritable(descriptor, True)
        os.chdir(self.directory)
        os.execve(self.arguments[0], self.arguments, self._environ(inherited))  # noqa: S606

    def _environ(self, inherited: Inherited) -> dict[str, str]:
        import json

        return {**self.environ, VARIABLE: json.dumps(dataclasses.asdict(inherited))}


def _current_directory() -> str:
    """Return the directory as the shell names it.

    The name may contain a link, which may lead to another directory at the next start.
    """
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
