"""The members of a supervisor, which serve: the threads of its own process, or a child process.

The supervisor treats both in the same way. Never decides when a member starts or stops.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.errors import AppImportError
from picowsgi.process import status_pipe
from picowsgi.system import fork_guard
from picowsgi.threads.pool import ThreadPool

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config.settings import Settings


class Member:
    """A part of the server that serves, and what the supervisor knows about it."""

    #: Seconds after `timeout_graceful` before the supervisor kills the member.
    extra_time = 5.0

    def __init__(self) -> None:
        #: The member has loaded the application, and accepts connections.
        self.ready = False
        #: The supervisor stops the member as soon as others replace it.
        self.retiring = False
        #: The member knows that it will be stopped soon.
        self.is_warned = False
        #: The member drains, or ends.
        self.stopping = False
        #: Another program has sent the signal that makes the member drain.
        self.stopped_by_signal = False
        #: The member has asked for a replacement, or the watchdog has found a reason for one.
        self.needs_replacement = False
        #: The reason of the replacement, for the metrics (core.RESTART_EXIT and so on).
        self.reason = core.RESTART_REQUESTS
        #: The time of the last heartbeat, and the time to kill the member (`time.monotonic`).
        self.last_heartbeat = time.monotonic()
        self.kill_at = float("inf")
        #: The member has sent no heartbeat for too long.
        self.silent = False

    def warn(self) -> None:
        """Answer health checks with 503, and serve as before. A repetition changes nothing."""
        if not self.is_warned and not self.stopping:
            self.is_warned = True
            self._announce_stop()

    def stop(self, *, others_accept: bool) -> None:
        """Make the member drain and end. A repetition changes nothing.

        `others_accept`: see `ThreadPool.stop`.
        """
        self.stopping = True
        self._drain(others_accept=others_accept)

    def stop_now(self) -> None:
        """Make the member end at once, and cut open requests."""
        self.stopping = True
        self._cut()

    def _announce_stop(self) -> None:
        raise NotImplementedError

    def _drain(self, *, others_accept: bool) -> None:
        raise NotImplementedError

    def _cut(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """End the member by force."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """Return whether the member has ended. Never waits."""
        raise NotImplementedError


class OwnThreads(Member):
    """Threads of this process."""

    extra_time = 0.5

    def __init__(
        self,
        application: WSGIApplication,
        sockets: Sequence[socket.socket],
        settings: Settings,
        on_end: Callable[[], None],
        balance: core.Balance | None = None,
        connections: tuple[socket.socket, socket.socket] | None = None,
        metrics: core.Metrics | None = None,
    ) -> None:
        super().__init__()
        several = settings.workers > 1
        self._pool = ThreadPool(
            application,
            sockets,
            settings,
            multiprocess=several,
            balance=balance,
            metrics=metrics,
        )
        if connections is not None:
            self._pool.share(*connections)
        self._pool.on_end = self._note_end
        self._on_end = on_end
        self._over = False
        #: Threads were left behind while they ran a request.
        self.abandoned = False

    def __str__(self) -> str:
        return "the server"

    def start(self) -> None:
        """Begin to serve."""
        self._pool.start()
        self.ready = True

    @property
    def requests(self) -> int:
        """The number of requests that the threads have taken."""
        return self._pool.requests

    @property
    def is_stuck(self) -> bool:
        """Whether a request has run for twice `timeout_request`."""
        return self._pool.is_stuck

    def reopen_logs(self) -> None:
        """Open the file of the access log again."""
        self._pool.reopen_logs()

    @property
    def failed(self) -> bool:
        """Whether a thread has ended with an error."""
        return self._pool.error is not None

    def _announce_stop(self) -> None:
        self._pool.announce_stop()

    def _drain(self, *, others_accept: bool) -> None:
        self._pool.stop(others_accept=others_accept)

    def _cut(self) -> None:
        self._pool.stop_now()

    def kill(self) -> None:
        """Leave the threads behind, because Python cannot end a thread."""
        self._pool.stop_now()
        self.abandoned = True
        self._pool.close()

    def has_ended(self) -> bool:
        """Return whether the threads have ended."""
        # Once _over is set, the last thread ends within a moment, and no event reports its end. So
        # this waits for it.
        if self.abandoned or not self._pool.join(None if self._over else 0):
            return self.abandoned
        self.abandoned = self._pool.gave_up
        return True

    def _note_end(self) -> None:
        self._over = True
        self._on_end()


class ChildProcess(Member):
    """A child process. It and the supervisor exchange the bytes of `status_pipe`."""

    def __init__(
        self,
        pid: int,
        channel: int,
        *,
        program: bool = False,
        on_end: Callable[[int], object] = lambda _pid: None,
    ) -> None:
        """`on_end` is called with the process's number when it has ended.

        On most systems the process is not reaped yet, so its facts are still known.
        """
        super().__init__()
        self._on_end = on_end
        self.pid = pid
        #: The supervisor's end of the pair of sockets (`status_pipe`); -1: it is closed.
        self.channel = channel
        self._in_children = fork_guard.ClosedInChildren(self.close)
        #: The process executes the command from its start; it is not a fork of this one.
        self.program = program
        self.extra_time = 10.0 if program else 5.0
        #: The reason why the process could not load the application.
        self.failure: AppImportError | None = None
        self._failure = b""
        #: The status from os.waitpid, after the process has ended.
        self._exit: int | None = None

    def read(self) -> None:
        """Take the messages that have come since the last call."""
        while self.channel >= 0:
            data = status_pipe.read(self.channel)
            if data is None:
                return
            if self._failure:
                self._failure += data
            elif data:
                self._understand(data)
            if not data:
                self.close()

    def _understand(self, data: bytes) -> None:
        self.last_heartbeat = time.monotonic()
        for position, byte in enumerate(data):
            if byte == status_pipe.READY:
                self.ready = True
            elif byte == status_pipe.REPLACE:
                self.needs_replacement = True
            elif byte in status_pipe.REASONS:
                self.reason = status_pipe.REASONS.index(byte)
            elif byte == status_pipe.STOPPING:
                self.stopped_by_signal = True
            elif byte == status_pipe.FAILED:
                self._failure = data[position:]
                return
            elif byte != status_pipe.HEARTBEAT:
                return

    def __str__(self) -> str:
        return f"worker {self.pid}"

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        if self._exit is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _announce_stop(self) -> None:
        self._order(status_pipe.WARN)

    def _drain(self, *, others_accept: bool) -> None:
        is_sent = self._order(status_pipe.LEAVE if others_accept else status_pipe.DRAIN)
        # A process that loads the application reads no orders, and the signal ends it.
        if not is_sent or not self.ready:
            self.signal(signal.SIGTERM)

    def _cut(self) -> None:
        self._order(status_pipe.NOW)

    def _order(self, byte: int) -> bool:
        return self.channel >= 0 and status_pipe.write(self.channel, bytes([byte]))

    def kill(self) -> None:
        """End the process by force."""
        self.signal(signal.SIGKILL)

    def has_ended(self, *, wait: bool = False) -> bool:
        """Return whether the process has ended. `wait`: wait for its end first."""
        if self._exit is None:
            if not self._is_over(wait=wait):
                return False
            self._on_end(self.pid)
            if self._exit is None:
                self._reap(0)
            self.read()
            self.close()
            if self._failure:
                self.failure = status_pipe.read_failure(self._failure[1:])
        return True

    def _is_over(self, *, wait: bool) -> bool:
        """Return whether the process has ended. Where the system can do that, do not reap it."""
        options = 0 if wait else os.WNOHANG
        if not hasattr(os, "waitid"):  # PyPy and macOS may have none
            return self._reap(options)
        try:
            return os.waitid(os.P_PID, self.pid, options | os.WEXITED | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _reap(self, options: int) -> bool:
        """Reap the process. Return False if it has not ended."""
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # code of the application has reaped all children
            pid, status = self.pid, 0
        if pid != 0:
            self._exit = status
        return pid != 0

    def close(self) -> None:
        """Close this end of the pair of sockets."""
        if self.channel >= 0:
            os.close(self.channel)
            self.channel = -1

    @property
    def status(self) -> int:
        """The exit status, or the negative number of the signal that killed the process.

        It is 0 while the process runs.
        """
        return 0 if self._exit is None else os.waitstatus_to_exitcode(self._exit)

    @property
    def end(self) -> str:
        """A text that says how the process has ended."""
        if self._exit is None:
            return "runs"
        code = self.status
        if code >= 0:
            return f"ended with status {code}"
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"

    def memory(self) -> int:
        """Return the bytes of the process in memory; 0: the system does not report them."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGESIZE")
