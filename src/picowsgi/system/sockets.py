"""Addresses, and the listening sockets for them.

Never accepts a connection: the core does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from picowsgi.errors import BindError
from picowsgi.system.descriptors import occupy_standard
from picowsgi.system.privileges import find_group

if TYPE_CHECKING:
    from collections.abc import Iterable

_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_UNSENT_MOST = 128 * 1024  # bytes of a connection that the system keeps before it sends them
_ADDRESS_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_SIOCUNIXFILE = 0x89E0  # Linux: opens the file that a unix socket is bound to (O_PATH)
_REPLACED = (
    "another process has replaced the socket's file; restrict who can write to its directory"
)
_GROUP_MODE = 0o660
_SAME = -1  # for chown: keep the user of the file


@dataclass(frozen=True)
class Bind:
    """One address to listen on. Only the fields of its `kind` have a meaning."""

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Owner = tuple[int, int]


@dataclass(frozen=True)
class FilePermissions:
    """The permissions of a unix socket's file, which decide which users may connect.

    `mode` -1: the mode that the umask gives. `owner` None: the user of this process.
    """

    mode: int = -1
    owner: Owner | None = None


def open_sockets(
    binds: Iterable[Bind], backlog: int, permissions: FilePermissions | None = None
) -> list[socket.socket]:
    """Return a listening socket for each address, in the same order.

    The sockets do not block, and child processes do not inherit them. If one of them cannot be
    opened, the function closes the others and raises BindError. The socket of `fd://N` owns that
    descriptor from then on. `permissions` are for the files of unix sockets.
    """
    occupy_standard()
    sockets: list[socket.socket] = []
    try:
        for bind in binds:
            sockets.append(open_bind(bind, backlog, sockets, permissions))
    except BaseException:
        close_sockets(sockets)
        raise
    return sockets


def find_permissions(mode: int, group: str, owner: Owner | None = None) -> FilePermissions:
    """Return the permissions of unix sockets for this mode, this group (empty: none) and `owner`.

    Raises ConfigError if the group does not exist.
    """
    if not group:
        return FilePermissions(mode, owner)
    number = find_group(group, "--unix-socket-group")
    # Members of the group can connect only if the group may write.
    user = _SAME if owner is None else owner[0]
    return FilePermissions(_GROUP_MODE if mode < 0 else mode, (user, number))


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets, and remove the files that `open_sockets` made for them."""
    for sock in sockets:
        if isinstance(sock, UnixListener):
            sock.remove_file()
        sock.close()


def close_backlog(sockets: Iterable[socket.socket]) -> None:
    """Set the backlog of the sockets to 0. The server can still accept connections that wait.

    Otherwise a server that stops with `max_connections` open would get new connections as fast as
    it ends old ones. The function does not change sockets that other programs have too.
    """
    for sock in sockets:
        if is_ours(sock):
            with suppress(OSError):  # the socket is closed
                sock.listen(0)


def is_ours(sock: socket.socket) -> bool:
    """Return whether only this server has the socket, and no other program such as systemd."""
    return isinstance(sock, Listener) and sock.is_ours


def url_of(sock: socket.socket) -> str:
    """Return the address of `sock`: `http://HOST:PORT`, `http://[V6]:PORT` or `unix:PATH`."""
    name = sock.getsockname()
    if sock.family == socket.AF_INET6:
        host = name[0].replace("%", "%25")  # before a zone in a URL (RFC 6874 section 2)
        return f"http://[{host}]:{name[1]}"
    if sock.family == socket.AF_INET:
        return f"http://{name[0]}:{name[1]}"
    path = os.fsdecode(name)
    return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"


def file_of(sock: socket.socket) -> Path | None:
    """Return the file that `close_sockets` removes; None: there is none."""
    return sock.path if isinstance(sock, UnixListener) else None


