"""Addresses and listening sockets, on loopback and in temporary directories only."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from picowsgi.config.load import load_settings
from picowsgi.config.values import check_metrics, parse_bind, parse_host, parse_metrics
from picowsgi.errors import BindError, ConfigError
from picowsgi.system import sockets
from picowsgi.system.sockets import (
    Bind,
    Owner,
    UnixListener,
    close_sockets,
    find_permissions,
    open_sockets,
    url_of,
)
from support import TIMEOUT

Open = Callable[..., list[socket.socket]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """`opened(**options)` opens the sockets of these options; they are closed after the test."""
    made: list[socket.socket] = []

    def open_(owner: Owner | None = None, /, **options: Any) -> list[socket.socket]:
        settings = load_settings(options, {}, Path("/nonexistent"))
        permissions = find_permissions(settings.unix_socket_mode, settings.unix_socket_group, owner)
        new = open_sockets(settings.binds(), settings.backlog, permissions)
        made.extend(new)
        return new

    yield open_
    close_sockets(made)


def answers(sock: socket.socket) -> bool:
    """Return whether a client can connect to `sock`."""
    with socket.socket(sock.family) as client:
        client.settimeout(TIMEOUT)
        client.connect(sock.getsockname())
        return True


def attempt(opened: Open, **options: Any) -> list[socket.socket] | BindError:
    try:
        return opened(**options)
    except BindError as error:
        return error


# Text


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8000", Bind("tcp", host="127.0.0.1", port=8000)),
        ("localhost:0", Bind("tcp", host="localhost", port=0)),
        ("[::1]:65535", Bind("tcp", host="::1", port=65535)),
        ("[::]:80", Bind("tcp", host="::", port=80)),
        ("unix:/run/x.sock", Bind("unix", path="/run/x.sock")),
        ("unix:a:b", Bind("unix", path="a:b")),
        ("fd://3", Bind("fd", fd=3)),
    ],
)
def test_an_address_is_parsed_and_printed_again(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind
    assert str(bind) == text


def test_a_port_alone_is_all_addresses() -> None:
    assert parse_bind(":8000") == Bind("tcp", host="0.0.0.0", port=8000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "HOST:PORT"),
        ("8000", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        ("localhost:", "a port from 0 to 65535"),
        ("localhost:http", "a port from 0 to 65535"),
        ("localhost:65536", "a port from 0 to 65535"),
        ("localhost:-1", "a port from 0 to 65535"),
        ("localhost:\u0663", "a port from 0 to 65535"),
        (":http", "a port from 0 to 65535"),
        ("::1:8000", "an IPv6 address stands in brackets"),
        ("[]:8000", "a host name"),
        ("a b:8000", "a host name"),
        ("http://localhost:8000", "an IPv6 address stands in brackets"),
        ("unix:", "the path of a socket"),
        ("unix:a\0b", "the path of a socket"),
        ("fd://", "a descriptor's number"),
        ("fd:3", "a descriptor's number"),
        ("fd://-1", "a descriptor's number"),
        ("fd://x", "a descriptor's number"),
    ],
)
def test_an_invalid_address_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as caught:
        parse_bind(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:0", ":9100", "[::1]:9100", "localhost:1", "unix:/x"])
def test_an_address_of_metrics_is_one_of_the_forms_of_an_address(text: str) -> None:
    assert parse_metrics(text) == parse_bind(text)
    check_metrics(text)
    check_metrics("")


@pytest.mark.parametrize("text", ["fd://3", "fd:3", "9100", ":", "a:99999", "::1:9", "unix:"])
def test_another_text_is_no_address_of_metrics(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"HOST:PORT, \[V6\]:PORT or unix:PATH|after unix:"
    ) as error:
        check_metrics(text)
    assert "fd://" not in str(error.value)


def test_a_host_may_have_the_brackets_of_ipv6() -> None:
    assert parse_host("[::1]") == parse_host("::1") == "::1"


# TCP


def test_a_free_port_is_chosen_and_the_url_names_it(opened: Open) -> None:
    (sock,) = opened(port=0)
    assert answers(sock)
    assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_a_socket_is_nonblocking_and_not_inherited_and_has_its_options(opened: Open) -> None:
    (sock,) = opened(port=0)
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_wildcard_is_printed_as_it_is_bound(opened: Open) -> None:
    (sock,) = opened(host="0.0.0.0", port=0)
    assert url_of(sock) == f"http://0.0.0.0:{sock.getsockname()[1]}"


def test_a_host_name_is_resolved(opened: Open) -> None:
    (sock,) = opened(host="localhost", port=0)
    assert answers(sock)


def test_ipv6_does_not_take_ipv4_and_is_refused_when_the_machine_lacks_it(opened: Open) -> None:
    outcome = attempt(opened, bind="[::1]:0")
    if isinstance(outcome, BindError):
        # Containers are often without IPv6; then this is the message.
        message = "cannot listen on [::1]:0: this machine does not have the address ::1"
        assert str(outcome) == message
        assert outcome.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return
    (sock,) = outcome
    assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert answers(sock)


def test_the_wildcards_of_ipv6_and_of_ipv4_may_have_the_same_port(opened: Open) -> None:
    outcome = attempt(opened, bind="[::]:0")
    if isinstance(outcome, BindError):
        assert outcome.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return
    port = outcome[0].getsockname()[1]
    (other,) = opened(bind=f"0.0.0.0:{port}")
    assert other.getsockname()[1] == port


class Named:
    """Stands in for a socket with this name."""

    def __init__(self, family: socket.AddressFamily, name: object) -> None:
        self.family = family
        self.name = name

    def getsockname(self) -> object:
        return self.name


@pytest.mark.parametrize(
    ("family", "name", "url"),
    [
        (socket.AF_INET6, ("::1", 8000, 0, 0), "http://[::1]:8000"),
        (socket.AF_INET6, ("::", 80, 0, 0), "http://[::]:80"),
        (socket.AF_INET6, ("fe80::1%eth0", 80, 0, 2), "http://[fe80::1%25eth0]:80"),
        (socket.AF_UNIX, b"\0name", "unix:@name"),
    ],
)
def test_a_url_has_ipv6_in_brackets_and_an_abstract_name_with_an_at_sign(
    family: socket.AddressFamily, name: object, url: str
) -> None:
    named: Any = Named(family, name)
    assert url_of(named) == url


def test_the_error_for_a_port_in_use_says_what_to_do(opened: Open) -> None:
    (sock,) = opened(port=0)
    port = sock.getsockname()[1]
    with pytest.raises(BindError) as caught:
        opened(port=port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use; stop the program that has it, "
        "or choose another port (--port 0 takes a free one)"
    )
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_of_another_machine_is_refused(opened: Open) -> None:
    # 192.0.2.0/24 is kept for documentation (RFC 5737), so no machine has it.
    with pytest.raises(BindError, match=r"this machine does not have the address 192\.0\.2\.1$"):
        opened(host="192.0.2.1", port=0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64 + ".invalid"])
def test_an_unknown_host_is_refused(opened: Open, host: str) -> None:
    with pytest.raises(BindError) as caught:
        opened(host=host, port=0)
    assert f"no address is known for the host '{host}'" in str(caught.value)


def test_the_error_for_a_privileged_port_says_what_to_do(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(sock: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError) as caught:
        opened(port=80)
    assert str(caught.value) == (
        "cannot listen on 127.0.0.1:80: permission denied; "
        "ports below 1024 are privileged, choose a higher one"
    )


def test_any_other_refusal_of_the_system_is_reported(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(sock: socket.socket, backlog: int) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(socket.socket, "listen", refuse)
    with pytest.raises(BindError, match=r": No buffer space available$"):
        opened(port=0)


def test_when_a_name_has_several_addresses_the_first_usable_one_is_bound(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*args: object, **options: object) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    (sock,) = opened(host="both.invalid", port=0)
    assert sock.getsockname()[0] == "127.0.0.1"


def test_several_addresses_are_opened_in_their_order(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first, second = opened(bind=["127.0.0.1:0", f"unix:{path}"])
    assert url_of(first).startswith("http://127.0.0.1:")
    assert url_of(second) == f"unix:{path}"


def test_a_failure_closes_the_sockets_that_were_opened_before_it(
    opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with pytest.raises(BindError):
        opened(bind=[f"unix:{path}", "192.0.2.1:0"])
    assert not path.exists()


# Unix


def test_a_unix_socket_is_created_and_its_file_removed_at_the_end(
    opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    (sock,) = opened(bind=f"unix:{path}")
    assert answers(sock)
    assert not sock.getblocking()
    close_sockets([sock])
    assert not path.exists()


def test_the_file_of_a_relative_path_is_removed_even_from_another_directory(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (sock,) = opened(bind="unix:s")
    monkeypatch.chdir("/")
    close_sockets([sock])
    assert not (tmp_path / "s").exists()


def test_a_file_that_has_replaced_ours_is_not_removed(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (sock,) = opened(bind=f"unix:{path}")
    other = tmp_path / "other"
    other.touch()
    other.rename(path)
    close_sockets([sock])
    assert path.exists()


def test_a_stale_socket_is_replaced(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    (sock,) = opened(bind=f"unix:{path}")
    assert answers(sock)


def test_a_socket_with_a_listener_stays(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    (sock,) = opened(bind=f"unix:{path}")
    with pytest.raises(BindError, match="another program listens there") as caught:
        opened(bind=f"unix:{path}")
    assert caught.value.errno == errno.EADDRINUSE
    assert answers(sock)


def test_a_file_that_is_not_a_socket_stays(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindError, match="the path exists and is not a socket"):
        opened(bind=f"unix:{path}")
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120)
    length = len(os.fsencode(path))
    with pytest.raises(BindError, match=f"the path of {length} bytes is too long"):
        opened(bind=f"unix:{path}")


def test_a_path_in_a_missing_directory_is_refused(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(BindError, match="its directory does not exist"):
        opened(bind=f"unix:{tmp_path / 'absent' / 's'}")


# The owner of a unix socket


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can change the owner of a file"
)
linux = pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="needs O_PATH")
OTHER_USER = (65534, 65534)


def has_capability(directory: Path) -> bool:
    """Return whether this process may open the file of a socket. Root in a container may not."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "try"))
        (directory / "try").unlink()
        try:
            os.close(fcntl.ioctl(sock.fileno(), sockets._SIOCUNIXFILE))
        except OSError:
            return False
    return True


