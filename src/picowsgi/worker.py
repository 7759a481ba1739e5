"""A serving thread: takes complete requests from the core and runs them, one after the other.

Never reads a socket itself, and never has two requests at a time.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.gateway import Gateway
from picowsgi.log import get_logger

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from picowsgi.config import Settings


class Worker:
    """The thread that serves `application` on `sockets`, which stay the caller's.

    Raises OSError where the system refuses what the core needs.
    """

    def __init__(
        self, application: WSGIApplication, sockets: Sequence[socket.socket], settings: Settings
    ) -> None:
        self._core = core.CoreServer(sockets, settings)
        thread = core.CoreThread(self._core)
        self._gateway = Gateway(application, thread, sockets)
        self._thread_pointer = thread.pointer
        #: Why the thread ended though nobody asked for it.
        self.error: BaseException | None = None
        #: Called by the last thread that ends.
        self.on_end: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="picowsgi", daemon=True)

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    @property
    def requests(self) -> int:
        """How many requests have been taken."""
        return self._core.requests

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Drain and end; a second call ends at once. From any thread, or a signal handler."""
        self._core.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; False when `timeout` seconds were not enough."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            serve, environs = self._gateway.serve, self._gateway.environs
            make, templates = environs.make, environs.templates
            number = core.next_request(self._thread_pointer)
            while number >= 0:
                template = templates.get(number)
                number = serve(make(number) if template is None else template.copy())
        except BaseException as error:  # not an application's: those end with their request
            get_logger().critical("the serving thread has failed", exc_info=error)
            self.error = error
        finally:
            self.on_end()