def adopt_listener(descriptor: int, file: str | None, *, is_ours: bool = False) -> socket.socket:
    """Return a listening socket that another process has opened.

    `file` is the file of a unix socket, which this process owns from now on; None: no file.
    """
    if file is None:
        sock = Listener(fileno=descriptor)
    else:
        sock = UnixListener(fileno=descriptor)
        sock.remember_file(file)
    sock.is_ours = is_ours
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def open_bind(
    bind: Bind,
    backlog: int,
    opened: list[socket.socket],
    permissions: FilePermissions | None = None,
) -> socket.socket:
    """Return a listening socket for one address; `opened` has the sockets opened before it.

    `permissions` are for the file of a unix socket. Raises BindError.
    """
    try:
        if bind.kind == "unix":
            return _open_unix(bind, backlog, permissions or FilePermissions())
        if bind.kind == "fd":
            return _open_descriptor(bind, backlog, opened)
        return _open_tcp(bind, backlog)
    except BindError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise BindError(f"cannot listen on {bind}: {reason}", error.errno) from None


def prepare(sock: socket.socket) -> None:
    """Set the options of every listening socket. It does not block, and no program inherits it."""
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in _TCP_FAMILIES:
        # Accepted sockets inherit these options, which saves a system call for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Bytes that a client cannot take yet stay in this process. Without the limit the core
            # would copy megabytes of them to the system, which costs memory and time.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MOST)


def _open_tcp(bind: Bind, backlog: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError):
        message = f"cannot listen on {bind}: no address is known for the host {bind.host!r}"
        raise BindError(f"{message}; check its spelling") from None
    refusal = OSError("no address is known for it")
    for family, *_, address in found:
        try:
            return _listen_tcp(family, address, backlog)
        except OSError as error:
            refusal = error
            # A name may have addresses that this machine lacks (::1 without IPv6).
            if error.errno not in _ADDRESS_NOT_HERE:
                break
    raise _tcp_error(bind, refusal)


def _listen_tcp(
    family: int, address: tuple[str | int, ...] | tuple[int, bytes], backlog: int
) -> socket.socket:
    sock = Listener(family, socket.SOCK_STREAM)
    sock.is_ours = True
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # A server can listen on [::] and 0.0.0.0 together, and no client has an address like
            # ::ffff:192.0.2.1.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        sock.bind(address)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_error(bind: Bind, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        text = (
            "the port is in use; stop the program that has it, or choose another port "
            "(--port 0 takes a free one)"
        )
    elif error.errno in (errno.EACCES, errno.EPERM) and 0 < bind.port < 1024:
        text = "permission denied; ports below 1024 are privileged, choose a higher one"
    elif error.errno in _ADDRESS_NOT_HERE:
        text = f"this machine does not have the address {bind.host}"
    else:
        text = error.strerror or str(error)
    return BindError(f"cannot listen on {bind}: {text}", error.errno)


class Listener(socket.socket):
    """A listening socket. `is_ours`: only the processes of this server have it."""

    is_ours = False


class UnixListener(Listener):
    """A listening unix socket. It remembers its file, and removes no other file."""

    path: Path
    _identity: tuple[int, int] | None = None

    def remember_file(self, path: str) -> None:
        self.path = Path(path).absolute()
        with suppress(OSError):  # another program has removed it
            self._note(self.path.lstat())

    def _note(self, found: os.stat_result) -> None:
        self._identity = (found.st_dev, found.st_ino)

    def set_permissions(self, permissions: FilePermissions) -> None:
        """Set the mode and the owner of its file, and never those of another one.

        Root calls this for files in directories where other users can write. A user who replaces
        the socket with a link to a file of root's, or with that file, must not get the file.
        Raises OSError.
        """
        if permissions.mode < 0 and permissions.owner is None:
            return
        if not hasattr(os, "O_PATH"):
            self._set_permissions_by_name(permissions)
            return
        file = self._open_file()
        try:
            self._note(os.fstat(file))
            through = f"/proc/self/fd/{file}"
            if permissions.owner is not None:
                os.chown(through, *permissions.owner)
            if permissions.mode >= 0:
                Path(through).chmod(permissions.mode)
        finally:
            os.close(file)
        if not self._is(self.path.lstat()):  # clients would connect to another socket
            raise OSError(errno.EEXIST, _REPLACED)

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._identity

    def _open_file(self) -> int:
        """Return a descriptor (O_PATH) of the file that the socket is bound to."""
        with suppress(OSError):  # needs CAP_NET_ADMIN, which root in a container may lack
            return fcntl.ioctl(self.fileno(), _SIOCUNIXFILE)
        # This may be another socket of the same user, if that user has replaced the file before
        # `remember_file`. A user who can move a socket to this path could replace ours anyway.
        file = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(file)
        if not self._may_be(found):
            os.close(file)
            raise OSError(errno.EEXIST, _REPLACED)
        return file

    def _may_be(self, found: os.stat_result) -> bool:
        return self._is(found) and stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()

    def _set_permissions_by_name(self, permissions: FilePermissions) -> None:
        """Do the same on a system without O_PATH, and follow no link."""
        if not self._may_be(self.path.lstat()):
            raise OSError(errno.EEXIST, _REPLACED)
        if permissions.owner is not None:
            os.chown(self.path, *permissions.owner, follow_symlinks=False)
        if permissions.mode >= 0:
            self.path.chmod(permissions.mode, follow_symlinks=False)

    def remove_file(self) -> None:
        try:
            if self._is(self.path.lstat()):
                self.path.unlink()
        except OSError:
            pass  # removed already, or this process may not remove it


