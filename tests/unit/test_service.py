"""A service sets up its resources before it serves and frees them afterwards. Nothing serves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from picowsgi.config.load import load_settings
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError, BindError, ConfigError, PatchedError
from picowsgi.process import run as module
from picowsgi.process import spawner, supervisor
from picowsgi.process.run import check, run
from picowsgi.process.service import Service


class Site:
    """Replaces the supervisor, so that the test can look at the service."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self.status = 0
        self.error: BaseException | None = None
        self.during: Any = lambda _service: None

    def supervise(self, service: Service) -> int:
        self.services.append(service)
        self.during(service)
        if self.error is not None:
            raise self.error
        return self.status


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    one = Site()
    monkeypatch.setattr(supervisor, "supervise", one.supervise)
    for name in ("LISTEN_PID", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    directory, umask = Path.cwd(), os.umask(0o22)
    yield one
    os.chdir(directory)
    os.umask(umask)


def settings(**options: Any) -> Settings:
    return load_settings({"port": 0, **options}, {}, Path("/nonexistent"))


def application(_environ: Any, _start_response: Any) -> list[bytes]:
    return []


def load() -> Any:
    return application


def serve(**options: Any) -> int:
    return run(load, settings(**options), lambda _sockets: None)


def test_sockets_listen_while_the_server_runs_and_are_closed_afterwards(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "s"

    def look(service: Service) -> None:
        assert [sock.family for sock in service.sockets] == [socket.AF_INET, socket.AF_UNIX]
        assert path.exists()
        assert service.load() is application

    site.during, site.status = look, 7
    assert run(load, settings(port=None, bind=["127.0.0.1:0", f"unix:{path}"]), print) == 7
    (service,) = site.services
    assert [sock.fileno() for sock in service.sockets] == [-1, -1]
    assert not path.exists()


def test_files_of_another_process_stay(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "s"

    def give(service: Service) -> None:
        service.files_are_ours = False

    site.during = give
    run(load, settings(port=None, bind=[f"unix:{path}"]), print)
    assert path.exists()
    site.services[0].sockets[0].close()


def test_the_pid_file_exists_while_the_server_runs(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    site.during = lambda _service: (
        file.read_text() == f"{os.getpid()}\n" or pytest.fail("expected no file")
    )
    serve(pid=str(file))
    assert not file.exists()
    site.error = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        serve(pid=str(file))
    assert not file.exists()


def test_an_application_that_cannot_be_loaded_is_an_error(site: Site) -> None:
    site.error = AppImportError("broken")
    with pytest.raises(AppImportError, match="broken"):
        serve()
    assert site.services[0].sockets[0].fileno() == -1


def test_a_system_that_the_application_has_patched_is_refused_before_and_after_the_import(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PatchedError("patched")

    site.during = lambda service: service.load()
    with monkeypatch.context() as patch:
        patch.setattr(module, "refuse_patched", refuse)
        with pytest.raises(PatchedError):
            serve()
        assert site.services == []

    def patching() -> Any:
        monkeypatch.setattr(module, "refuse_patched", refuse)
        return application

    with pytest.raises(PatchedError):
        run(patching, settings(), lambda _sockets: None)


def test_the_prepare_step_runs_before_the_import_and_after_the_sockets(site: Site) -> None:
    order: list[str] = []
    site.during = lambda _service: order.append("serve")
    run(
        load,
        settings(),
        lambda _sockets: None,
        prepare=lambda: order.append("prepare"),
    )
    assert order == ["prepare", "serve"]


def test_an_identity_is_assumed_before_any_import(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Identity:
        owner = None

        def assume(self) -> None:
            order.append("assume")

    monkeypatch.setattr(module, "find_identity", lambda user, group: Identity())
    site.during = lambda _service: order.append("serve")
    run(load, settings(), lambda _sockets: None, prepare=lambda: order.append("prepare"))
    assert order == ["assume", "prepare", "serve"]


def test_an_invalid_static_directory_is_refused_before_a_socket_is_opened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_sockets", lambda *_: pytest.fail("expected no open socket"))
    with pytest.raises(ConfigError, match="is not a directory"):
        serve(static=["/=/nonexistent"])
    assert site.services == []


def test_the_service_has_the_given_values(site: Site) -> None:
    ready: list[Any] = []
    command: Any = SimpleNamespace(is_running=False)
    run(load, settings(workers=2), ready.append, command)
    (service,) = site.services
    assert service.command is command
    assert (service.status_pipe, service.inherited, service.pid_file, service.reloader) == (
        None,
    ) * 4
    service.on_ready([])
    assert ready == [[]]
    assert service.files_are_ours


def test_the_first_start_logs_warnings_and_opens_the_browser_when_it_is_ready(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(module.middleware, "warn", lambda *_: done.append("debug"))
    monkeypatch.setattr(module.loop, "warn", lambda *_: done.append("loops"))
    monkeypatch.setattr(module, "open_page", lambda sockets: done.append("open"))
    for options in ({}, {"open": True}):
        run(load, settings(**options), lambda _sockets: done.append("ready"))
        site.services[-1].on_ready([])
    assert done == ["ready", "debug", "loops", "ready", "debug", "loops", "open"]


# Directory and umask


def test_the_service_changes_to_the_directory_and_sets_the_umask(
    site: Site, tmp_path: Path
) -> None:
    check(settings())
    assert (Path.cwd() == tmp_path, os.umask(0o22)) == (False, 0o22)
    check(settings(chdir=str(tmp_path), umask="027"))
    assert (Path.cwd(), os.umask(0o22)) == (tmp_path, 0o27)
    check(settings(umask="0"))
    assert os.umask(0o22) == 0
    with pytest.raises(ConfigError, match="--chdir: /nonexistent: No such file or directory"):
        serve(chdir="/nonexistent")
    assert site.services == []


# Sockets of systemd


@pytest.mark.parametrize(
    ("options", "source", "passed"),
    [
        ({}, "keyword", True),
        ({"port": 0}, "keyword", False),
        ({"port": 0}, "command line", False),
        ({"host": "127.0.0.1", "port": 0}, "command line", False),
        ({"bind": ["127.0.0.1:0"]}, "command line", False),
    ],
)
def test_passed_sockets_are_used_unless_an_option_names_an_address(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    source: Any,
    passed: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        asked: list[int] = []

        def take(_environ: Any, backlog: int) -> list[socket.socket]:
            asked.append(backlog)
            return [socket.socket(fileno=os.dup(sock.fileno()))]

        monkeypatch.setattr(module, "take_sockets", take)
        values = load_settings(
            {"backlog": 77, **options}, {"PORT": "0"}, Path("/nonexistent"), source=source
        )
        run(load, values, lambda _sockets: None)
        assert asked == ([77] if passed else [])


def test_without_passed_sockets_the_service_opens_its_own(site: Site) -> None:
    values = load_settings({}, {"PORT": "0"}, Path("/nonexistent"))
    run(load, values, lambda _sockets: None)
    assert len(site.services[0].sockets) == 1


def test_an_address_in_use_ends_the_start(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(BindError):
        serve(port=sock.getsockname()[1])
    assert site.services == []


# Which services have workers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"workers": 1, "threads": 2}, False),
        ({"workers": 2}, True),
        ({"reload": True}, True),
        ({"preload": True}, True),
        ({"max_requests": 1}, True),
        ({"max_worker_rss": 1}, True),
        ({"max_requests_jitter": 1}, False),
    ],
)
def test_processes_that_can_be_replaced_are_workers(
    options: dict[str, Any], expected: bool
) -> None:
    notifier: Any = None
    assert Service(load, Settings(**options), [], notifier).has_workers is expected


# An import in a child that returns


def ended(code: str) -> subprocess.CompletedProcess[str]:
    begin = """
import os, sys
from picowsgi.process.ending import leave
from picowsgi.process.run import _load_here
"""
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("end", "status"), [("return 'application'", 1), ("sys.exit(5)", 5), ("1 / 0", 1)]
)
def test_a_child_that_the_import_forks_and_that_returns_is_ended(end: str, status: int) -> None:
    one = ended(f"""
def load():
    pid = os.fork()
    if pid == 0:
        {end}
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return "application"

print(_load_here(load))
""")
    assert one.stdout == f"{status}\napplication\n"


def test_an_error_of_the_import_is_raised_in_the_process_itself() -> None:
    one = ended("""
def load():
    raise KeyError("wrong")

_load_here(load)
""")
    assert one.stderr.rstrip().endswith("KeyError: 'wrong'")


# The end


@pytest.mark.parametrize("before", ["", "sys.stdout.close()", "sys.stdout = sys.stderr = None"])
def test_leave_does_the_same_as_an_exit_without_waiting_for_threads(before: str) -> None:
    one = ended(f"""
import atexit, threading
atexit.register(lambda: os.write(2, b"atexit"))
threading.Thread(target=threading.Event().wait).start()
sys.stdout.write("to be flushed")
{before}
leave(9)
""")
    assert one.returncode == 9
    assert one.stderr == "atexit"
    if not before:
        assert one.stdout == "to be flushed"


def test_objects_from_before_the_fork_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(spawner.gc, "collect", lambda: calls.append("collect"))
    monkeypatch.setattr(spawner.gc, "freeze", lambda: calls.append("freeze"), raising=False)
    spawner.freeze()
    monkeypatch.delattr(spawner.gc, "freeze")
    spawner.freeze()
    assert calls == ["collect", "freeze", "collect"]
