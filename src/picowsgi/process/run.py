"""Sets up a server in a process of its own, and cleans up after it.

Never serves itself: the supervisor does, in threads of this process or in other processes.
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
from picowsgi.process.metrics import Metrics, adopt_metrics, open_metrics
from picowsgi.process.service import OnReady, Service
from picowsgi.system import debugger, fork_guard
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
    """Serve the application that `load` returns until a signal. Returns the exit status.

    The function calls `prepare` before `load`, as the user of `--user`. As root it opens nothing
    but sockets and the pid file. With a `command` the process can start itself again. With the
    option `reload`, a new process calls `load` after each change, so this process must not have
    imported modules of the application. Raises ConfigError, BindError, AppImportError or OSError if
    the server cannot start.
    """
    from picowsgi.process.supervisor import supervise  # --help does not need it

    refuse_patched()
    if settings.ignored and inherited is None:
        get_logger().info(
            "%s and similar variables are ignored: Kubernetes sets them for a Service",
            settings.ignored[0],
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
    service.on_ready = partial(_greet, service, on_ready) if inherited is None else on_ready
    service.after_greeting = middleware.log_pin
    service.command = command
    service.status_pipe, service.inherited = pipe, inherited
    try:
        service.metrics = _open_metrics(service, None if identity is None else identity.owner)
        if settings.pid and pipe is None:
            service.pid_file = PidFile(settings.pid)
            service.pid_file.write()
        if identity is not None:
            identity.assume()
        if prepare is not None:
            prepare()
        if pipe is not None:
            core.die_with_parent(signal.SIGTERM)
        service.hooks = load_hooks(settings.hooks, settings.app_dir)
        debugger.prepare()
        _start_metrics(service)
        with _serving(service), _reloading(service):
            status = supervise(service)
    except AppImportError as error:
        if pipe is None:
            raise
        pipe.send_failure(error)
        return 1
    finally:
        del in_children
        _end_metrics(service)
        if service.files_are_ours:
            close_sockets(sockets)
        if service.pid_file is not None:
            service.pid_file.remove()
    if command is not None:
        is_held_up = command.is_running and ending.has_threads()
        if service.left_threads or is_held_up:  # threads could disturb or block a normal exit
            ending.leave(status)
    return status


def _load_here(load: Callable[[], WSGIApplication]) -> WSGIApplication:
    """Return the application that `load` returns.

    If `load` forks a child and returns in the child, this function ends the child. Raises
    PatchedError if an imported library has patched the standard library.
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


def _open_metrics(service: Service, owner: Owner | None) -> Metrics | None:
    """Return the metrics of the previous process, or new ones; None: without --metrics."""
    settings, inherited = service.settings, service.inherited
    if inherited is not None and (inherited.metrics is not None or inherited.role == "worker"):
        return adopt_metrics(settings, inherited.role, inherited.metrics)
    permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group, owner)
    return open_metrics(settings, permissions, outlives=service.command is not None)


def _start_metrics(service: Service) -> None:
    """Serve the page of the metrics. A successor leaves it to its predecessor until it serves."""
    inherited = service.inherited
    if service.metrics is not None:
        is_successor = inherited is not None and inherited.role == "successor"
        service.metrics.start(service.settings, paused=is_successor)


def _end_metrics(service: Service) -> None:
    if service.metrics is not None:
        service.metrics.memory.retire(os.getpid())
        service.metrics.close(files_are_ours=service.files_are_ours)


def _greet(service: Service, on_ready: OnReady, sockets: list[socket.socket]) -> None:
    """Announce a server that no other server has started, log its warnings, and open its page."""
    settings = service.settings
    on_ready(sockets)
    if service.metrics is not None:
        get_logger().info("metrics on %s", service.metrics.url)
    middleware.warn(settings, sockets)
    loop.warn(settings)
    if settings.open:
        open_page(sockets)


@contextmanager
def _serving(service: Service) -> Iterator[None]:
    """Call the hooks `on_start` and `on_stop`, in the first process of a server.

    A keeper is the same process as before its exec, when the process called `on_start`.
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
    """Watch the application's files if the settings have `reload`."""
    if not service.settings.reload:
        yield
        return
    from picowsgi.reload.reloader import Reloader  # only this option needs it

    service.reloader = Reloader(service.settings, service.sockets)
    try:
        yield
    finally:
        service.reloader.close()


def check(settings: Settings) -> Identity | None:
    """Change the directory and the umask as the settings say, and check the settings.

    Returns the user and group to run as; None: no change. Raises ConfigError.
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
    """Return the sockets of the previous process, or those of systemd, or new ones."""
    if inherited is not None:
        return inherited.sockets()
    if any(map(settings.is_from_caller, ("bind", "host", "port"))):
        return _open(settings, owner)
    return take_sockets(os.environ, settings.backlog) or _open(settings, owner)


def _open(settings: Settings, owner: Owner | None) -> list[socket.socket]:
    permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group, owner)
    return open_sockets(settings.binds(), settings.backlog, permissions)