def _open_unix(bind: Bind, backlog: int, permissions: FilePermissions) -> socket.socket:
    _remove_stale(bind)
    sock = UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.is_ours = True
    try:
        prepare(sock)
        try:
            sock.bind(bind.path)
        except OSError as error:
            raise _unix_error(bind, error) from None
        sock.remember_file(bind.path)
        try:
            sock.set_permissions(permissions)  # before `listen` no client can connect
        except PermissionError as error:
            text = "the socket's owner or group cannot be set; only root, or a member, can do that"
            raise BindError(f"cannot listen on {bind}: {text}", error.errno) from None
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_error(bind: Bind, error: OSError) -> BindError:
    if error.errno is None:  # Python has found that the path is too long for the address
        length = len(os.fsencode(bind.path))
        text = f"the path of {length} bytes is too long for a socket; choose one below 100"
    elif error.errno == errno.ENOENT:
        text = "its directory does not exist"
    elif error.errno == errno.EADDRINUSE:
        text = "the path is in use"
    else:
        text = error.strerror or str(error)
    return BindError(f"cannot listen on {bind}: {text}", error.errno)


def _remove_stale(bind: Bind) -> None:
    """Remove the socket file of a server that has ended without removing it."""
    try:
        mode = Path(bind.path).lstat().st_mode
    except OSError:
        return  # there is no file; after another error, `bind` fails with the reason
    if not stat.S_ISSOCK(mode):
        raise BindError(
            f"cannot listen on {bind}: the path exists and is not a socket; "
            "remove it or choose another",
            errno.EEXIST,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(bind.path)
        except ConnectionRefusedError:
            Path(bind.path).unlink()
            return
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise _unix_error(bind, error) from None
    raise BindError(
        f"cannot listen on {bind}: another program listens there; stop it or choose another path",
        errno.EADDRINUSE,
    )


def _open_descriptor(bind: Bind, backlog: int, opened: list[socket.socket]) -> socket.socket:
    if any(sock.fileno() == bind.fd for sock in opened):
        raise BindError(f"cannot listen on {bind}: the descriptor is given twice")
    try:
        sock = socket.socket(fileno=bind.fd)
    except OSError as error:
        text = "not a socket" if error.errno == errno.ENOTSOCK else "not an open descriptor"
        message = f"cannot listen on {bind}: {text}; pass a bound socket as descriptor {bind.fd}"
        raise BindError(message, error.errno) from None
    try:
        _check_descriptor(bind, sock)
        prepare(sock)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(backlog)
    except BaseException:
        sock.detach()  # the caller keeps the descriptor
        raise
    return sock


def _check_descriptor(bind: Bind, sock: socket.socket) -> None:
    problem = ""
    if sock.type != socket.SOCK_STREAM or sock.family not in (*_TCP_FAMILIES, socket.AF_UNIX):
        problem = "it is neither a TCP nor a unix stream socket"
    elif sock.family in _TCP_FAMILIES and sock.getsockname()[1] == 0:
        problem = "it is not bound to an address"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and _is_connected(sock):
        problem = "it is a connection"
    if problem:
        raise BindError(f"cannot listen on {bind}: {problem}; pass a bound, listening socket")


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
