"""Gets what a measurement needs: a venv with the servers, the C programs, and tools from Debian.

Never touches anything outside bench/.cache, but for apt-get, and that only when it is asked to.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.process import BenchError
from bench.servers import Server

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / "bench" / ".cache"
APPS = PROJECT / "bench" / "apps"
#: What the applications of the scenarios need.
FRAMEWORKS = ("flask", "django")
#: Programs, and the Debian package of each. All but `REQUIRED` are optional.
TOOLS = {
    "wrk": "wrk",
    "taskset": "util-linux",
    "nginx": "nginx-light",
    "strace": "strace",
    "postgres": "postgresql",
}
REQUIRED = ("wrk", "taskset")
#: Where Debian has a folder for each version of PostgreSQL.
POSTGRES = Path("/usr/lib/postgresql")
#: What bjoern and uWSGI are compiled with.
LIBRARIES = {"/usr/include/ev.h": "libev-dev"}

_SOURCES = ("csrc", "src", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE")
_INTERPRETER = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(), "implementation": platform.python_implementation(),
    "compiler": platform.python_compiler(),
    "optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
    "gil": bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
}))
"""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Interpreter:
    """The Python that the servers run on, with a venv of its own."""

    venv: Path
    facts: dict[str, str]

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def version(self) -> str:
        return self.facts["version"]


def provide_venv(python: str, say: Say) -> Interpreter:
    """The venv for this interpreter, made where it is new. Raises BenchError."""
    try:
        done = subprocess.run([python, "-c", _INTERPRETER], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{python} is not a Python that runs: {error}") from error
    facts = json.loads(done.stdout)
    name = f"{facts['implementation'].lower()}-{facts['version']}{'' if facts['gil'] else 't'}"
    venv = CACHE / name
    if not (venv / "ready").exists():
        say(f"making a venv for {facts['implementation']} {facts['version']}")
        shutil.rmtree(venv, ignore_errors=True)
        _run([python, "-m", "venv", str(venv)])
        _pip(venv, "--upgrade", "pip", "setuptools<81", "wheel", "cffi")
        (venv / "ready").touch()
    return Interpreter(venv, facts)


def interpreter_of(server: Server, others: Interpreter) -> Interpreter:
    """What a server runs on. Raises BenchError where that is PyPy, and there is none."""
    if not server.pypy:
        return others
    python = _run([sys.executable, str(PROJECT / "tools" / "pypy.py"), "--cached"]).strip()
    if not python:
        raise BenchError("PyPy is missing: python tools/pypy.py gets it")
    return _provide_pypy(python)


@cache
def _provide_pypy(python: str) -> Interpreter:
    return provide_venv(python, lambda _text: None)


def install_servers(
    interpreter: Interpreter, servers: Iterable[Server], say: Say
) -> dict[str, str]:
    """Install what is missing. Returns the reasons by the names of servers that failed."""
    missing = {}
    try:
        require(interpreter, FRAMEWORKS, say)
    except BenchError as error:
        raise BenchError(f"the frameworks cannot be installed: {error}") from error
    for server in servers:
        try:
            its = interpreter_of(server, interpreter)
            require(its, FRAMEWORKS, say)
            if server.kind == "picowsgi":
                _install_picowsgi(its, say)
            require(its, server.requires, say)
            if server.program and not find_program(server.program):
                package = TOOLS[server.program]
                raise BenchError(f"{server.program} is missing: apt-get install {package}")
            if server.name == "core":
                build_program("core_alone", say, with_core=True)
        except BenchError as error:
            missing[server.name] = str(error)
            say(f"{server.name} cannot be installed: {error}")
    return missing


def require(interpreter: Interpreter, requirements: Iterable[str], say: Say) -> None:
    """Install each once: a stamp says that it is there, so that no run needs the network."""
    for requirement in requirements:
        name = "".join(letter if letter.isalnum() else "_" for letter in requirement)
        stamp = interpreter.venv / "stamps" / name
        if not stamp.exists():
            say(f"installing {requirement}")
            _pip(interpreter.venv, requirement)
            stamp.parent.mkdir(exist_ok=True)
            stamp.touch()


def _install_picowsgi(interpreter: Interpreter, say: Say) -> None:
    """The working tree as it is now, with release flags, built from a copy: no stale objects."""
    digest = tree_digest()
    stamp = interpreter.venv / "stamps" / "picowsgi"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return
    say("building picowsgi from the working tree")
    with tempfile.TemporaryDirectory(prefix="bench-build-") as name:
        copy_sources(Path(name))
        _pip(interpreter.venv, "--force-reinstall", "--no-deps", "--no-build-isolation", name)
    _pip(interpreter.venv, "click>=8.1", "tomli>=2; python_version < '3.11'")
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(digest, encoding="ascii")


def copy_sources(to: Path) -> None:
    """What a build of picowsgi needs, without what earlier builds have left."""
    ignored = shutil.ignore_patterns("*.so", "*.o", "__pycache__", "*.egg-info")
    for name in _SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy2(source, to / name)


def tree_digest() -> str:
    """Names the working tree: SHA-256 of all that a build takes."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = PROJECT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in {".py", ".pyi", ".c", ".h", ".toml", ".typed"} and file.is_file():
                digest.update(f"{file.relative_to(PROJECT)}\0".encode())
                digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def build_program(name: str, say: Say, *, with_core: bool = False, shared: bool = False) -> Path:
    """Compile bench/c/NAME.c, where it or the core has changed, with the core's own flags."""
    source = PROJECT / "bench" / "c" / f"{name}.c"
    core = sorted((PROJECT / "csrc").glob("*.c")) if with_core else []
    program = CACHE / name
    stamp = CACHE / f"{name}.sha256"
    digest = hashlib.sha256(source.read_bytes() + tree_digest().encode()).hexdigest()
    if program.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return program
    if core and not (PROJECT / "csrc" / "vendor" / "picohttpparser").exists():
        raise BenchError("csrc/vendor is missing: `make` anything first, which fetches it")
    say(f"compiling bench/c/{name}.c")
    CACHE.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    with tempfile.TemporaryDirectory(prefix="bench-build-") as folder:
        objects = []
        for file in [*core, source]:
            built = Path(folder) / f"{file.stem}.o"
            includes = [f"-I{PROJECT / 'csrc'}", "-include", "stdint.h"]
            flags = [*_flags(file), *(["-fPIC", "-fvisibility=default"] if shared else [])]
            _run([compiler, *flags, *includes, "-c", "-o", str(built), str(file)])
            objects.append(str(built))
        kind = ["-shared"] if shared else ["-pthread"]
        partial = program.with_name(f"{name}.{os.getpid()}")  # another run may be at it too
        _run([compiler, *kind, "-o", str(partial), *objects])
        partial.replace(program)
    stamp.write_text(digest, encoding="ascii")
    return program


def _flags(source: Path) -> list[str]:
    printed = _run([sys.executable, str(PROJECT / "tools" / "flags.py"), str(source)])
    return [word for word in printed.split() if not word.startswith("-Werror")]


def find_program(name: str) -> str | None:
    """The path of a program, also where only root looks, and where Debian puts PostgreSQL's."""
    path = os.environ.get("PATH", os.defpath)
    postgres = sorted(POSTGRES.glob("*/bin"), key=_version_of, reverse=True)
    more = ["/usr/sbin", "/sbin", *map(str, postgres)]
    return shutil.which(name, path=os.pathsep.join([path, *more]))


def _version_of(folder: Path) -> list[int]:
    """The numbers of a folder like 15/bin."""
    return [int(number) for number in re.findall(r"\d+", folder.parent.name)]


def check_tools(say: Say, *, install: bool) -> None:
    """Raises BenchError where a program is missing without which nothing can be measured.

    `install` gets what is missing, the optional ones too, with apt-get; only root can.
    """
    wanted = [package for name, package in TOOLS.items() if not find_program(name)]
    wanted += [package for header, package in LIBRARIES.items() if not Path(header).exists()]
    if not wanted:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    if install and os.geteuid() == 0 and shutil.which("apt-get"):
        say(" ".join(command))
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["apt-get", "--quiet", "--quiet", "update"], command):
            if subprocess.run(words, check=False, env=environ, stdout=sys.stderr).returncode:
                break
    else:
        say(f"missing: {' '.join(wanted)}; on Debian and Ubuntu: {' '.join(command)}")
    missing = [name for name in REQUIRED if not find_program(name)]
    if missing:
        raise BenchError(f"nothing can be measured without {' and '.join(missing)}")


