"""Copies the checkout and builds the core in the copy, whole once and then one object at a time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from .mutation import digest

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build" / "mutants"
_CC = os.environ.get("CC", "cc")
# A function without its `return`, or a variable without a value, has an undefined effect.
_REFUSED = ["-Werror=return-type", "-Werror=uninitialized"]
_PLAIN, _CHECKED, COVERED = "plain", "checked", "covered"
_SANITIZERS = "address,undefined"
_COVERAGE = ["-O0", "-g", "--coverage", "-fprofile-update=atomic"]


class BuildError(Exception):
    """The unchanged sources do not build."""


def copied_files() -> list[str]:
    """What git knows or would add, and what was fetched."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    vendored = (PROJECT / "csrc" / "vendor").rglob("*")
    return [
        *(name for name in found.split("\0") if name and (PROJECT / name).is_file()),
        *(str(file.relative_to(PROJECT)) for file in vendored if file.is_file()),
    ]


class Tree:
    """A copy of the checkout, in which one mutation at a time is made."""

    def __init__(self, number: int | str) -> None:
        self.origin = PROJECT
        self.root = BUILD / f"tree-{number}"
        self.programs = BUILD / f"programs-{number}"
        self.objects = BUILD / "objects"
        self.mutated: dict[str, Path] = {}  # kind of object -> the mutated one
        self.source = ""
        self.extension = self.root / "src" / "picowsgi" / _extension_name()
        for folder in (self.root, self.programs, self.objects):
            folder.mkdir(parents=True, exist_ok=True)
        self._copy()
        sources = sorted((self.root / "csrc").glob("*.c"))
        self.core = [str(file.relative_to(self.root)) for file in sources]
        self.headers = digest(
            *(file.read_text() for name in ("csrc", "tests/c") for file in self._headers(name))
        )

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
        """The object of an unchanged source; built where there is none yet."""
        if source == self.source and kind in self.mutated:
            return self.mutated[kind]
        text = (self.root / source).read_text()
        key = digest(text, self.headers, *_flags(self.root, source, kind))
        target = self.objects / f"{Path(source).stem}-{kind}-{key}.o"
        if not target.exists():
            made = target.with_name(f"{target.name}.{os.getpid()}.{id(self)}")
            if kind == COVERED:  # the names of what gcov reads come from that of the object
                made = target
            if not self._compile(source, kind, made):
                raise BuildError(self.errors)
            made.replace(target)
        return target

    def build(self) -> None:
        """Build the unchanged core and its extension module."""
        for source in self.core:
            self.object(source, _CHECKED)
            self.object(source, _PLAIN)
        self.link_extension()

    def mutate(self, source: str, text: str) -> str:
        """Compile a mutated C file; the reason why it is no mutant, or ""."""
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
        """Take the unchanged objects again."""
        self.source, self.mutated = "", {}

    # ------------------------------------------------------------ what is linked

    def program(self, name: str, kind: str = _CHECKED) -> list[str]:
        """The command that runs tests/c/NAME.c, linked with the core as it is now."""
        helpers = [
            str(file.relative_to(self.root))
            for file in sorted((self.root / "tests" / "c").glob("*.c"))
            if not file.name.startswith("test_")
        ]
        sources = [f"tests/c/{name}.c", *helpers, *self.core]
        objects = [str(self.object(source, kind)) for source in sources]
        target = self.programs / name
        extra = [f"-fsanitize={_SANITIZERS}"] if kind == _CHECKED else ["--coverage", "-pthread"]
        self._link([_CC, *extra, "-o", str(target), *objects, *_c_link(self.root)])
        return [str(target), str(self._corpus())]

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
        """What cffi makes of csrc/api.h, as a path in the copy."""
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
    """What the Makefile links the C tests with."""
    found = re.search(r"^C_LINK := (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    return shlex.split(found.group(1)) if found else []


def _extension_name() -> str:
    import picowsgi._core

    return Path(picowsgi._core.__file__).name


@cache
def _flags(root: Path, source: str, kind: str) -> tuple[str, ...]:
    environ = {**os.environ, "PICOWSGI_DEV": "0", "PICOWSGI_EMULATE": ""}
    environ["PICOWSGI_SANITIZE"] = _SANITIZERS if kind == _CHECKED else ""
    command = [sys.executable, "tools/flags.py", Path(source).name]
    printed = subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True, env=environ
    ).stdout
    flags = [*shlex.split(printed), "-Icsrc", *_REFUSED]
    if kind != _CHECKED:  # as setuptools compiles an extension
        flags = [*shlex.split(sysconfig.get_config_var("CFLAGS") or ""), "-fPIC", *flags]
        flags.append(f"-I{sysconfig.get_path('include')}")
    if kind == COVERED:
        flags += _COVERAGE
    # The folder's name must not make objects of the copies differ.
    return tuple(flag for flag in flags if not flag.startswith("-ffile-prefix-map="))
