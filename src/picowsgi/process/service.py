"""What a process that serves has, whatever part of the work is its own.

Never does anything with it.
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
    from picowsgi.process.restart import Command, Inherited
    from picowsgi.process.status_pipe import StatusPipe
    from picowsgi.reload.reloader import Reloader
    from picowsgi.system.pidfile import PidFile
    from picowsgi.system.systemd import Notifier

OnReady = Callable[[list[socket.socket]], object]


@dataclass
class Service:
    """What a process that serves has, whatever part of the work is its own."""

    load: Callable[[], WSGIApplication]
    settings: Settings
    sockets: list[socket.socket]
    notifier: Notifier
    #: Called once everything serves.
    on_ready: OnReady = lambda _sockets: None
    #: How to start this program again; None if another program owns the process.
    command: Command | None = None
    #: To the supervisor, where this process is a worker.
    status_pipe: StatusPipe | None = None
    pid_file: PidFile | None = None
    hooks: Hooks = field(default_factory=Hooks)
    #: What this process was started with, where a former one has started it.
    inherited: Inherited | None = None
    #: What looks for changed files, where the application is to be loaded again after a change.
    reloader: Reloader | None = None
    #: Shared with forked workers.
    balance: core.Balance | None = None
    #: Threads were given up while they ran a request.
    left_threads: bool = False
    #: Whose turn it is to remove the sockets' files.
    files_are_ours: bool = field(default=True)

    @property
    def has_workers(self) -> bool:
        """Whether the settings ask for processes that can be replaced one by one."""
        settings = self.settings
        return bool(
            settings.workers > 1
            or settings.reload
            or settings.preload
            or settings.max_requests
            or settings.max_worker_rss
        )