def refuse(*_arguments: object) -> int:
    raise PermissionError(errno.EPERM, "without CAP_NET_ADMIN")


def state_of(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@needs_root
@pytest.mark.parametrize("with_capability", [True, False])
def test_a_unix_socket_has_its_mode_and_its_owner_before_any_client_can_connect(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_capability: bool
) -> None:
    path = tmp_path / "s"
    seen = []

    def listen(sock: UnixListener, backlog: int) -> None:
        seen.append(state_of(path))
        socket.socket.listen(sock, backlog)

    monkeypatch.setattr(UnixListener, "listen", listen, raising=False)
    if not with_capability:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    (sock,) = opened(OTHER_USER, bind=f"unix:{path}", unix_socket_mode="606")
    assert seen == [(*OTHER_USER, 0o606)]
    assert answers(sock)
    close_sockets([sock])
    assert not path.exists()


@needs_root
@pytest.mark.parametrize("with_capability", [True, False])
@pytest.mark.parametrize(
    ("owner", "mode", "expected"),
    [
        (None, {}, (0, 65534, 0o660)),
        (None, {"unix_socket_mode": "666"}, (0, 65534, 0o666)),
        ((1, 1), {}, (1, 65534, 0o660)),
    ],
)
def test_a_unix_socket_gets_its_own_group(
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_capability: bool,
    owner: tuple[int, int] | None,
    mode: dict[str, str],
    expected: tuple[int, int, int],
) -> None:
    if not with_capability:
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    path = tmp_path / "s"
    name = grp.getgrgid(65534).gr_name
    (sock,) = opened(owner, bind=f"unix:{path}", unix_socket_group=name, **mode)
    assert state_of(path) == expected
    assert answers(sock)


def test_a_group_that_does_not_exist_is_refused(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--unix-socket-group: there is no group 'absent'"):
        opened(bind=f"unix:{tmp_path / 's'}", unix_socket_group="absent")
    assert not (tmp_path / "s").exists()


def test_a_group_that_cannot_be_set_is_refused(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(BindError, match="owner or group cannot be set; only root, or a member"):
        opened(bind=f"unix:{tmp_path / 's'}", unix_socket_group="0")


def attacks(directory: Path) -> dict[str, Callable[[Path], object]]:
    """The attacks of a user who may write in the directory once the socket is there."""
    secret = directory / "secret"

    def put(path: Path) -> Callable[[Path], Path]:
        return lambda target: path.rename(target)

    def link(make: str) -> Callable[[Path], Path]:
        def attack(target: Path) -> Path:
            link = directory / "link"
            getattr(os, make)(secret, link)
            return link.rename(target)

        return attack

    def pipe(target: Path) -> None:
        target.unlink()
        os.mkfifo(target, 0o600)

    def folder(target: Path) -> None:
        target.unlink()
        target.mkdir(0o700)

    return {
        "a symbolic link": link("symlink"),
        "a hard link": link("link"),
        "the file itself": put(secret),
        "another socket": put(directory / "other"),
        "a pipe": pipe,
        "a directory": folder,
        "nothing": Path.unlink,
    }


@needs_root
@linux
@pytest.mark.parametrize("with_capability", [True, False])
@pytest.mark.parametrize("moment", ["bind", "remember_file"])
@pytest.mark.parametrize("kind", attacks(Path("/")))
@pytest.mark.parametrize("option", [{"unix_socket_mode": "666"}, {"unix_socket_group": "65534"}])
def test_a_file_that_replaces_a_unix_socket_keeps_its_owner_and_mode(
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    moment: str,
    with_capability: bool,
    option: dict[str, str],
) -> None:
    if with_capability and not has_capability(tmp_path):
        pytest.skip("needs CAP_NET_ADMIN")
    if (kind, moment, with_capability) == ("another socket", "bind", False):
        pytest.skip("without CAP_NET_ADMIN two sockets of root's differ only later")
    secret, other, path = tmp_path / "secret", tmp_path / "other", tmp_path / "s"
    secret.write_text("root's")
    secret.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(other))
    other.chmod(0o600)
    original = getattr(UnixListener, moment)

    def attacked(sock: UnixListener, address: str) -> None:
        original(sock, address)
        attacks(tmp_path)[kind](path)

    monkeypatch.setattr(UnixListener, moment, attacked, raising=False)
    if not with_capability:
        monkeypatch.setattr(fcntl, "ioctl", refuse)

    def open_(**options: Any) -> list[socket.socket]:
        return opened(OTHER_USER, **options)

    refused = attempt(open_, bind=f"unix:{path}", **option)
    assert isinstance(refused, BindError)
    for each in tmp_path.iterdir():
        uid, gid, mode = state_of(each)
        assert (uid, gid) == (0, 0), f"expected the owner of {each} to stay"
        assert mode not in (0o666, 0o660) or each.is_symlink(), (
            f"expected the mode of {each} to stay"
        )


# Descriptors


def test_a_listening_descriptor_is_used(opened: Open) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    (sock,) = opened(bind=f"fd://{given.detach()}")
    assert answers(sock)
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_descriptor_that_is_only_bound_starts_to_listen(opened: Open) -> None:
    given = socket.socket()
    given.bind(("127.0.0.1", 0))
    (sock,) = opened(bind=f"fd://{given.detach()}")
    assert answers(sock)


def test_the_file_of_a_unix_descriptor_is_not_removed(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(path))
    (sock,) = opened(bind=f"fd://{given.detach()}")
    assert url_of(sock) == f"unix:{path}"
    close_sockets([sock])
    assert path.exists()


def test_a_number_that_is_not_an_open_descriptor_is_refused(opened: Open) -> None:
    with pytest.raises(BindError, match="not an open descriptor"):
        opened(bind="fd://999999999")


def test_a_descriptor_that_is_not_a_socket_is_refused_and_stays_open(
    opened: Open, tmp_path: Path
) -> None:
    with (tmp_path / "f").open("w") as file:
        with pytest.raises(BindError, match="not a socket"):
            opened(bind=f"fd://{file.fileno()}")
        file.write("still open")


def test_a_descriptor_that_is_given_twice_is_refused(opened: Open) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    fd = given.detach()
    with pytest.raises(BindError, match="given twice"):
        opened(bind=[f"fd://{fd}", f"fd://{fd}"])


def test_a_datagram_socket_is_refused(opened: Open) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given,
        pytest.raises(BindError, match="neither a TCP nor a unix stream socket"),
    ):
        opened(bind=f"fd://{given.fileno()}")


def test_a_socket_without_an_address_is_refused(opened: Open) -> None:
    with socket.socket() as given, pytest.raises(BindError, match="not bound to an address"):
        opened(bind=f"fd://{given.fileno()}")


def test_a_connection_is_refused_and_stays_open(opened: Open) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=TIMEOUT) as given,
    ):
        with pytest.raises(BindError, match="it is a connection"):
            opened(bind=f"fd://{given.fileno()}")
        given.sendall(b"still open")
