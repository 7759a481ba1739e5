"""Starts services that the applications of some scenarios need: a stand-in, and PostgreSQL.

A service runs while its scenario is measured. It uses the processor of the load, and so takes no
CPU time from the servers. Never measures.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench import install
from bench.apps import postgres_app
from bench.install import Interpreter, Say
from bench.process import BenchError, processors
from bench.scenarios import Scenario
from bench.servers import Server

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
#: How long the stand-in waits before it responds.
STAND_IN_MICROSECONDS = 1000

#: Environment variables for the application.
Environ = dict[str, str]


@dataclass(frozen=True)
class Service:
    """A service. `start` runs it during a `with`.

    `requires` lists the packages of the application. `programs` must be installed.
    """

    start: Callable[[Say], AbstractContextManager[Environ]]
    requires: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


def running(name: str, say: Say) -> AbstractContextManager[Environ]:
    """Run the service of this name during a `with`; "": none. Raises BenchError."""
    return SERVICES[name].start(say) if name else nullcontext({})


def prepare(
    interpreter: Interpreter, servers: Iterable[Server], scenarios: Iterable[Scenario], say: Say
) -> dict[str, str]:
    """Install what the scenarios need. Return the reasons, by the names of those left out."""
    found = [install.interpreter_of(server, interpreter) for server in servers]
    interpreters = list({each.venv: each for each in found}.values())
    left_out = {}
    for scenario in scenarios:
        if scenario.service:
            try:
                _install(SERVICES[scenario.service], interpreters, say)
            except BenchError as error:
                left_out[scenario.name] = str(error)
                say(f"{scenario.name} is left out: {error}")
    return left_out


def _install(service: Service, interpreters: Iterable[Interpreter], say: Say) -> None:
    """Install the packages of a service. Raises BenchError if something is missing."""
    for program in service.programs:
        if not install.find_program(program):
            raise BenchError(f"{program} is missing: apt-get install {install.TOOLS[program]}")
    for interpreter in interpreters:
        install.require(interpreter, service.requires, say)


def requirements(scenarios: Iterable[Scenario]) -> list[str]:
    """Return the names of the distributions that the applications of these scenarios import."""
    names = [SERVICES[each.service].requires for each in scenarios if each.service]
    return list(dict.fromkeys(one.partition("[")[0] for found in names for one in found))


@contextmanager
def _stand_in(say: Say) -> Iterator[Environ]:
    program = install.build_program("stand_in", say)
    with tempfile.TemporaryDirectory(prefix="bench-stand-in-") as folder:
        path = Path(folder) / "socket"

        def is_ready() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(path)) == 0

        with _process([str(program), str(path), str(STAND_IN_MICROSECONDS)], folder, is_ready):
            yield {"BENCH_DATABASE": str(path)}


@contextmanager
def _postgres(say: Say) -> Iterator[Environ]:
    """Run a PostgreSQL cluster in a temporary folder. It listens only on a unix socket there."""
    found = install.find_program("postgres")
    if found is None:
        raise BenchError("postgres is missing: apt-get install postgresql")
    programs = Path(found).resolve().parent  # initdb and psql are there, too
    owner = _not_root()
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as folder:
        if owner:
            os.chown(folder, owner["user"], owner["group"])
        say("creating a PostgreSQL cluster")
        data = f"{folder}/data"
        _run(
            [
                *(str(programs / "initdb"), "--pgdata", data, "--username", "bench"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            folder,
            owner,
        )
        command = [
            *(str(programs / "postgres"), "-D", data, "-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={folder}", "-c", "autovacuum=off"),
            *("-c", "fsync=off", "-c", "jit=off"),
        ]
        psql = [
            *(str(programs / "psql"), "--host", folder, "--username", "bench", "--no-psqlrc"),
            *("--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", "postgres", "--command"),
        ]

        def is_ready() -> bool:
            return _call([*psql, "SELECT 1"], folder, owner).returncode == 0

        # SIGINT is the fast shutdown of PostgreSQL: it does not wait for clients.
        with _process(command, folder, is_ready, owner, interrupt=True):
            _run([*psql, postgres_app.TABLE], folder, owner)
            yield {"BENCH_POSTGRES": f"host={folder} user=bench dbname=postgres"}


SERVICES: dict[str, Service] = {
    "stand_in": Service(_stand_in),
    "postgres": Service(_postgres, ("psycopg[binary,pool]",), ("postgres",)),
}


def _not_root() -> dict[str, Any]:
    """Return the arguments for subprocess that make root start a program as another user."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise BenchError("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def _process(
    command: Sequence[str],
    folder: str,
    is_ready: Callable[[], bool],
    owner: dict[str, Any] | None = None,
    *,
    interrupt: bool = False,
) -> Iterator[None]:
    """Run a program during a `with`. Raises BenchError if it does not become ready."""
    processor = processors()[1]
    pinned = ["taskset", "--cpu-list", str(processor)] if processor is not None else []
    with tempfile.TemporaryFile(prefix="bench-service-") as log:
        process = subprocess.Popen(
            [*pinned, *command],
            cwd=folder,
            env=_environ(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **(owner or {}),
        )
        try:
            _wait(process, Path(command[0]).name, is_ready, log)
            yield
        finally:
            _stop(process, interrupt=interrupt)


def _wait(
    process: subprocess.Popen[bytes], name: str, is_ready: Callable[[], bool], log: IO[bytes]
) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not is_ready():
        if process.poll() is not None:
            log.seek(0)
            last = log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            said = (last or ["nothing in its log"])[0]
            raise BenchError(f"{name} has ended with status {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise BenchError(f"{name} is not ready after {START_TIMEOUT:g} s")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes], *, interrupt: bool) -> None:
    if interrupt:
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environ() -> dict[str, str]:
    """Return the environment without the settings of PostgreSQL, and with English messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _call(
    command: Sequence[str], folder: str, owner: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=_environ(), capture_output=True, text=True, check=False, **owner
    )


def _run(command: Sequence[str], folder: str, owner: dict[str, Any]) -> None:
    """Run a command. Raises BenchError with its output if it fails."""
    done = _call(command, folder, owner)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no reason given"]
        said = [line for line in lines if "error" in line.lower()] or lines
        raise BenchError(f"{Path(command[0]).name} failed: {said[0][:300]}")
