"""Hands the client's connection to an application that speaks another protocol, such as WebSocket.

The keys of the environ are in requests that ask for another protocol (RFC 9110 section 7.8). The
application gets nothing before it uses one of them, so it can also answer as usual.

Never reads or writes a byte of the other protocol.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, NoReturn

from picowsgi import core
from picowsgi.errors import ClientGoneError, DetachError, NoConnectionError

_WHY_NOT = {
    core.OVER: "the client's connection is not here: the request is over, or took it before",
    core.REFUSED: "the client's connection must be taken before the response begins",
}
#: Seconds in which another thread of the application may close the socket when the application has
#: returned. The thread of simple-websocket first wakes the application, then answers the client's
#: close frame, and then closes the socket.
_CLOSES_WITHIN = 0.2
_SOCKET_KEYS = ("werkzeug.socket", "gunicorn.socket")
_DETACH_KEY = "picowsgi.detach"


class Connection:
    """The connection of one request. `thread` and `exchange` name the request in the core."""

    def __init__(self, thread: Any, exchange: int) -> None:
        self._thread = thread
        self._exchange = exchange
        #: Held while a thread of the application takes the connection.
        self._lock = threading.Lock()
        #: The application has closed the socket.
        self._ended = threading.Event()
        #: The socket that the application uses until it returns.
        self._taken: ClientSocket | None = None

    def offer(self) -> dict[str, object]:
        """Return the keys for the environ of the request."""
        offered = OfferedSocket.__new__(OfferedSocket)
        offered.connection = self
        return {**dict.fromkeys(_SOCKET_KEYS, offered), _DETACH_KEY: self.detach}

    def detach(self) -> tuple[socket.socket, bytes]:
        """Take the connection of this request for good.

        The server does not close the socket: the application does, also after its request, and when
        the server stops. A response to the request is ignored.

        Returns:
            The client's socket, which blocks, and the bytes that the server has received after the
            request.

        Raises:
            DetachError: the request is over, its response has begun, or the connection was taken.
            ClientGoneError: the client has disconnected, or the server has stopped.
            OSError: the system has no free descriptor.
        """
        with self._lock:
            taken = self._open(socket.socket.__new__(socket.socket))
            return taken, self._take(taken, keeps=True)

    def connect(self, offered: ClientSocket) -> None:
        """Connect the socket of the environ. Raises as `detach` does."""
        with self._lock:
            if type(offered) is ClientSocket:  # another thread was faster
                return
            self._open(offered)
            offered.rest = self._take(offered, keeps=False)
            self._taken = offered
            offered.__class__ = ClientSocket

    def end(self) -> None:
        """End the connection that the application has used. The client gets all bytes first."""
        core.detached_end(self._thread, self._exchange)
        self._ended.set()

    def close(self) -> None:
        """Close the socket of the environ at the end of the request, and end its connection."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._ended.wait(_CLOSES_WITHIN)
            socket.socket.close(taken)
            self.end()

    def _open(self, sock: socket.socket) -> socket.socket:
        """Make a socket that has a descriptor, which the core then connects to the client.

        So the descriptor has an owner at any time, no matter where an exception is raised.
        """
        family = core.family(self._thread, self._exchange)
        if family < 0:
            raise DetachError(_WHY_NOT[core.OVER])
        socket.socket.__init__(sock, family, socket.SOCK_STREAM)
        return sock

    def _take(self, sock: socket.socket, *, keeps: bool) -> bytes:
        rest = core.unread(self._thread, self._exchange)
        number = socket.socket.fileno(sock)
        outcome = core.detach(self._thread, self._exchange, number, keeps)
        if outcome:
            socket.socket.close(sock)
            if outcome == core.GONE:
                raise ClientGoneError
            raise DetachError(_WHY_NOT[outcome])
        socket.socket.settimeout(sock, None)  # the default of the application may be another one
        return rest


class ClientSocket(socket.socket):
    """The client's socket. It first gives the bytes that the server has received already.

    `close` ends the connection, as for any socket.
    """

    connection: Connection | None = None
    rest = b""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive bytes (recv(2))."""
        if not self.rest:
            return super().recv(bufsize, flags)
        data = self.rest[:bufsize]
        if not flags & socket.MSG_PEEK:
            self.rest = self.rest[len(data) :]
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive bytes into a buffer, and return their number."""
        if not self.rest:
            return super().recv_into(buffer, nbytes, flags)
        with memoryview(buffer).cast("B") as view:
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Any:
        """Receive bytes, and return them with the address of the client."""
        return (self.recv(bufsize, flags), None) if self.rest else super().recvfrom(bufsize, flags)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
        """Receive bytes into a buffer, and return their number and the address of the client."""
        if self.rest:
            return self.recv_into(buffer, nbytes, flags), None
        return super().recvfrom_into(buffer, nbytes, flags)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive bytes and other data (recvmsg(2))."""
        if self.rest:
            return self.recv(bufsize, flags), [], 0, None
        return super().recvmsg(bufsize, ancbufsize, flags)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive bytes and other data into buffers."""
        if not self.rest:
            return super().recvmsg_into(buffers, ancbufsize, flags)
        buffers = list(buffers)
        return (self.recv_into(buffers[0], 0, flags) if buffers else 0), [], 0, None

    def close(self) -> None:
        """Close the socket, and end the connection if no file of `makefile` uses it."""
        super().close()
        if self.connection is not None and self.fileno() < 0:
            self.connection.end()


class OfferedSocket(ClientSocket):
    """The client's socket before its first use. The first use of a method takes the connection."""

    def __getattribute__(self, name: str) -> Any:
        if name in _METHODS:
            connection = object.__getattribute__(self, "connection")
            connection.connect(self)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        """Return a text without an effect on the socket, as a page for an error does."""
        return "<the client's socket, which is not used yet>"


_METHODS = frozenset(name for name in dir(socket.socket) if not name.startswith("_"))


class NoConnection:
    """The value of the keys in a server that has no connection to hand over. Any use fails."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self()

    def __call__(self, *_arguments: object) -> NoReturn:
        raise NoConnectionError(
            "a CGI script has no connection to the client, which WebSocket needs: run the "
            "application with the command picowsgi"
        )


def offer_nothing() -> dict[str, object]:
    """Return the keys for the environ of a request whose connection is not here."""
    return dict.fromkeys((*_SOCKET_KEYS, _DETACH_KEY), NoConnection())
