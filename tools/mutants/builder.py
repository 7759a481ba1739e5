"""Copies the checkout, and builds the core in the copy: first completely, then object by object."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .mutation import digest

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build" / "mutants"
_CC = os.environ.get("CC", "cc")
# These mutants do not count: a missing `return` or value has an undefined effect.
_REFUSED = ["-Werror=return-type", "-Werror=uninitialized"]
_PLAIN, _CHECKED, COVERED = "plain", "checked", "covered"
THREADS = "threads/stress"  # the C test with several files: those in tests/c/threads, and
_WITH_THREADS = ("audit.c", "check.c")
_SANITIZERS = "address,undefined"
_HEADERS = ("csrc", "tests/c")  # the core includes only the first
_COVERAGE = ["-O0", "-g", "--coverage", "-fprofile-update=atomic"]


class BuildError(Exception):
    """The unchanged sources do not build."""


def copied_files() -> list[str]:
    """Return the files that git knows or would add, and the downloaded sources."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    vendored = (PROJECT / "csrc" / "vendor").rglob("*")
    return [
        *(name for name in found.split("\0") if name and (PROJECT / name).is_file()),
        *(str(file.relative_to(PROJECT)) for file in vendored if file.is_file()),
    ]


class Tree:
    """A copy of the checkout for one mutation at a time."""

    def __init__(self, number: int | str) -> None:
        self.origin = PROJECT
        self.root = BUILD / f"tree-{number}"
        self.programs = BUILD / f"programs-{number}"
        self.objects = BUILD / "objects"
        self.mutated: dict[str, Path] = {}  # kind of object -> the mutated object
        self.source = ""
        self._linked: dict[Path, tuple[object, ...]] = {}  # file -> its last link
        self._lock = threading.Lock()
        self.extension = self.root / "src" / "picowsgi" / _extension().name
        for folder in (self.root, self.programs, self.objects):
            folder.mkdir(parents=True, exist_ok=True)
        self._copy()
        sources = sorted((self.root / "csrc").glob("*.c"))
        self.core = [str(file.relative_to(self.root)) for file in sources]
        headers = {name: digest(*map(Path.read_text, self._headers(name))) for name in _HEADERS}
        self.headers = {True: headers["csrc"], False: digest(*headers.values())}

    def _headers(self, folder: str) -> list[Path]:
        return sorted((self.root / folder).rglob("*.h"))

    def _copy(self) -> None:
        wanted = set(copied_files())
        for name in wanted:
            source, target = PROJECT / name, self.root / name
            if not target.exists() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        for target in self.root.rglob("*"):
            name = str(target.relative_to(self.root))
            if target.is_file() and name not in wanted and target.suffix in {".c", ".h", ".py"}:
                target.unlink()

    # ------------------------------------------------------------ objects

    def _compile(self, source: str, kind: str, target: Path) -> bool:
        command = [_CC, *_flags(self.root, source, kind), "-c", "-o", str(target), source]
        done = subprocess.run(command, cwd=self.root, check=False, capture_output=True, text=True)
        self.errors = done.stderr
        return done.returncode == 0

    def object(self, source: str, kind: str) -> Path:
        """Return the object of an unchanged source. Compile it if there is none yet."""
        if source == self.source and kind in self.mutated:
            return self.mutated[kind]
        text = (self.root / source).read_text()
        headers = self.headers[source.startswith("csrc/")]
        key = digest(text, headers, *_flags(self.root, source, kind))
        target = self.objects / f"{Path(source).stem}-{kind}-{key}.o"
        if not target.exists():
            made = target.with_name(f"{target.name}.{os.getpid()}.{id(self)}")
            if kind == COVERED:  # gcov finds its files by the name of the object
                made = target
            if not self._compile(source, kind, made):
                raise BuildError(self.errors)
            made.replace(target)
        return target

    def take_extension(self) -> None:
        """Use the extension module of the checkout, because no C file will change."""
        shutil.copy2(_extension(), self.extension)

    def build(self) -> None:
        """Build the unchanged core and its extension module."""
        for source in self.core:
            self.object(source, _CHECKED)
            self.object(source, _PLAIN)
        self.link_extension()

    def mutate(self, source: str, text: str) -> str:
        """Compile a mutated C file. Return the reason why it is no mutant, or ""."""
        original = self.object(source, _PLAIN).read_bytes()
        unchanged = (self.root / source).read_text()
        plain, checked = self.programs / "mutant-plain.o", self.programs / "mutant-checked.o"
        try:
            (self.root / source).write_text(text)
            if not self._compile(source, _PLAIN, plain):
                return "does not compile"
            if plain.read_bytes() == original:
                return "the same object code"
            if not self._compile(source, _CHECKED, checked):
                return "does not compile"
        finally:
            (self.root / source).write_text(unchanged)
        self.source, self.mutated = source, {_PLAIN: plain, _CHECKED: checked}
        return ""

    def restore(self) -> None:
        """Use the unchanged objects again."""
        self.source, self.mutated = "", {}

    # ------------------------------------------------------------ linking

    def program(self, name: str, kind: str = _CHECKED) -> list[str]:
        """Link tests/c/NAME.c with the current core. Return the command that runs it."""
        threads = name == THREADS
        folder = self.root / "tests" / "c"
        files = sorted(folder.glob("*.c"))
        if threads:
            files = [*folder.glob("threads/*.c"), *(folder / name for name in _WITH_THREADS)]
        sources = [str(file.relative_to(self.root)) for file in files]
        sources = [
            one for one in sources if threads or "/test_" not in one or one.endswith(f"/{name}.c")
        ]
        target = self.programs / Path(name).name
        with self._lock:
            if kind == COVERED:
                objects = [str(self.object(source, kind)) for source in [*sources, *self.core]]
                extra = ["--coverage", "-pthread", *([] if threads else _c_link(self.root))]
            else:
                wraps = [] if threads else _c_link(self.root)
                core = self._link_core(wraps)
                objects = [*(str(self.object(source, kind)) for source in sources), str(core)]
                extra = [f"-fsanitize={_SANITIZERS}", "-pthread", "-Wl,-rpath,$ORIGIN", *wraps]
            self._link_once(target, [*objects, *extra])
            return [str(target), str(self._corpus())]

    def _link_core(self, extra: list[str]) -> Path:
        """Link the core as a library, so a mutant needs one link, and not one for each program."""
        target = self.programs / ("libwrapped.so" if extra else "libcore.so")
        objects = [str(self.object(source, _CHECKED)) for source in self.core]
        self._link_once(target, ["-shared", *objects, f"-fsanitize={_SANITIZERS}", *extra])
        return target

    def _link_once(self, target: Path, words: list[str]) -> None:
        """Link a file, unless its objects are the same as in the last link.

        A program need not be linked again when the library changes.
        """
        made = (*words, *self._versions(words))
        if self._linked.get(target) != made or not target.exists():
            new = target.with_name(f"{target.name}.new")
            soname = [f"-Wl,-soname,{target.name}"] if target.suffix == ".so" else []
            self._link([_CC, "-o", str(new), *words, *soname])
            new.replace(target)
            self._linked[target] = made

    def _versions(self, words: list[str]) -> Iterator[int]:
        """Yield the times of mutated objects, whose contents change under the same name."""
        mutated = {str(path) for path in self.mutated.values()}
        yield from (Path(word).stat().st_mtime_ns for word in words if word in mutated)

    def link_extension(self, kind: str = _PLAIN) -> None:
        """Link the extension module into the copy."""
        sources = [str(self._generated()), *self.core]
        objects = [str(self.object(source, kind)) for source in sources]
        made = self.extension.with_suffix(".new")
        extra = ["--coverage"] if kind == COVERED else []
        self._link([_CC, "-shared", "-o", str(made), *objects, "-pthread", *extra])
        made.replace(self.extension)

    def _link(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self.root, check=False, capture_output=True, text=True)
        if done.returncode:
            raise BuildError(done.stderr)

    @cache  # noqa: B019
    def _generated(self) -> Path:
        """Generate the C source of the extension module. Return its path in the copy."""
        target = Path("build") / "picowsgi._core.c"
        (self.root / target).parent.mkdir(exist_ok=True)
        emit = f"import build_core; build_core.ffibuilder.emit_c_code({str(target)!r})"
        environ = {**os.environ, "PYTHONPATH": "tools"}
        subprocess.run([sys.executable, "-c", emit], cwd=self.root, check=True, env=environ)
        return target

    @cache  # noqa: B019
    def _corpus(self) -> Path:
        target = self.root / "build" / "corpus"
        shutil.rmtree(target, ignore_errors=True)
        environ = {**os.environ, "PYTHONPATH": "tests"}
        command = [sys.executable, "-m", "wire.export", str(target)]
        subprocess.run(command, cwd=self.root, check=True, env=environ, capture_output=True)
        return target