def versions(interpreter: Interpreter) -> dict[str, str]:
    """Every distribution in the venv and its version, by its normalized name."""
    listed = _run([str(interpreter.python), "-m", "pip", "list", "--format=json"])
    return {
        entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)
    }


def tool_versions() -> dict[str, str]:
    """What the programs say of themselves."""
    asked = {
        "wrk": ["wrk", "--version"],
        "nginx": ["nginx", "-v"],
        "strace": ["strace", "--version"],
        "postgres": ["postgres", "--version"],
        "cc": [os.environ.get("CC", "cc"), "--version"],
        "valgrind": ["valgrind", "--version"],
    }
    found = {"libc": " ".join(platform.libc_ver())}
    for name, command in asked.items():
        if program := find_program(command[0]):
            done = subprocess.run(
                [program, *command[1:]], capture_output=True, text=True, check=False
            )
            lines = (done.stdout + done.stderr).splitlines() or [""]
            found[name] = lines[0].split(" Copyright")[0].strip()
    return found


def _pip(venv: Path, *words: str) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip"]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *words])


def _run(command: list[str]) -> str:
    """Its standard output. Raises BenchError with the line of its error that says most."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if "error" in line.lower()] or lines or ["no reason given"]
        raise BenchError(f"{Path(command[0]).name} failed: {said[0][:300]}")
    return done.stdout
