"""The part of a supervisor that --reload needs: the watcher, and the data for its workers.

Never starts or ends a worker.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import invalidate_caches
from importlib.util import cache_from_source
from typing import TYPE_CHECKING, NoReturn

from picowsgi import core, log
from picowsgi.app.live_reload import mode
from picowsgi.app.live_reload.middleware import LiveReload
from picowsgi.app.pages.import_error import failure_page
from picowsgi.app.spec import parse_ini
from picowsgi.errors import AppImportError, ConfigError
from picowsgi.line_output import end_outputs
from picowsgi.log import get_logger
from picowsgi.reload.files import Files
from picowsgi.reload.generation import Generation
from picowsgi.reload.modules import Report
from picowsgi.reload.snapshot import Snapshot, state_of
from picowsgi.reload.watcher import Channel, watch
from picowsgi.system import fork_guard
from picowsgi.system.signals import ALL

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings

_ROOM = 1 << 20  # bytes for connections on their way from one worker to the next


def watched_files(settings: Settings) -> Files:
    """Return the files to watch. Raises ConfigError if the options contradict each other."""
    if settings.preload:
        raise ConfigError("--reload: it cannot load again what --preload has loaded; choose one")
    roots = settings.reload_dir or (os.curdir, *settings.app_dir)
    files = Files(roots, settings.reload_include, settings.reload_exclude)
    ini = parse_ini(settings.app)
    files.modules.update(map(os.path.abspath, settings.env_file))
    if ini is not None:
        files.modules.add(os.path.abspath(ini[0]))
    return files


class Reloader:
    """Watches the files until `close`, in a process of its own.

    The process closes the sockets `listeners`. Raises ConfigError as `watched_files` does, and
    OSError.
    """

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket]) -> None:
        files = watched_files(settings)
        #: A worker that ends sends its connections without a request through this to the next one.
        self.connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in self.connections:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        #: The last reason why the application could not be loaded; None: it may be loaded now.
        self.failure: AppImportError | None = None
        self._changed: set[str] = set()
        self._rest = b""
        modules, self._modules = os.pipe()
        self._changes, changes = os.pipe()
        parent = os.getpid()
        snapshot = Snapshot(files)  # before a worker reads any of the files
        snapshot.add({path: state_of(path) for path in files.modules})
        with fork_guard.own_process():
            self._watcher = os.fork()
        if self._watcher == 0:
            not_its_own = (self._modules, self._changes, *(sock.fileno() for sock in listeners))
            _be_watcher(snapshot, Channel(modules, changes, parent), not_its_own)
        os.close(modules)
        os.close(changes)
        os.set_blocking(self._changes, False)
        self._report = Report(self._modules)
        #: The generation of the workers, for --live-reload. The watcher must not have its pipe.
        self._generation = Generation() if mode.is_on(settings) else None

    # ---------------------------------------------------------------- in the supervisor

    @property
    def changes(self) -> int:
        """A descriptor that is readable when a file has changed; -1: the watcher has ended."""
        return self._changes

    def read_changes(self) -> list[str]:
        """Return the files that have changed since the last call."""
        changed: list[str] = []
        while self._changes >= 0:
            try:
                data = os.read(self._changes, 65536)
            except BlockingIOError:
                break
            if not data:
                get_logger().error("the file watcher has ended; no change reloads the application")
                self._stop_watching()
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                changed += json.loads(line)
        if changed:
            # Python takes a .pyc file for a source file of the same size and second, so the workers
            # remove the .pyc files.
            self._changed.update(path for path in changed if path.endswith(".py"))
            self.failure = None
        return changed

    def note_failure(self, failure: AppImportError) -> None:
        """Make the next workers answer with the reason why the application cannot be loaded."""
        if self.failure is None or _reason(self.failure) != _reason(failure):
            log.log_failure(f"{failure}; waiting for a change", failure.application_traceback)
        self.failure = failure

    def end_generation(self) -> None:
        """Let open pages connect to the workers that start from now on, and load again there."""
        if self._generation is not None:
            self._generation.end()

    def end_transfer(self) -> None:
        """Let workers that end keep their connections, because no other worker starts."""
        with suppress(OSError):
            self.connections[0].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop watching."""
        self._stop_watching()
        os.close(self._modules)
        if self._generation is not None:
            self._generation.close()
        for end in self.connections:
            end.close()

    def _stop_watching(self) -> None:
        if self._changes >= 0:
            os.close(self._changes)
            self._changes = -1
            with suppress(OSError):
                os.kill(self._watcher, signal.SIGKILL)
                os.waitpid(self._watcher, 0)

    # ---------------------------------------------------------------- in a worker

    def load(self, load: Callable[[], WSGIApplication]) -> WSGIApplication:
        """Load the application, in a worker. After a failure, return a page with the reason."""
        application = self._load(load)
        if self._generation is None:
            return application
        return LiveReload(application, self._generation.channel())

    def _load(self, load: Callable[[], WSGIApplication]) -> WSGIApplication:
        if self._changes >= 0:
            os.close(self._changes)
        if self.failure is not None:
            return failure_page(self.failure)
        for path in self._changed:
            with suppress(OSError, NotImplementedError):
                os.unlink(cache_from_source(path))
        invalidate_caches()
        try:
            return load()
        except AppImportError as error:
            self._report.send_failed(error)
            raise
        finally:
            self._report.send_imported()

    @property
    def has_reported(self) -> bool:
        """Whether the watcher's pipe has taken all that this worker has to send."""
        return self._report.is_complete

    def report_modules(self) -> None:
        """Send the files of modules that the application has imported since the last call."""
        self._report.send_imported()


def _reason(failure: AppImportError) -> str:
    return re.sub("[0-9]+", "", str(failure))  # the numbers of the workers differ


def _be_watcher(snapshot: Snapshot, channel: Channel, unused: Sequence[int]) -> NoReturn:
    try:
        for descriptor in unused:
            os.close(descriptor)
        core.die_with_parent(signal.SIGKILL)
        for number in ALL - {signal.SIGCHLD}:  # the watcher ends when the supervisor does
            signal.signal(number, signal.SIG_IGN)
        watch(snapshot, channel)
    except BaseException:
        get_logger().critical("a process of the reloader has failed", exc_info=True)
        end_outputs()
    finally:
        os._exit(0)
