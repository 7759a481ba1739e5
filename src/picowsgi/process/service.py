"""The data of a process that serves, in any role: supervisor, worker, successor or keeper.

Never acts on the data.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from picowsgi.process.hooks import Hooks

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi import core
    from picowsgi.config.settings import Settings
    from picowsgi.process.metrics import Metrics
    from picowsgi.process.restart import Command, Inherited
    from picowsgi.process.status_pipe import StatusPipe
    from picowsgi.reload.reloader import Reloader
    from picowsgi.system.pidfile import PidFile
    from picowsgi.system.systemd import Notifier

OnReady = Callable[[list[socket.socket]], object]


@dataclass
class Service:
    """The data of a process that serves, in any role."""

    load: Callable[[], WSGIApplication]
    settings: Settings
    sockets: list[socket.socket]
    notifier: Notifier
    #: Called when all members are ready for the first time.
    on_ready: OnReady = lambda _sockets: None
    #: The command that starts this program again; None: another program owns the process.
    command: Command | None = None
    #: The connection to the supervisor; None: this process is no worker.
    status_pipe: StatusPipe | None = None
    pid_file: PidFile | None = None
    hooks: Hooks = field(default_factory=Hooks)
    #: The data from the previous process; None: no other server has started this process.
    inherited: Inherited | None = None
    #: The watcher of the application's files; None: without --reload.
    reloader: Reloader | None = None
    #: The number of connections in each forked worker, which share this object.
    balance: core.Balance | None = None
    #: The page of --metrics, and the memory that all processes count in; None: without --metrics.
    metrics: Metrics | None = None
    #: Threads were left behind while they ran a request.
    left_threads: bool = False
    #: This process removes the files of unix sockets at its end.
    files_are_ours: bool = field(default=True)

    @property
    def has_workers(self) -> bool:
        """Whether the settings need worker processes, which can be replaced one by one."""
        settings = self.settings
        return bool(
            settings.workers > 1
            or settings.reload
            or settings.preload
            or settings.max_requests
            or settings.max_worker_rss
        )
