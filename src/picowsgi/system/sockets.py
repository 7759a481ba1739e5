"""Addresses, and the listening sockets that are made from them.

Never accepts a connection: the sockets are handed to the core as they are.
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
_UNSENT_MOST = 128 * 1024  # bytes of a connection that the system has and need not send yet
_ADDRESS_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_SIOCUNIXFILE = 0x89E0  # Linux: opens the file that a unix socket is bound to (O_PATH)
_REPLACED = (
    "another process has replaced the socket's file; restrict who can write to its directory"
)
_GROUP_MODE = 0o660
_SAME = -1  # the user that a file has


@dataclass(frozen=True)
class Bind:
    """One address to listen on; only the fields of its `kind` mean something."""

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
    """Who may connect to a unix socket: the mode of its file, -1 for what the umask leaves of it,
    and its owner, None for the user that this process is.
    """

    mode: int = -1
    owner: Owner | None = None


def open_sockets(
    binds: Iterable[Bind], backlog: int, permissions: FilePermissions | None = None
) -> list[socket.socket]:
    """Return a listening socket for each address, in their order.

    They do not block and are not inherited by child processes. All of them are opened, or none
    and BindError is raised. A descriptor given as `fd://N` belongs to its socket from then on.
    `permissions` are for the files of unix sockets.
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
    """Return who may connect to unix sockets: `owner`, and the group of this name where it has one.

    Raises ConfigError for a group that does not exist.
    """
    if not group:
        return FilePermissions(mode, owner)
    number = find_group(group, "--unix-socket-group")
    # The group is of use only where it may write.
    user = _SAME if owner is None else owner[0]
    return FilePermissions(_GROUP_MODE if mode < 0 else mode, (user, number))


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close the sockets, and remove the files that `open_sockets` made for them."""
    for sock in sockets:
        if isinstance(sock, UnixListener):
            sock.remove_file()
        sock.close()


def close_backlog(sockets: Iterable[socket.socket]) -> None:
    """Let the system accept no more connections; those that wait can still be served.

    Otherwise a server that stops while all its places are taken would be given new connections as
    fast as it ends old ones. Sockets that other programs have as well are left alone.
    """
    for sock in sockets:
        if is_ours(sock):
            with suppress(OSError):  # it is closed
                sock.listen(0)


def is_ours(sock: socket.socket) -> bool:
    """Return whether no other program listens on the socket, as systemd may."""
    return isinstance(sock, Listener) and sock.is_ours


def url_of(sock: socket.socket) -> str:
    """Return where `sock` listens: `http://HOST:PORT`, `http://[V6]:PORT` or `unix:PATH`."""
    name = sock.getsockname()
    if sock.family == socket.AF_INET6:
        host = name[0].replace("%", "%25")  # a zone, as in a URL (RFC 6874 section 2)
        return f"http://[{host}]:{name[1]}"
    if sock.family == socket.AF_INET:
        return f"http://{name[0]}:{name[1]}"
    path = os.fsdecode(name)
    return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"


def file_of(sock: socket.socket) -> Path | None:
    """Return the file that `close_sockets` would remove."""
    return sock.path if isinstance(sock, UnixListener) else None


def adopt_listener(descriptor: int, file: str | None, *, is_ours: bool = False) -> socket.socket:
    """Return a listening socket that another process has opened; its file is ours from now on."""
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
    """Return a listening socket for one address; `opened` are those that were opened before.

    `access` is for the file of a unix socket. Raises BindError.
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
    """Set what every listening socket has in common; it does not block and is not inherited."""
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in _TCP_FAMILIES:
        # Accepted sockets inherit these, which saves a system call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # What a client cannot take yet stays in our memory, instead of being copied, by
            # megabytes, to the system's: that would cost memory, and the others' time.
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
            # A name may stand for addresses that this machine lacks (::1 without IPv6).
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
            # [::] and 0.0.0.0 can stand side by side, and no peer looks like ::ffff:192.0.2.1.
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
    """A listening socket that knows whether only the processes of this server have it."""

    is_ours = False


class UnixListener(Listener):
    """A listening unix socket that knows the file it made, to remove that one and no other."""

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
        if not self._is(self.path.lstat()):  # clients would connect to something else
            raise OSError(errno.EEXIST, _REPLACED)

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._identity

    def _open_file(self) -> int:
        """Return a descriptor (O_PATH) of the file that it is bound to."""
        with suppress(OSError):  # it needs CAP_NET_ADMIN, which root in a container may lack
            return fcntl.ioctl(self.fileno(), _SIOCUNIXFILE)
        # This may be another socket of the same user, if it came before `remember_file` looked.
        # Only a user who can move that socket can put it here, and could take its place anyway.
        file = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = os.fstat(file)
        if not self._may_be(found):
            os.close(file)
            raise OSError(errno.EEXIST, _REPLACED)
        return file

    def _may_be(self, found: os.stat_result) -> bool:
        return self._is(found) and stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()

    def _set_permissions_by_name(self, permissions: FilePermissions) -> None:
        """Do the same where the system has no way to hold the file: no link is followed."""
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
            pass  # gone already, or no longer ours to remove


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
            sock.set_permissions(permissions)  # nobody can connect yet
        except PermissionError as error:
            text = "the socket's owner or group cannot be set; only root, or a member, can do that"
            raise BindError(f"cannot listen on {bind}: {text}", error.errno) from None
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_error(bind: Bind, error: OSError) -> BindError:
    if error.errno is None:  # Python's own check: the address has no room for the path
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
    """Remove the socket that a server which is gone has left at the path."""
    try:
        mode = Path(bind.path).lstat().st_mode
    except OSError:
        return  # nothing there; where it cannot be told, binding says why
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
        sock.detach()  # not taken over, so it stays the caller's
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
