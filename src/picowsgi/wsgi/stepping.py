"""A gateway that returns after each request, so that Python code can log the response.

Slower than `Gateway`, which fetches the next request in the call that sends a response. Never
serves more than one request in a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.wsgi.gateway import Gateway
from picowsgi.wsgi.response_head import Head

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from picowsgi.wsgi.environ import SharedState
    from picowsgi.wsgi.response import Response


#: The head for the log if the application has taken the connection, and its response is ignored.
_SWITCHED = Head(b"HTTP/1.1 101 Switching Protocols\r\n", 0, -1)


class SteppingGateway(Gateway):
    """A gateway that returns after each request, and keeps its response's status and headers.

    Every response gets the additional `flags` (csrc/api.h).
    """

    def __init__(
        self,
        application: WSGIApplication,
        thread: core.CoreThread,
        bases: list[WSGIEnvironment],
        shared: SharedState,
        flags: int = 0,
        *,
        debug: bool = False,
    ) -> None:
        super().__init__(application, thread, bases, shared, core.RETURN | flags, debug=debug)
        #: The head of the last response. It is not the object of the application, which may be a
        #: generator, or change.
        self._head = self._failure[0]

    @property
    def status(self) -> str:
        """The status of the last response."""
        return self._lines()[0].removeprefix("HTTP/1.1 ")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The application's headers in the last response."""
        pairs = (line.partition(": ") for line in self._lines()[1:-1])
        return [(name, value) for name, _, value in pairs]

    def _lines(self) -> list[str]:
        return self._head.data.decode("latin-1").split("\r\n")

    @property
    def sent(self) -> int:
        """The size of the last response's content, in bytes."""
        size: int = self._request.sent
        return size

    def _serve_whole(self, response: Response, head: Head, body: bytes) -> int:
        self._keep(head)
        return super()._serve_whole(response, head, body)

    def _keep(self, head: Head | None) -> None:
        if self.response.is_detached(self.thread, self._request.exchange):
            self._head = _SWITCHED
        elif head is not None:
            self._head = head

    def _finish(self, response: Response, *, cut: bool) -> int:
        self._keep(response.head)
        response.over = True
        core.send_end(self.thread, cut)
        return core.IDLE

    def step(self, milliseconds: int) -> bool:
        """Serve one request if it comes within this time. Return whether one came.

        The function waits once, so it may return sooner. A signal or `CoreServer.wake` ends the
        wait.
        """
        self._shared.take_news(self._core_thread)
        number = core.next_request_within(self.thread, milliseconds)
        if number < 0:
            return False
        try:
            self.serve(self.environs.make(number))
        except Exception as error:
            self._recover(error)
        except BaseException:  # such as Ctrl-C, which the caller handles
            self._abandon()
            raise
        self.leave_child()
        return True

    def settle(self, milliseconds: int) -> bool:
        """Send unsent responses for at most this time. Return whether all are sent."""
        unsent: Any = core.settle(self.thread, milliseconds)
        self._shared.take_news(self._core_thread)
        return not unsent