def _c_link(root: Path) -> list[str]:
    """The linker flags of the C tests in tools/c.mk."""
    text = (root / "tools" / "c.mk").read_text().replace("\\\n", " ")
    found = re.search(r"^C_WRAPPED := (.*)$", text, re.MULTILINE)
    return [f"-Wl,--wrap={name}" for name in (found.group(1).split() if found else ())]


def _extension() -> Path:
    import picowsgi._core

    return Path(picowsgi._core.__file__)


@cache
def _printed_flags(root: Path, kind: str) -> dict[str, list[str]]:
    """Return the flags of each C file from tools/flags.py, by its name."""
    environ = {**os.environ, "PICOWSGI_DEV": "0", "PICOWSGI_EMULATE": "", "PYTHONPATH": "tools"}
    environ["PICOWSGI_SANITIZE"] = _SANITIZERS if kind == _CHECKED else ""
    names = ["picowsgi._core.c", *(path.name for path in root.glob("*/**/*.c"))]
    asked = "import flags, json, sys; names = sys.argv[1:]; "
    asked += "print(json.dumps({name: flags.compile_flags(name) for name in names}))"
    command = [sys.executable, "-c", asked, *sorted(set(names))]
    printed = subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True, env=environ
    ).stdout
    found: dict[str, list[str]] = json.loads(printed)
    return found


@cache
def _flags(root: Path, source: str, kind: str) -> tuple[str, ...]:
    flags = [*_printed_flags(root, kind)[Path(source).name], "-Icsrc", *_REFUSED]
    if kind == _CHECKED:  # for a library
        flags += ["-fPIC", "-fvisibility=default"]
    else:  # as setuptools compiles an extension
        flags = [*shlex.split(sysconfig.get_config_var("CFLAGS") or ""), "-fPIC", *flags]
        flags.append(f"-I{sysconfig.get_path('include')}")
    if kind == COVERED:
        flags += _COVERAGE
    # The copies share objects, so the flags must not contain the name of the folder.
    return tuple(flag for flag in flags if not flag.startswith("-ffile-prefix-map="))
