"""What serves: threads of this process, or a child process; a supervisor treats both alike.

Never decides who is to serve, or for how long.
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
    """Something that serves, with what a supervisor knows of it."""

    #: Seconds, beyond the timeout for open requests, after which it is killed.
    extra_time = 5.0

    def __init__(self) -> None:
        #: It has loaded the application, and accepts connections.
        self.ready = False
        #: It is to be stopped as soon as others take its place.
        self.retiring = False
        #: It knows that it will be stopped soon.
        self.is_warned = False
        #: It drains, or ends.
        self.stopping = False
        #: A signal that another program has sent makes it drain.
        self.stopped_by_signal = False
        #: It wants to be replaced, or is found to need it.
        self.needs_replacement = False
        #: When it sent its last heartbeat, and when it is to be killed.
        self.last_heartbeat = time.monotonic()
        self.kill_at = float("inf")
        #: It has not shown for too long that it lives.
        self.silent = False

    def warn(self) -> None:
        """Make it unready for health checks; it serves as before. A repetition changes nothing."""
        if not self.is_warned and not self.stopping:
            self.is_warned = True
            self._announce_stop()

    def stop(self, *, others_accept: bool) -> None:
        """Have it drain and end; a repetition changes nothing.

        `others_accept`: see ThreadPool.stop.
        """
        self.stopping = True
        self._drain(others_accept=others_accept)

    def stop_now(self) -> None:
        """Have it end at once, and cut what is open."""
        self.stopping = True
        self._cut()

    def _announce_stop(self) -> None:
        raise NotImplementedError

    def _drain(self, *, others_accept: bool) -> None:
        raise NotImplementedError

    def _cut(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """End it by force."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """Return whether it has ended; never waits."""
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
    ) -> None:
        super().__init__()
        several = settings.workers > 1
        self._pool = ThreadPool(
            application, sockets, settings, multiprocess=several, balance=balance
        )
        if connections is not None:
            self._pool.share(*connections)
        self._pool.on_end = self._note_end
        self._on_end = on_end
        self._over = False
        #: Its threads were given up while they ran a request.
        self.abandoned = False

    def __str__(self) -> str:
        return "the server"

    def start(self) -> None:
        """Begin to serve."""
        self._pool.start()
        self.ready = True

    @property
    def requests(self) -> int:
        """How many requests it has taken."""
        return self._pool.requests

    @property
    def is_stuck(self) -> bool:
        """Whether a request did not end though its time was up."""
        return self._pool.is_stuck

    def reopen_logs(self) -> None:
        """Open the access log's file again."""
        self._pool.reopen_logs()

    @property
    def failed(self) -> bool:
        """Whether it has ended by an error."""
        return self._pool.error is not None

    def _announce_stop(self) -> None:
        self._pool.announce_stop()

    def _drain(self, *, others_accept: bool) -> None:
        self._pool.stop(others_accept=others_accept)

    def _cut(self) -> None:
        self._pool.stop_now()

    def kill(self) -> None:
        """Give the threads up: they cannot be ended."""
        self._pool.stop_now()
        self.abandoned = True
        self._pool.close()

    def has_ended(self) -> bool:
        """Return whether it has ended; never waits."""
        # The thread that has said so may need another moment; nothing would tell when it is over.
        if self.abandoned or not self._pool.join(None if self._over else 0):
            return self.abandoned
        self.abandoned = self._pool.gave_up
        return True

    def _note_end(self) -> None:
        self._over = True
        self._on_end()


class ChildProcess(Member):
    """A child process, which speaks as `status_pipe` says."""

    def __init__(
        self,
        pid: int,
        channel: int,
        *,
        program: bool = False,
        on_end: Callable[[int], object] = lambda _pid: None,
    ) -> None:
        """`on_end` is called with the number of the process once it has ended."""
        super().__init__()
        self._on_end = on_end
        self.pid = pid
        #: The supervisor's end of what the two share (`status_pipe`); -1 once it is closed.
        self.channel = channel
        self._in_children = fork_guard.ClosedInChildren(self.close)
        #: It is a program of its own, which was not forked.
        self.program = program
        self.extra_time = 10.0 if program else 5.0
        #: Why it could not load the application.
        self.failure: AppImportError | None = None
        self._failure = b""
        #: As os.waitpid tells it, once it has ended.
        self._exit: int | None = None

    def read(self) -> None:
        """Take what it has said since."""
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
        """Send it a signal."""
        if self._exit is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _announce_stop(self) -> None:
        self._order(status_pipe.WARN)

    def _drain(self, *, others_accept: bool) -> None:
        told = self._order(status_pipe.LEAVE if others_accept else status_pipe.DRAIN)
        if not told or not self.ready:  # while it loads the application the signal ends it
            self.signal(signal.SIGTERM)

    def _cut(self) -> None:
        self._order(status_pipe.NOW)

    def _order(self, byte: int) -> bool:
        return self.channel >= 0 and status_pipe.write(self.channel, bytes([byte]))

    def kill(self) -> None:
        """End it by force."""
        self.signal(signal.SIGKILL)

    def has_ended(self, *, wait: bool = False) -> bool:
        """Return whether it has ended, after waiting for that where it is asked for."""
        if self._exit is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
            except ChildProcessError:  # the application has waited for all children
                pid, status = self.pid, 0
            if pid == 0:
                return False
            self._exit = status
            self._on_end(self.pid)
            self.read()
            self.close()
            if self._failure:
                self.failure = status_pipe.read_failure(self._failure[1:])
        return True

    def close(self) -> None:
        """Stop listening to it."""
        if self.channel >= 0:
            os.close(self.channel)
            self.channel = -1

    @property
    def status(self) -> int:
        """Its exit status, or the number of the signal that has killed it, negative.

        Of one that has not ended it is 0.
        """
        return 0 if self._exit is None else os.waitstatus_to_exitcode(self._exit)

    @property
    def end(self) -> str:
        """How it has ended, in words."""
        if self._exit is None:
            return "runs"
        code = self.status
        if code >= 0:
            return f"ended with status {code}"
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"

    def memory(self) -> int:
        """Return the bytes it has in memory, 0 where the system does not say."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGESIZE")
