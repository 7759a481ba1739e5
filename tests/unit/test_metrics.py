"""process/metrics.py: the memory and the socket of --metrics, as processes pass them on."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.errors import BindError
from picowsgi.process import metrics as module
from picowsgi.process.metrics import Metrics, adopt_metrics, open_metrics
from picowsgi.system.sockets import is_ours
from support import wait_until
from support.metrics import port_of, read_page
from support.processes import is_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

# Python 3.12 warns of a fork beside other threads, such as those of pytest's plugins.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
SETTINGS = Settings(metrics="127.0.0.1:0")


@pytest.fixture
def opened() -> Iterator[Metrics]:
    """The metrics of a command, which serve their page."""
    one = open_metrics(SETTINGS, outlives=True)
    assert one is not None
    one.start(SETTINGS)
    yield one
    one.close()


def restarts(one: Metrics) -> dict[str, float]:
    return read_page(port_of(one.url)).labelled("picowsgi_worker_restarts_total", "reason")


def copied(one: Metrics, role: str) -> Any:
    """Return what a new program of this role gets, with descriptors of its own."""
    memory, listener = one.pass_on(role)
    if listener is not None:
        listener = (os.dup(listener[0]), *listener[1:])
    return os.dup(memory), listener


def test_without_the_option_there_are_no_metrics() -> None:
    assert open_metrics(Settings()) is None
    assert adopt_metrics(Settings(), "worker", None) is None


def test_each_restart_is_on_the_page(opened: Metrics) -> None:
    reasons = ("exit", "signal", "timeout", "memory", "requests", "reload")
    for number, name in enumerate(reasons):
        assert getattr(core, f"RESTART_{name.upper()}") == number
        for _ in range(number + 1):
            opened.memory.note_restart(number)
    assert restarts(opened) == {name: number + 1 for number, name in enumerate(reasons)}


def test_a_program_gets_the_memory_and_only_a_server_gets_the_socket(opened: Metrics) -> None:
    opened.memory.note_restart(core.RESTART_EXIT)
    assert opened.pass_on("worker")[1] is None
    worker = adopt_metrics(SETTINGS, "worker", copied(opened, "worker"))
    assert worker is not None
    assert worker.sock is None
    with pytest.raises(RuntimeError, match="another process serves the page"):
        _ = worker.url
    worker.start(SETTINGS)  # it has no page
    worker.pause(True)
    worker.memory.note_restart(core.RESTART_EXIT)
    assert restarts(opened) == {"exit": 2}
    worker.close()
    successor = adopt_metrics(SETTINGS, "successor", copied(opened, "successor"))
    assert successor is not None
    assert successor.sock is not None
    assert is_ours(successor.sock)
    assert successor.url == opened.url
    opened.pause(True)
    successor.start(SETTINGS)
    assert restarts(successor) == {"exit": 2}
    successor.close()


def test_a_page_is_served_by_the_process_that_is_not_paused(opened: Metrics) -> None:
    other = adopt_metrics(SETTINGS, "successor", copied(opened, "successor"))
    assert other is not None
    info = {"version": "other", "python": "3", "poller": "poll"}
    settings = SETTINGS
    original = core.Exporter
    try:
        module.core.Exporter = lambda *a, **k: original(a[0], a[1], info, **k)  # type: ignore[assignment,misc]
        other.start(settings, paused=True)
    finally:
        module.core.Exporter = original  # type: ignore[misc]

    def versions() -> set[str]:
        texts = [read_page(port_of(opened.url)).text for _ in range(8)]
        return {re.findall(r'picowsgi_info\{version="([^"]*)"', text)[0] for text in texts}

    assert "other" not in versions()
    other.pause(False)
    opened.pause(True)
    wait_until(lambda: versions() == {"other"}, "the page of the other process")
    opened.pause(False)
    other.pause(True)
    wait_until(lambda: "other" not in versions(), "the page of the first process")
    other.close()


def test_a_worker_of_a_server_without_metrics_says_so(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(metrics="127.0.0.1:0", sources={"metrics": "PICOWSGI_METRICS"})
    assert adopt_metrics(settings, "worker", None) is None
    assert "PICOWSGI_METRICS: the server was started without it" in caplog.text


@pytest.mark.parametrize("role", ["worker", "keeper", "successor"])
def test_counters_of_another_version_are_not_used(
    opened: Metrics, role: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened.memory.note_restart(core.RESTART_EXIT)
    listener = copied(opened, role)[1]
    file = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, core.Metrics.size() + 4096)
    taken = adopt_metrics(SETTINGS, role, (file, listener))
    assert "another version of picowsgi has made the counters of --metrics" in caplog.text
    if role == "worker":
        assert taken is None
        assert "so this process is not counted" in caplog.text
        return
    assert taken is not None
    assert "so they begin again" in caplog.text
    opened.pause(True)
    taken.start(SETTINGS)
    wait_until(lambda: restarts(taken) == {}, "new counters")
    assert taken.pass_on("worker")[0] >= 0
    taken.close()


def test_a_forked_worker_keeps_the_memory_and_closes_the_rest(opened: Metrics) -> None:
    file, listener = opened.pass_on("keeper")
    assert listener is not None
    numbers = (file, listener[0])
    from picowsgi.system.fork_guard import own_process

    with own_process():
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            opened.leave_to_parent()
            opened.leave_to_parent()
            opened.memory.note_restart(core.RESTART_MEMORY)
            for number in numbers:
                try:
                    os.fstat(number)
                    status = 2
                except OSError:
                    pass
            if status == 1:
                status = 5
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert restarts(opened) == {"memory": 1}


def test_a_forked_child_of_the_application_has_nothing_of_the_page(opened: Metrics) -> None:
    sockets = {file.name for file in Path("/proc/self/fd").iterdir() if _is_socket(file.name)}
    pid = os.fork()
    if pid == 0:
        closed = 0
        try:
            closed = sum(not _is_socket(number) for number in sockets)
            opened.close()
        finally:
            os._exit(closed)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status >= 2, (
        "expected the child to close the listening socket and the exporter's duplicate, "
        f"but its status is {status}; this process has the sockets {sorted(sockets)}"
    )
    assert restarts(opened) == {}


def _is_socket(number: str) -> bool:
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink()).startswith("socket:")
    except OSError:
        return False


def test_the_end_of_the_page_closes_its_socket_and_a_second_end_changes_nothing() -> None:
    one = open_metrics(SETTINGS)
    assert one is not None
    port = port_of(one.url)
    one.start(SETTINGS)
    one.start(SETTINGS)
    read_page(port)
    one.close()
    one.close()
    assert is_refused(port)


@pytest.mark.parametrize("ours", [True, False])
def test_the_file_of_a_unix_socket_is_removed_by_its_owner(tmp_path: Path, ours: bool) -> None:
    path = tmp_path / "m"
    one = open_metrics(Settings(metrics=f"unix:{path}"), outlives=True)
    assert one is not None
    assert one.url == f"unix:{path}"
    assert one.pass_on("successor")[1][1:] == (str(path), True)  # type: ignore[index]
    one.close(files_are_ours=ours)
    assert path.exists() != ours


def test_without_memfd_the_memory_is_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    if hasattr(os, "memfd_create"):
        monkeypatch.delattr(os, "memfd_create")
    one = open_metrics(SETTINGS, outlives=True)
    assert one is not None
    assert one.pass_on("worker")[0] >= 0
    assert not [*tmp_path.iterdir()]
    one.start(SETTINGS)
    assert restarts(one) == {}
    one.close()


def test_a_memory_that_cannot_be_made_leaves_no_socket_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def refuse(_descriptor: int = -1) -> None:
        raise OSError("no memory")

    refuse.size = core.Metrics.size  # type: ignore[attr-defined]
    monkeypatch.setattr(module.core, "Metrics", refuse)
    for outlives in (True, False):
        with pytest.raises(OSError, match="no memory"):
            open_metrics(Settings(metrics=f"127.0.0.1:{port}"), outlives=outlives)
        assert is_refused(port)


def test_an_address_in_use_names_the_option(opened: Metrics) -> None:
    with pytest.raises(BindError, match=r"^--metrics: cannot listen on .*: the port is in use"):
        open_metrics(Settings(metrics=f"127.0.0.1:{port_of(opened.url)}"))


def test_labels_are_escaped() -> None:
    assert core.metrics._escape('a\\b"c\nd\u00e9') == 'a\\\\b\\"c\\nd?'


def test_an_exporter_with_too_many_labels_is_refused(opened: Metrics) -> None:
    assert opened.sock is not None
    with pytest.raises(OSError, match="the metrics cannot be served"):
        core.Exporter(opened.memory, opened.sock, {"version": "1" * 2000})
