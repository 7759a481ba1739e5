"""One request of a server: its request handler, and its way to the application.

Never knows of sockets: the core has parsed the request, and sends the response.
"""

from __future__ import annotations

import socketserver
import threading
from email.message import Message
from functools import cached_property
from typing import TYPE_CHECKING, Any
from wsgiref import simple_server
from wsgiref.util import guess_scheme

from picowsgi.log import get_logger
from picowsgi.threads.incidents import log_incidents
from picowsgi.wsgi.stepping import SteppingGateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from picowsgi import core
    from picowsgi.config.settings import Settings

_thread = threading.local()  # `serving`: the server of this thread's current request, or None


class WSGIRequestHandler(simple_server.WSGIRequestHandler):
    """Handle one request: `get_environ` makes its environ, and `log_request` logs it.

    The server makes a handler for each request. Override the two methods, or the methods that they
    call, such as `log_message` and `get_stderr`.

    Args:
        request: the environ of the request (PEP 3333). wsgiref passes the connection here.
        client_address: the address and the port of the client.
        server: the server that has received the request.

    Attributes:
        client_address: the address and the port of the client.
        server: the server that has received the request.
        command: the method, such as `GET`.
        path: the target of the request, as the client sent it.
        request_version: the version, as `HTTP/1.1`.
        requestline: the request line (RFC 9112 section 3).
    """

    server_version = "picowsgi"

    def __init__(
        self,
        request: WSGIEnvironment,
        client_address: tuple[str, int],
        server: simple_server.WSGIServer,
    ) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        self.command = request["REQUEST_METHOD"]
        self.path = request["REQUEST_URI"]
        self.request_version = request["SERVER_PROTOCOL"]
        self.requestline = f"{self.command} {self.path} {self.request_version}"
        self._environ = request

    @cached_property
    def headers(self) -> Message:  # type: ignore[override]
        """The headers of the request (RFC 9110 section 6.3); names match in any case."""
        message = Message()
        for key, value in self._environ.items():
            if key.startswith("HTTP_") or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
                message[key.removeprefix("HTTP_").replace("_", "-").title()] = value
        return message

    def get_environ(self) -> WSGIEnvironment:
        """Return the environ for the application (PEP 3333, "environ Variables")."""
        environ = {**self._environ, "SERVER_SOFTWARE": self.server_version}
        server: Any = self.server
        base, known = server.base_environ, server._served_environ
        if base != known:  # the program has changed it since `serve_forever` began
            environ.update(item for item in base.items() if item not in known.items())
        host = self.address_string()
        if host != self.client_address[0]:
            environ["REMOTE_HOST"] = host
        return environ


def serves(server: simple_server.WSGIServer) -> bool:
    """Return whether this thread runs a request of the server."""
    return getattr(_thread, "serving", None) is server


class HandlerGateway(SteppingGateway):
    """Runs requests through the application of the server, each with a request handler."""

    def __init__(
        self,
        server: simple_server.WSGIServer,
        core_server: core.CoreServer | None,
        settings: Settings,
        *arguments: Any,
        debug: bool = False,
    ) -> None:
        super().__init__(*arguments, debug=debug)
        self._server = server
        self._core_server = core_server
        self._settings = settings
        self._handler: WSGIRequestHandler | None = None
        self._interrupt: KeyboardInterrupt | None = None
        self.application = self._call

    def end(self) -> None:
        """Break the circle of references, so that the core is freed with the last reference."""
        self.application = call_nothing

    def step(self, milliseconds: int) -> bool:
        served = super().step(milliseconds)
        self._log_incidents()
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:  # Ctrl-C in a request is raised in the caller, after the request
            raise interrupt
        return served

    def settle(self, milliseconds: int) -> bool:
        settled = super().settle(milliseconds)
        self._log_incidents()
        return settled

    def _log_incidents(self) -> None:
        if self._core_server is not None:  # None with ThreadingMixIn, where the watcher logs them
            log_incidents(self._core_server, self._settings)

    def serve(self, environ: WSGIEnvironment) -> int:
        self._handler = None
        outer, _thread.serving = getattr(_thread, "serving", None), self._server
        try:
            number = super().serve(environ)
        finally:
            _thread.serving = outer
        try:
            if self._handler is not None:
                self._handler.log_request(self.status[:3], self.sent)
        except Exception as error:
            get_logger().error("error in log_request", exc_info=error)
        return number

    def _call(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        client = environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"] or 0)
        make: Any = self._server.RequestHandlerClass
        handler: WSGIRequestHandler = make(environ, client, self._server)
        self._handler = handler
        called_with = handler.get_environ()
        if type(handler).get_stderr is not WSGIRequestHandler.get_stderr:
            called_with["wsgi.errors"] = handler.get_stderr()
        if "HTTPS" in called_with:  # from `base_environ` or `get_environ`; no header has this key
            called_with["wsgi.url_scheme"] = guess_scheme(called_with)
        application: Any = self._server.get_app()
        return application(called_with, start_response)

    def _note(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._interrupt = error


_NOT_CALLED_OF_HANDLERS = (
    "setup",
    "handle",
    "finish",
    "handle_one_request",
    "parse_request",
    "send_error",
)


#: The server has serving threads instead of this method of ThreadingMixIn.
_MIXED_IN = {"process_request": socketserver.ThreadingMixIn.process_request}


def refuse_uncalled(given: type, ours: type, names: tuple[str, ...]) -> None:
    """Raise TypeError if a class overrides one of these methods of our class."""
    for name in names:
        if getattr(given, name) not in (getattr(ours, name), _MIXED_IN.get(name)):
            raise TypeError(
                f"{given.__name__} overrides {name}, which is not called: the core replaces it"
            )


def check_handler(handler: Callable[..., WSGIRequestHandler]) -> None:
    """Raise TypeError if it is a class whose methods the core would not call."""
    if not isinstance(handler, type):
        return
    if not issubclass(handler, WSGIRequestHandler):
        raise TypeError(
            f"{handler.__name__} must derive from picowsgi.simple_server.WSGIRequestHandler"
        )
    refuse_uncalled(handler, WSGIRequestHandler, _NOT_CALLED_OF_HANDLERS)


def call_nothing(_environ: WSGIEnvironment, _start_response: StartResponse) -> list[bytes]:
    """Stand in for the application, which the gateway gets from the server."""
    raise AssertionError("HandlerGateway calls the server's own application")
