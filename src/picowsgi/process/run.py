"""A server's life in a process of its own: what is set up before it serves, and put away after.

Never serves itself: the supervisor does, in threads of this process or in others.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.app import middleware
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.log import get_logger
from picowsgi.process import ending
from picowsgi.process.hooks import load_hooks
from picowsgi.process.service import OnReady, Service
from picowsgi.system import fork_guard
from picowsgi.system.browser import open_page
from picowsgi.system.descriptors import make_room
from picowsgi.system.monkey import refuse_patched
from picowsgi.system.pidfile import PidFile
from picowsgi.system.privileges import find_identity
from picowsgi.system.sockets import close_sockets, find_permissions, open_sockets
from picowsgi.system.systemd import Notifier, take_sockets
from picowsgi.threads import loop

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings
    from picowsgi.process.restart import Command, Inherited
    from picowsgi.system.privileges import Identity
    from picowsgi.system.sockets import Owner


def run(
    load: Callable[[], WSGIApplication],
    settings: Settings,
    on_ready: OnReady,
    command: Command | None = None,
    inherited: Inherited | None = None,
    prepare: Callable[[], object] | None = None,
) -> int:
    """Serve what `load` returns until a signal ends it; returns the exit status.

    `prepare` is called before `load`, as the user that is to serve: as root nothing is opened but
    sockets and the pid file. With a `command` the process can start itself again. With the option
    `reload`, `load` is called in a new process after each change: this one must not have imported
    what the application is made of. Raises ConfigError, BindError, AppImportError and OSError where
    it cannot start.
    """
    from picowsgi.process.supervisor import supervise  # not for --help

    refuse_patched()
    if settings.ignored and inherited is None:
        get_logger().info(
            "%s and the like are ignored: Kubernetes sets them for a Service", settings.ignored[0]
        )
    pipe = inherited.status_pipe() if inherited is not None else None
    identity = check(settings)
    settings = replace(settings, max_connections=make_room(settings.max_connections))
    sockets = _listen(settings, inherited, None if identity is None else identity.owner)
    notifier = Notifier({} if pipe else os.environ)
    service = Service(
        lambda: middleware.wrap(_load_here(load), settings, sockets), settings, sockets, notifier
    )
    in_children = fork_guard.ClosedInChildren(partial(_close_all, sockets))
    service.on_ready = partial(_greet, settings, on_ready) if inherited is None else on_ready
    service.command = command
    service.status_pipe, service.inherited = pipe, inherited
    try:
        if settings.pid and pipe is None:
            service.pid_file = PidFile(settings.pid)
            service.pid_file.write()
        if identity is not None:
            identity.assume()
        if prepare is not None:
            prepare()
        if pipe is not None:
            core.die_with_parent(signal.SIGTERM)
        service.hooks = load_hooks(settings.hooks)
        with _serving(service), _reloading(service):
            status = supervise(service)
    except AppImportError as error:
        if pipe is None:
            raise
        pipe.send_failure(error)
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
    inherited = service.inherited
    if service.status_pipe is not None:
        yield
        return
    if inherited is None or inherited.role != "keeper":
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


def check(settings: Settings) -> Identity | None:
    """Change to the directory that the settings ask for, and find out whether they can be served.

    Sets the umask as well. Returns the user and group to run as. Raises ConfigError.
    """
    if settings.chdir:
        try:
            os.chdir(settings.chdir)
        except OSError as error:
            raise ConfigError(f"--chdir: {settings.chdir}: {error.strerror}") from None
    if settings.umask >= 0:
        os.umask(settings.umask)
    core.check_poller(settings)
    middleware.check(settings)
    find_permissions(settings.unix_socket_mode, settings.unix_socket_group)
    return find_identity(settings.user, settings.group)


def _listen(
    settings: Settings, inherited: Inherited | None, owner: Owner | None
) -> list[socket.socket]:
    """Return the sockets: a former process's, or systemd's, or new ones."""
    if inherited is not None:
        return inherited.sockets()
    for name in ("bind", "host", "port"):
        if settings.sources.get(name) in (f"--{name}", f"option {name}"):
            return _open(settings, owner)
    return take_sockets(os.environ, settings.backlog) or _open(settings, owner)


def _open(settings: Settings, owner: Owner | None) -> list[socket.socket]:
    permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group, owner)
    return open_sockets(settings.binds(), settings.backlog, permissions)
