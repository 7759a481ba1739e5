"""Installs what a measurement needs: a venv with the servers, C programs, and tools from Debian.

Never changes anything outside bench/.cache, except by apt-get if the user asks for it.
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
#: The frameworks of the applications.
FRAMEWORKS = ("flask", "django")
#: The Debian package of each program. Programs that are not in `REQUIRED` are optional.
TOOLS = {
    "wrk": "wrk",
    "taskset": "util-linux",
    "nginx": "nginx-light",
    "strace": "strace",
    "postgres": "postgresql",
}
REQUIRED = ("wrk", "taskset")
#: Debian has a folder for each version of PostgreSQL here.
POSTGRES = Path("/usr/lib/postgresql")
#: The headers that bjoern and uWSGI need, with their packages.
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
    """The Python that runs the servers, and its venv."""

    venv: Path
    facts: dict[str, str]

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def version(self) -> str:
        return self.facts["version"]


def provide_venv(python: str, say: Say) -> Interpreter:
    """Return the venv of this Python; create it if needed. Raises BenchError if Python fails."""
    try:
        done = subprocess.run([python, "-c", _INTERPRETER], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{python} does not run as a Python: {error}") from error
    facts = json.loads(done.stdout)
    name = f"{facts['implementation'].lower()}-{facts['version']}{'' if facts['gil'] else 't'}"
    venv = CACHE / name
    if not (venv / "ready").exists():
        say(f"creating a venv for {facts['implementation']} {facts['version']}")
        shutil.rmtree(venv, ignore_errors=True)
        _run([python, "-m", "venv", str(venv)])
        _pip(venv, "--upgrade", "pip", "setuptools<81", "wheel", "cffi")
        (venv / "ready").touch()
    return Interpreter(venv, facts)


def interpreter_of(server: Server, others: Interpreter) -> Interpreter:
    """Return the Python for a server. Raises BenchError if it needs PyPy and PyPy is missing."""
    if not server.pypy:
        return others
    python = _run([sys.executable, str(PROJECT / "tools" / "pypy.py"), "--cached"]).strip()
    if not python:
        raise BenchError("PyPy is missing; to install it, run: python tools/pypy.py")
    return _provide_pypy(python)


@cache
def _provide_pypy(python: str) -> Interpreter:
    return provide_venv(python, lambda _text: None)


def install_servers(
    interpreter: Interpreter, servers: Iterable[Server], say: Say
) -> dict[str, str]:
    """Install what is missing. Return the reasons, by the names of the servers that failed."""
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
    """Install each package once. A stamp marks it as installed: later runs need no network."""
    for requirement in requirements:
        name = "".join(letter if letter.isalnum() else "_" for letter in requirement)
        stamp = interpreter.venv / "stamps" / name
        if not stamp.exists():
            say(f"installing {requirement}")
            _pip(interpreter.venv, requirement)
            stamp.parent.mkdir(exist_ok=True)
            stamp.touch()


def _install_picowsgi(interpreter: Interpreter, say: Say) -> None:
    """Build the current working tree with release flags, in a copy that has no old objects."""
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
    """Copy the sources that a build of picowsgi needs, without the files of earlier builds."""
    ignored = shutil.ignore_patterns("*.so", "*.o", "__pycache__", "*.egg-info")
    for name in _SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy2(source, to / name)


def tree_digest() -> str:
    """Return the SHA-256 of all files that a build uses."""
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
    """Compile bench/c/NAME.c with the flags of the core, if it or the core has changed."""
    source = PROJECT / "bench" / "c" / f"{name}.c"
    core = sorted((PROJECT / "csrc").glob("*.c")) if with_core else []
    program = CACHE / name
    stamp = CACHE / f"{name}.sha256"
    digest = hashlib.sha256(source.read_bytes() + tree_digest().encode()).hexdigest()
    if program.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return program
    if core and not (PROJECT / "csrc" / "vendor" / "picohttpparser").exists():
        raise BenchError("csrc/vendor is missing; to fetch it, run: python tools/vendor.py")
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
        partial = program.with_name(f"{name}.{os.getpid()}")  # another run may compile it, too
        _run([compiler, *kind, "-o", str(partial), *objects])
        partial.replace(program)
    stamp.write_text(digest, encoding="ascii")
    return program


def _flags(source: Path) -> list[str]:
    printed = _run([sys.executable, str(PROJECT / "tools" / "flags.py"), str(source)])
    return [word for word in printed.split() if not word.startswith("-Werror")]


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the folders for root and for PostgreSQL."""
    path = os.environ.get("PATH", os.defpath)
    postgres = sorted(POSTGRES.glob("*/bin"), key=_version_of, reverse=True)
    more = ["/usr/sbin", "/sbin", *map(str, postgres)]
    return shutil.which(name, path=os.pathsep.join([path, *more]))


def _version_of(folder: Path) -> list[int]:
    """Return the version in the name of a folder like 15/bin."""
    return [int(number) for number in re.findall(r"\d+", folder.parent.name)]


def check_tools(say: Say, *, install: bool) -> None:
    """Raises BenchError if a required program is missing.

    With `install`, root installs all missing packages with apt-get, also the optional ones.
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
        raise BenchError(f"missing: {' and '.join(missing)}; no measurement works without")


def versions(interpreter: Interpreter) -> dict[str, str]:
    """Return the version of every distribution in the venv, by its normalized name."""
    listed = _run([str(interpreter.python), "-m", "pip", "list", "--format=json"])
    return {
        entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)
    }


def tool_versions() -> dict[str, str]:
    """Return the versions that the programs print."""
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
    """Return its standard output. Raises BenchError with the most useful line of its errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if "error" in line.lower()] or lines or ["no reason given"]
        raise BenchError(f"{Path(command[0]).name} failed: {said[0][:300]}")
    return done.stdout
