"""The compiled core as Python objects: its values from the settings, and its results."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.threads.access_log import AccessLog

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


class Library:
    """The functions of the core, except for those that the test replaces."""

    def __init__(self, lib: Any, **stubs: Any) -> None:
        self._lib = lib
        vars(self).update(stubs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


def given(monkeypatch: pytest.MonkeyPatch, *more: Any, **options: Any) -> dict[str, Any]:
    """The fields that the core gets for these settings."""
    found: dict[str, Any] = {}

    def refuse(fields: Any) -> Any:
        for name in dir(fields):
            found[name] = getattr(fields, name)
        texts = ("health_path", "temporary_directory", "poller", "access_program", "root_path")
        for name in texts:
            found[name] = core.ffi.string(found[name])
        networks = [fields.trusted[number] for number in range(fields.trusted_count)]
        found["trusted"] = [
            (one.kind, one.bits, core.ffi.buffer(one.address)[:]) for one in networks
        ]
        return core.ffi.NULL

    with monkeypatch.context() as patch:
        patch.setattr(core.server, "lib", Library(core.lib, pw_server_new=refuse))
        with pytest.raises(OSError, match="the core could not be started: "):
            core.CoreServer([], replace(Settings(), **options), *more)
    return found


def test_times_are_milliseconds_and_limited_to_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = given(
        monkeypatch,
        timeout_head=1.5,
        timeout_body=0.25,
        timeout_write=3.0,
        timeout_keep_alive=4.0,
        timeout_drain=0.0,
        timeout_graceful=6.0,
        timeout_request=7.0,
        timeout_queue=1e9,
    )
    assert {name: value for name, value in fields.items() if name.startswith("timeout")} == {
        "timeout_head": 1500,
        "timeout_body": 250,
        "timeout_write": 3000,
        "timeout_keep_alive": 4000,
        "timeout_drain": 0,
        "timeout_graceful": 6000,
        "timeout_request": 7000,
        "timeout_queue": 2**31 - 1,
    }


def test_sizes_and_counts_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        *("max_head_size", "head_memory_total", "max_body_size", "body_memory"),
        *("body_memory_total", "response_buffer", "response_spool", "max_fields"),
        *("max_connections", "threads"),
    ]
    options = {name: 1000 + number for number, name in enumerate(names)}
    fields = given(monkeypatch, **options)
    assert {name: fields[name] for name in names} == options


def test_all_streams_together_may_have_sixteen_times_the_spool_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert given(monkeypatch, response_spool=5)["response_spool_total"] == 80
    assert given(monkeypatch, response_spool=2**62)["response_spool_total"] == 2**62


@pytest.mark.parametrize("value", [False, True])
def test_the_core_knows_whether_to_expect_a_proxy_header(
    monkeypatch: pytest.MonkeyPatch, value: bool
) -> None:
    assert given(monkeypatch, proxy_protocol=value)["proxy_protocol"] == value


def test_the_core_gets_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = given(monkeypatch, health="/up", poller="poll")
    assert (fields["health_path"], fields["poller"]) == (b"/up", b"poll")
    assert fields["temporary_directory"] == os.fsencode(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("drop", core.lib.PW_UNDERSCORE_DROP),
        ("refuse", core.lib.PW_UNDERSCORE_REFUSE),
        ("allow", core.lib.PW_UNDERSCORE_ALLOW),
    ],
)
def test_each_underscore_policy_has_its_number(
    monkeypatch: pytest.MonkeyPatch, word: str, number: int
) -> None:
    assert given(monkeypatch, underscore_fields=word)["underscore_fields"] == number


def test_the_trusted_peers_and_the_root_path_are_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = core.lib
    local = [
        (lib.PW_NETWORK_V4, 32, bytes([127, 0, 0, 1]) + bytes(12)),
        (lib.PW_NETWORK_V6, 128, bytes(15) + b"\1"),
        (lib.PW_NETWORK_UNIX, 0, bytes(16)),
    ]
    fields = given(monkeypatch)
    assert (fields["trusted"], fields["drop_forwarded"], fields["root_path"]) == (local, 0, b"")
    fields = given(
        monkeypatch,
        forwarded_allow_ips=("10.128.0.0/9", "none", "*"),
        sources={"forwarded_allow_ips": "a test"},
        root_path="/caf\xe9",
    )
    assert fields["trusted"] == [
        (lib.PW_NETWORK_V4, 9, bytes([10, 128]) + bytes(14)),
        (lib.PW_NETWORK_ALL, 0, bytes(16)),
    ]
    assert (fields["drop_forwarded"], fields["root_path"]) == (1, "/caf\xe9".encode())
    assert given(monkeypatch, forwarded_allow_ips=())["trusted"] == []


@pytest.mark.parametrize("gil", [True, False])
def test_the_core_knows_whether_threads_run_in_parallel(
    monkeypatch: pytest.MonkeyPatch, gil: bool
) -> None:
    shared: list[bool] = []
    for module in (core, core.server):
        monkeypatch.setattr(module, "has_gil", lambda: gil)
    assert given(monkeypatch)["gil"] == gil
    monkeypatch.setattr(core, "lib", Library(core.lib, pw_share_heap=lambda: shared.append(True)))
    core.share_heap()
    assert shared == [True] * gil


def test_without_an_access_log_the_core_gets_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = given(monkeypatch)
    assert (fields["access_file"], fields["access_program_size"]) == (-1, 0)
    assert not fields["access_json"]
    assert not fields["access_prompt"]
    assert fields["balance"] == core.ffi.NULL


@pytest.mark.parametrize("form", ["json", "combined"])
def test_an_access_log_is_a_file_and_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, form: str
) -> None:
    options = {"access_log": "on", "access_log_file": str(tmp_path / "log")}
    log = AccessLog(replace(Settings(), access_log_format=form, **options))
    for terminal in (False, True):
        log.in_terminal = terminal
        fields = given(monkeypatch, log.output)
        assert fields["access_file"] == log.descriptor
        assert fields["access_program_size"] == len(log.program)
        assert bool(fields["access_json"]) == (form == "json")
        assert bool(fields["access_prompt"]) == terminal
    log.close()


def test_a_balance_is_passed_to_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    balance = core.Balance()
    assert given(monkeypatch, core.AccessOutput(), balance)["balance"] == balance.pointer
    balance.forget(os.getpid())
    stub = Library(core.lib, pw_balance_new=lambda: core.ffi.NULL)
    monkeypatch.setattr(core.server, "lib", stub)
    with pytest.raises(MemoryError):
        core.Balance()


# A server


def test_a_socket_that_the_core_refuses_is_an_error() -> None:
    with open(os.devnull, "rb") as file:  # noqa: PTH123

        class Socket:
            def fileno(self) -> int:
                return file.fileno()

        with pytest.raises(OSError, match=r"\w") as caught:
            core.CoreServer([Socket()], Settings())  # type: ignore[list-item]
    assert caught.value.errno


def test_sharing_needs_sockets(listening: socket.socket) -> None:
    server = core.CoreServer([listening], Settings())

    class Closed:
        def fileno(self) -> int:
            return -1

    with pytest.raises(OSError, match=r"\w") as caught:
        server.share(Closed(), Closed())  # type: ignore[arg-type]
    assert caught.value.errno


def test_the_watcher_gets_its_tasks_and_the_threads_that_they_concern(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    server = core.CoreServer([listening], Settings())
    for what, number in ((core.WATCH_SLOW, 0), (core.WATCH_STUCK, 17), (core.WATCH_STOP, 0)):
        answer = what | number << 3
        stub = Library(core.lib, pw_watch=lambda _server, answer=answer: answer)
        with monkeypatch.context() as patch:
            patch.setattr(core.server, "lib", stub)
            assert server.watch() == (what, number)


def test_incidents_are_texts_and_numbers(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    server = core.CoreServer([listening], Settings())
    left = [1, 2]

    def take(_server: Any, incident: Any) -> bool:
        if not left:
            return False
        incident.what, incident.error, incident.unsent = left.pop(0), 5, 2**40
        incident.address, incident.port, incident.line = b"::1", b"80", b"GET /\xe9"
        incident.id = b"an-id"
        if incident.what == 2:
            incident.has_proxy, incident.proxy, incident.proxy_port = 1, b"::2", b"81"
        return True

    monkeypatch.setattr(core.server, "lib", Library(core.lib, pw_incident_take=take))
    assert list(server.incidents()) == [
        core.Incident(1, 5, 2**40, "::1", "80", "GET /\xe9", "an-id", None),
        core.Incident(2, 5, 2**40, "::1", "80", "GET /\xe9", "an-id", ("::2", "81")),
    ]


def test_a_new_server_has_served_no_request_and_ends_on_a_stop(
    listening: socket.socket,
) -> None:
    server = core.CoreServer([listening], Settings())
    assert server.requests == 0
    thread = core.CoreThread(server, 0)
    assert len(thread.block) > 0
    assert thread.owner() is thread
    server.wake()
    server.stop(core.END)
    assert core.next_request(thread.pointer) == core.STOP


def test_a_thread_that_cannot_be_created_is_a_memory_error(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    server = core.CoreServer([listening], Settings())
    stub = Library(core.lib, pw_thread_new=lambda *_: core.ffi.NULL)
    monkeypatch.setattr(core.server, "lib", stub)
    with pytest.raises(MemoryError):
        core.CoreThread(server, 0)


def test_a_forked_child_has_no_sockets_and_the_parent_keeps_them(
    listening: socket.socket,
) -> None:
    gc.collect()
    server = core.CoreServer([listening], Settings())
    thread = core.CoreThread(server, 0)
    pid = os.fork()
    if pid == 0:
        stopped = core.next_request(thread.pointer) == core.STOP
        os._exit(0 if stopped and listening.fileno() == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert listening.fileno() >= 0
    server.stop(core.END)
    assert core.next_request(thread.pointer) == core.STOP


def test_the_build_names_its_pollers_and_keys() -> None:
    assert core.POLLERS[-1] == "poll"
    assert {*core.POLLERS} <= {"epoll", "kqueue", "poll"}
    assert len(core.build()) > 2
    assert {"PATH_INFO", "REQUEST_URI", "HTTP_HOST"} <= {*core.KEYS}
    assert len({*core.KEYS}) == len(core.KEYS)
