"""Requests one after the other, each known to its end: for what has to be told of them in Python.

Slower than the gateway alone, whose way of a request fetches the next one while it sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.wsgi.gateway import Gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from picowsgi.wsgi.environ import SharedState
    from picowsgi.wsgi.response import Response
    from picowsgi.wsgi.response_head import Head


class SteppingGateway(Gateway):
    """A gateway that comes back after each request, and knows what was answered.

    `flags` are added to those of every response (csrc/api.h).
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
        #: That of the response that was sent last. Not what the application has given: that may be
        #: a generator, or change.
        self._head = self._failure[0]

    @property
    def status(self) -> str:
        """The status of the response that was sent last."""
        return self._lines()[0].removeprefix("HTTP/1.1 ")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The application's headers in the response that was sent last."""
        pairs = (line.partition(": ") for line in self._lines()[1:-1])
        return [(name, value) for name, _, value in pairs]

    def _lines(self) -> list[str]:
        return self._head.data.decode("latin-1").split("\r\n")

    @property
    def sent(self) -> int:
        """The bytes of content in the response that was sent last."""
        size: int = self._request.sent
        return size

    def _serve_whole(self, response: Response, head: Head, body: bytes) -> int:
        self._head = head
        return super()._serve_whole(response, head, body)

    def _finish(self, response: Response, *, cut: bool) -> int:
        if response.head is not None:
            self._head = response.head
        response.over = True
        core.send_end(self.thread, cut)
        return core.IDLE

    def step(self, milliseconds: int) -> bool:
        """Serve one request if it comes in this time; tell whether one did.

        It waits once, so it may return sooner: always after a signal, or `CoreServer.wake`.
        """
        self._shared.take_news(self._core_thread)
        number = core.next_request_within(self.thread, milliseconds)
        if number < 0:
            return False
        try:
            self.serve(self.environs.make(number))
        except Exception as error:
            self._recover(error)
        except BaseException:  # such as Ctrl-C, which is for the caller
            self._abandon()
            raise
        self.leave_child()
        return True

    def settle(self, milliseconds: int) -> bool:
        """Wait so long for responses to be sent, without a request; tell whether all are."""
        unsent: Any = core.settle(self.thread, milliseconds)
        self._shared.take_news(self._core_thread)
        return not unsent
