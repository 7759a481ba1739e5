"""A server's life in a process of its own: what is set up before it serves, and put away after.

Never serves itself: the supervisor does, in threads of this process or in others.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.app import middleware
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.log import get_logger
from picowsgi.process import ending
from picowsgi.process.hooks import Hooks, load_hooks
from picowsgi.process.restart import Command, Handover
from picowsgi.process.status_pipe import Link
from picowsgi.system import fork_guard
from picowsgi.system.browser import open_page
from picowsgi.system.descriptors import make_room
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.pidfile import PidFile
from picowsgi.system.privileges import find_identity
from picowsgi.system.sockets import close_sockets, open_sockets
from picowsgi.system.systemd import Notifier, take_sockets
from picowsgi.threads import loop

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings
    from picowsgi.reload.reloader import Reloader
    from picowsgi.system.sockets import Owner

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
    #: How to start this program again; None where it is somebody else's.
    command: Command | None = None
    #: To the supervisor, where this process is a worker.
    link: Link | None = None
    pid_file: PidFile | None = None
    hooks: Hooks = field(default_factory=Hooks)
    #: What this process was started with, where a former one has started it.
    given: Handover | None = None
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


def run(
    load: Callable[[], WSGIApplication],
    settings: Settings,
    on_ready: OnReady,
    command: Command | None = None,
    given: Handover | None = None,
    prepare: Callable[[], object] | None = None,
) -> int:
    """Serve what `load` returns until a signal ends it; returns the exit status.

    `prepare` is called before `load`, as the user that is to serve: as root nothing is opened but
    sockets and the pid file. With a `command` the process can start itself again. With the option
    `reload`, `load` is called in a new process after each change: this one must not have imported
    what the application is made of. Raises ConfigError, BindError, AppImportError and OSError where
    it cannot start.
    """
    from picowsgi.process.supervisor import supervise

    refuse_patched()
    if settings.ignored and given is None:
        get_logger().info(
            "%s and the like are ignored: Kubernetes sets them for a Service", settings.ignored[0]
        )
    link = given.link() if given is not None else None
    enter_directory(settings)
    middleware.check(settings)
    settings = make_room(settings)
    identity = find_identity(settings.user, settings.group)
    sockets = _listen(settings, given, None if identity is None else identity.owner)
    notifier = Notifier({} if link else os.environ)
    service = Service(
        lambda: middleware.wrap(_load_here(load), settings, sockets), settings, sockets, notifier
    )
    in_children = fork_guard.ClosedInChildren(partial(_close_all, sockets))
    service.on_ready = partial(_greet, settings, on_ready) if given is None else on_ready
    service.command = command
    service.link, service.given = link, given
    try:
        if settings.pid and link is None:
            service.pid_file = PidFile(settings.pid)
            service.pid_file.write()
        if identity is not None:
            identity.assume()
        if prepare is not None:
            prepare()
        if link is not None:
            core.die_with_parent(signal.SIGTERM)
        service.hooks = load_hooks(settings.hooks)
        with _serving(service), _reloading(service):
            status = supervise(service)
    except AppImportError as error:
        if link is None:
            raise
        link.fail(error)
        return 1
    finally:
        del in_children
        if service.files_are_ours:
            close_sockets(sockets)
        if service.pid_file is not None:
            service.pid_file.remove()
    if command is not None:
        is_held_up = command.is_running and ending.has_threads()
        if service.left_threads or is_held_up:  # they could disturb an ordinary end, or prevent it
            ending.leave(status)
    return status


def _load_here(load: Callable[[], WSGIApplication]) -> WSGIApplication:
    """Return what `load` returns; ends a child that it forks and that comes back.

    Raises PatchedError where what it has imported has changed the system.
    """
    process = os.getpid()
    try:
        application = load()
    except BaseException as error:
        if os.getpid() != process:
            fork_guard.leave_child(error)
        raise
    if os.getpid() != process:
        fork_guard.leave_child()
    refuse_patched()
    return application


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _greet(settings: Settings, on_ready: OnReady, sockets: list[socket.socket]) -> None:
    """Do what is due when a server serves that no other has started."""
    on_ready(sockets)
    middleware.warn(settings, sockets)
    loop.warn(settings)
    if settings.open:
        open_page(sockets)


@contextmanager
def _serving(service: Service) -> Iterator[None]:
    """Call the hooks of a server's start and end, in its first process.

    A keeper is the same process as before, where the hook of the start was called.
    """
    given = service.given
    if service.link is not None:
        yield
        return
    if given is None or given.role != "keeper":
        service.hooks.call("on_start")
    try:
        yield
    finally:
        service.hooks.call("on_stop")


@contextmanager
def _reloading(service: Service) -> Iterator[None]:
    """Watch the application's files, where that is asked for."""
    if not service.settings.reload:
        yield
        return
    from picowsgi.reload.reloader import Reloader  # only then

    service.reloader = Reloader(service.settings, service.sockets)
    try:
        yield
    finally:
        service.reloader.close()


def enter_directory(settings: Settings) -> None:
    """Change to the directory, and set the umask, that the settings ask for."""
    if settings.chdir:
        try:
            os.chdir(settings.chdir)
        except OSError as error:
            raise ConfigError(f"--chdir: {settings.chdir}: {error.strerror}") from None
    if settings.umask >= 0:
        os.umask(settings.umask)


def _listen(settings: Settings, given: Handover | None, owner: Owner | None) -> list[socket.socket]:
    """Return the sockets: a former process's, or systemd's, or new ones."""
    if given is not None:
        return given.sockets()
    for name in ("bind", "host", "port"):
        if settings.sources.get(name) in (f"--{name}", f"option {name}"):
            return open_sockets(settings, owner)
    return take_sockets(os.environ, settings.backlog) or open_sockets(settings, owner)


def freeze() -> None:
    """Leave what exists now out of garbage collection, so that forked processes can share it."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()
