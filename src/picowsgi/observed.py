"""Requests one after the other, each known to its end: for what has to be told of them in Python.

Slower than the gateway alone, whose way of a request fetches the next one while it sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from picowsgi import core
from picowsgi.gateway import Gateway
from picowsgi.head import Head, HeadEncoder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from picowsgi.environ import Kept
    from picowsgi.response import Response


class ObservedGateway(Gateway):
    """A gateway that comes back after each request, and knows what was answered.

    `flags` are added to those of every response (csrc/api.h).
    """

    def __init__(
        self,
        application: WSGIApplication,
        thread: core.CoreThread,
        bases: list[WSGIEnvironment],
        kept: Kept,
        flags: int = 0,
        *,
        debug: bool = False,
    ) -> None:
        super().__init__(application, thread, bases, kept, debug=debug)
        self._encoder = HeadEncoder(core.RETURN | flags)
        self.encode = self._encode
        #: Of the response that was sent last.
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    @property
    def sent(self) -> int:
        """The bytes of content in the response that was sent last."""
        size: int = self._request.sent
        return size

    def _encode(self, status: str, headers: list[tuple[str, str]]) -> Head:
        head = self._encoder.encode(status, headers)
        self.status, self.headers = status, headers
        return head

    def _finish(self, response: Response, *, cut: bool) -> int:
        response.over = True
        core.send_end(self.thread, cut)
        return core.IDLE

    def step(self, milliseconds: int) -> bool:
        """Serve one request if it comes in this time; tell whether one did.

        It waits once, so it may return sooner: always after a signal, or `CoreServer.wake`.
        """
        self._kept.take_news(self._core_thread)
        number = core.next_request_within(self.thread, milliseconds)
        if number < 0:
            return False
        self.serve(self.environs.make(number))
        self.leave_child()
        return True

    def settle(self, milliseconds: int) -> bool:
        """Wait so long for responses to be sent, without a request; tell whether all are."""
        unsent: Any = core.settle(self.thread, milliseconds)
        self._kept.take_news(self._core_thread)
        return not unsent
