"""Services for applications of the benchmark: a stand-in for a database, and PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import picowsgi
from bench import install, measure, services, verify
from bench import run as runner
from bench.apps import database_app, postgres_app
from bench.cli import main
from bench.process import BenchError
from bench.results import Results
from bench.scenarios import SCENARIOS, samples
from bench.servers import SERVERS
from support.bench_sample import HERE, answer, say

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the harness needs CPython: os.sched_getaffinity"
)


def test_a_scenario_needs_every_service() -> None:
    needed = {scenario.service for scenario in SCENARIOS.values()} - {""}
    assert needed == services.SERVICES.keys()
    with services.running("", say) as environ:
        assert environ == {}


# ---------------------------------------------------------------- the database stand-in


@contextmanager
def stand_in() -> Iterator[str]:
    with services.running("stand_in", say) as environ:
        yield environ["BENCH_DATABASE"]


def connected(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(path)
    return client


@pytest.mark.unsanitized  # its compiler would run with the sanitizers' library
def test_the_stand_in_answers_each_query_after_a_millisecond() -> None:
    with stand_in() as path, connected(path) as one, connected(path) as other:
        for number in range(20):
            begin = time.monotonic()
            one.sendall(b"%d\n" % number)
            other.sendall(b"other %d\n" % number)
            assert one.recv(100) == b"item %d\n" % number
            assert time.monotonic() - begin >= 0.001
            assert other.recv(100) == b"item other %d\n" % number


@pytest.mark.measured
@pytest.mark.unsanitized
def test_the_stand_in_answers_many_connections_at_the_same_time() -> None:
    with stand_in() as path:
        clients = [connected(path) for _ in range(200)]
        begin = time.monotonic()
        for client in clients:
            client.sendall(b"7\n")
        assert {client.recv(100) for client in clients} == {b"item 7\n"}
        assert time.monotonic() - begin < 0.2, "expected one millisecond for all, not for each"
        for client in clients:
            client.close()


@pytest.mark.unsanitized
def test_the_stand_in_reads_a_query_in_pieces_and_refuses_an_invalid_one() -> None:
    with stand_in() as path:
        with connected(path) as client:
            client.sendall(b"12")
            time.sleep(0.01)  # so that the query arrives in pieces
            client.sendall(b"34\n")
            assert client.recv(100) == b"item 1234\n"
        for wrong in (b"x" * 64, b"1\n2\n"):
            with connected(path) as client:
                client.sendall(wrong)
                assert client.recv(100) == b""


@pytest.mark.unsanitized
def test_no_other_client_gets_the_answer_to_a_client_that_disconnected() -> None:
    with stand_in() as path:
        for number in range(100):
            with connected(path) as gone:
                gone.sendall(b"gone\n")  # and does not wait for its response
            time.sleep(0.0002)  # so that the stand-in sees the end before the response is due
            with connected(path) as client:
                client.sendall(b"%d\n" % number)
                assert client.recv(100) == b"item %d\n" % number


@pytest.mark.unsanitized
def test_each_thread_of_the_application_has_a_connection_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections = []

    def ask(number: int) -> None:
        for _ in range(3):
            assert answer(database_app.app, f"/{number}") == b"item %d\n" % number
            connections.append(database_app._local.connection)
        database_app._local.connection.close()

    with stand_in() as path:
        monkeypatch.setenv("BENCH_DATABASE", path)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(connections) == 12
    assert len(set(connections)) == 4


@pytest.mark.unsanitized
def test_a_started_server_queries_the_stand_in() -> None:
    scenario = SCENARIOS["database"]
    with (
        services.running(scenario.service, say) as environ,
        measure.running(SERVERS["picowsgi"], HERE, scenario.application, 16, environ) as process,
    ):
        verified = verify.verify(process.port, [], samples(scenario), scenario.pipeline)
    assert verified.framing == "length"


# ---------------------------------------------------------------- PostgreSQL


@pytest.mark.skipif(
    install.find_program("postgres") is None, reason="needs PostgreSQL: apt-get install postgresql"
)
@pytest.mark.unsanitized
def test_postgresql_runs_on_a_unix_socket_and_is_stopped() -> None:
    with services.running("postgres", say) as environ:
        words = dict(word.split("=") for word in environ["BENCH_POSTGRES"].split())
        folder = Path(words["host"])
        query = postgres_app.QUERY.replace("%s", "980")
        psql = Path(install.find_program("postgres") or "").resolve().with_name("psql")
        command = [str(psql), "-h", words["host"], "-U", words["user"], "-d", words["dbname"]]
        found = subprocess.run(
            [*command, "-Atc", query], capture_output=True, text=True, check=True
        ).stdout
        assert found.splitlines() == [f"{number}|{name}" for number, name in postgres_app.rows(980)]
        listening = subprocess.run(
            [*command, "-Atc", "SHOW listen_addresses"], capture_output=True, text=True, check=True
        ).stdout
        assert listening == "\n"
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert not folder.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_application_asks_for_twenty_rows_on_a_connection_of_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    class Pool:
        """The part of psycopg_pool.ConnectionPool that the application uses."""

        def __init__(self, where: str, **options: Any) -> None:
            time.sleep(0.01)  # while it connects, other threads run
            made.append((where, options["max_size"]))

        @contextmanager
        def connection(self) -> Iterator[Pool]:
            yield self

        def execute(self, query: str, values: tuple[int]) -> Pool:
            assert query == postgres_app.QUERY
            self.first = values[0]
            return self

        def fetchall(self) -> list[tuple[int, str]]:
            return postgres_app.rows(self.first)

    module = ModuleType("psycopg_pool")
    module.ConnectionPool = Pool  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "psycopg_pool", module)
    monkeypatch.setattr(postgres_app, "_pool", None)
    monkeypatch.setenv("BENCH_POSTGRES", "host=here")
    with picowsgi.Server(postgres_app.app, port=0) as server:
        verify.verify(server.port, [], samples(SCENARIOS["postgres"]), 1)
    assert made == [("host=here", 16)]
    monkeypatch.setattr(postgres_app, "_pool", None)
    together = [threading.Thread(target=postgres_app.pool) for _ in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(10)
    assert len(made) == 2, "expected one pool for four first requests at the same time"


def test_a_scenario_is_left_out_when_its_service_cannot_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(install, "find_program", lambda name: None)
    asked = [SCENARIOS["hello"], SCENARIOS["postgres"]]
    left_out = services.prepare(HERE, [SERVERS["picowsgi"]], asked, messages.append)
    assert left_out == {"postgres": "postgres is missing: apt-get install postgresql"}
    assert messages == ["postgres is left out: postgres is missing: apt-get install postgresql"]
    assert services.requirements(asked) == ["psycopg"]


def test_the_imports_of_the_application_are_installed_for_each_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed: list[tuple[Path, tuple[str, ...]]] = []
    other = install.Interpreter(Path("/other"), {})
    monkeypatch.setattr(install, "find_program", lambda name: f"/bin/{name}")
    monkeypatch.setattr(
        install, "interpreter_of", lambda server, others: other if server.pypy else others
    )
    monkeypatch.setattr(
        install,
        "require",
        lambda interpreter, names, say: installed.append((interpreter.venv, names)),
    )
    wanted = [SERVERS[name] for name in ("picowsgi", "picowsgi_1", "picowsgi_pypy")]
    assert services.prepare(HERE, wanted, [SCENARIOS["postgres"]], say) == {}
    assert installed == [
        (HERE.venv, ("psycopg[binary,pool]",)),
        (other.venv, ("psycopg[binary,pool]",)),
    ]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["sh", "-c", "echo no room >&2; exit 3"], "sh has ended with status 3: no room"),
        (["sleep", "60"], "sleep is not ready after 0.1 s"),
    ],
)
def test_a_service_that_does_not_get_ready_is_reported(
    command: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "START_TIMEOUT", 0.1 if command[0] == "sleep" else 10)
    with (
        pytest.raises(BenchError, match=re.escape(complaint)),
        services._process(command, str(tmp_path), lambda: False),
    ):
        pass


def test_the_newest_postgresql_of_debian_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9.6", "15", "8.4", "14beta1"):
        folder = tmp_path / version / "bin"
        folder.mkdir(parents=True)
        (folder / "postgres").write_text("")
        (folder / "postgres").chmod(0o755)
    monkeypatch.setattr(install, "POSTGRES", tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert install.find_program("postgres") == str(tmp_path / "15/bin/postgres")


# ---------------------------------------------------------------- runs


@pytest.mark.measured
@pytest.mark.unsanitized
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt-get install wrk")
def test_a_run_records_its_share_of_the_ideal_and_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def fails(say: object) -> Iterator[dict[str, str]]:
        raise BenchError("no room for a cluster")
        yield {}

    broken = replace(services.SERVICES["postgres"], start=fails)
    monkeypatch.setitem(services.SERVICES, "postgres", broken)
    output = tmp_path / "results.json"
    settings = measure.Settings(duration=1, warmup=0, rounds=2)
    asked = [SCENARIOS[name] for name in ("database", "postgres", "compute_1ms")]
    left_out = {"compute_1ms": "it is not wanted here"}
    runner.run(HERE, [SERVERS["picowsgi"]], asked, settings, output, {}, left_out)
    found = Results.read(output)
    assert found.scenarios == ["database"]
    assert found.data["left_out"] == {**left_out, "postgres": "no room for a cluster"}
    assert [run["round"] for run in found.data["runs"]] == [1, 2]
    for each in found.data["runs"]:
        assert each["share"] == pytest.approx(each["rate"] / 16_000)
        assert 0 < each["share"] <= 1
    assert found.data["scenarios"]["database"]["ideal"] == 16_000
    assert found.data["servers"]["picowsgi"]["concurrency"] == ""
    assert found.data["frameworks"].keys() == {*install.FRAMEWORKS, "psycopg"}
    assert left_out == {"compute_1ms": "it is not wanted here"}


def test_the_command_passes_the_services_that_cannot_start_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    asked: list[Any] = []

    def prepare(_: object, servers: Any, scenarios: Any, say: object) -> dict[str, str]:
        asked.append(([each.name for each in servers], [each.name for each in scenarios]))
        return {"postgres": "no room"}

    monkeypatch.setattr(install, "check_tools", lambda say, install: None)
    monkeypatch.setattr(install, "provide_venv", lambda python, say: HERE)
    monkeypatch.setattr(install, "install_servers", lambda *_: {"granian": "it does not compile"})
    monkeypatch.setattr(services, "prepare", prepare)
    monkeypatch.setattr(runner, "run", lambda *words: given.append(words[-2:]))
    words = ["run", "--servers", "picowsgi,granian", "--scenarios", "hello,postgres"]
    done = CliRunner().invoke(
        main, [*words, "--no-report", "--output", str(tmp_path / "results.json")]
    )
    assert done.exit_code == 0, done.output
    assert asked == [(["picowsgi"], ["hello", "postgres"])]
    assert given == [({"granian": "it does not compile"}, {"postgres": "no room"})]
