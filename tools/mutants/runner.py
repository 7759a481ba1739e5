"""Tests one mutant: builds it, runs the likely tests, and returns the test that noticed it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from . import likely, process
from .builder import BuildError, Tree
from .known import Memory
from .mutation import Mutation

_PROGRAM_LIMIT = 30  # seconds for a C test without a mutation; the slowest takes six
_PROGRAM_LEAST = 5  # seconds; the least limit for a C test with a mutation
_PROGRAM_TIMES = 6  # its usual limit, as a multiple of its time without a mutation
_UNIT_LIMIT = 90  # for the unit tests of a Python file
_LEARNED_LIMIT = 90  # for the tests that noticed a mutant before
_SET_LIMIT = 400  # for the likely tests
_FULL_LIMIT = 1800
_TEST_LIMIT = 20  # for one test of pytest; less than the limit for a mutant in CI
_TRIES = 2  # runs of a test without a mutation, because the machine may be busy
_FAILED_MOST = 5  # tests that may fail without a mutation before the run ends
_OURS = "not measured and not browser"  # the others depend on the machine
_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$", re.MULTILINE)
_NO_TESTS = {4, 5}  # exit codes of pytest: a test does not exist, or all were deselected

NOTICED, SURVIVED, NONE, UNFINISHED = "noticed", "survived", "none", "unfinished"


@dataclass(frozen=True)
class Result:
    mutation: Mutation
    status: str
    by: str = ""  # the test, or the reason why it is no mutant
    seconds: float = 0.0
    known: bool = False


@dataclass
class Options:
    full: bool = False
    each: float = 0.0  # seconds for the tests of one mutant; 0: no limit
    deadline: float = 0.0  # end of the whole run, monotonic; 0: none
    workers: int = 2  # of pytest
    again: bool = False


@dataclass
class Sound:
    """The tests that pass or fail without a mutation."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)  # run time of a C test that passes


class Runner:
    """Tests mutants in one copy of the checkout. Only one thread uses it."""

    def __init__(self, tree: Tree, memory: Memory, options: Options, sound: Sound) -> None:
        self.tree, self.memory, self.options, self.sound = tree, memory, options, sound
        self.ends = 0.0
        self.pristine = tree.programs / "pristine.so"
        if tree.extension.exists():
            shutil.copy2(tree.extension, self.pristine)

    def tests(self, file: str) -> list[str]:
        """Return all tests for a mutant of this file."""
        root = self.tree.root
        programs = likely.c_tests(root, file) if file.endswith(".c") else ([], [])
        python = likely.python_tests(root, file)
        every = likely.all_python_tests(root) if self.options.full else []
        return [
            *(f"tests/c/{name}.c" for names in programs for name in names),
            *chain(*python, every),
        ]

    def test(self, one: Mutation) -> Result:
        """Return the result for a mutation. A known result needs no test."""
        tests = self.tests(one.file)
        found = None if self.options.again else self.memory.result(one, tests)
        if found is not None:
            by = ", ".join(found.get("by", ())) or found.get("reason", "")
            return Result(one, found["status"], by, found.get("seconds", 0.0), known=True)
        began = time.monotonic()
        self.ends = began + self.options.each if self.options.each else 0.0
        source = (self.tree.root / one.file).read_text()
        try:
            reason = self._make(one, source)
            if reason:
                self.memory.keep(one, NONE, [], reason=reason)
                return Result(one, NONE, reason)
            stages = self._stages(one)
            by = next((by for stage in stages for by in stage if by), "")
        finally:
            self._restore(one, source)
        seconds = time.monotonic() - began
        if by:
            self.memory.keep(one, NOTICED, [by], seconds=seconds)
            return Result(one, NOTICED, by, seconds)
        if self._is_late():  # a test that hangs would have noticed it
            return Result(one, UNFINISHED, "", seconds)
        self.memory.keep(one, SURVIVED, tests, seconds=seconds)
        return Result(one, SURVIVED, "", seconds)

    def check_unchanged(self, *, with_programs: bool) -> None:
        """Run a few tests without a mutation. Raises BuildError if one of them fails."""
        if with_programs and not self._is_sound("test_buffer"):
            raise BuildError("tests/c/test_buffer.c fails")
        where = "import picowsgi._core as core; print(core.__file__)"
        command, environ = [sys.executable, "-c", where], _environ(self.tree.root)
        ended = process.run(command, self.tree.root, 60, environ=environ, checked=False)
        if ended.output.strip() != str(self.tree.extension):
            raise BuildError(f"Python imports another core: {ended.output}")
        ended = self._run_pytest(["tests/e2e/test_health.py"], 0, _LEARNED_LIMIT)
        if ended.code != 0:
            raise BuildError(ended.output)

    # ------------------------------------------------------------ the mutant

    def _make(self, one: Mutation, source: str) -> str:
        if one.file.endswith(".c"):
            return self.tree.mutate(one.file, one.apply(source))
        self._write(self.tree.root / one.file, one.apply(source))
        return ""

    def _restore(self, one: Mutation, source: str) -> None:
        if one.file.endswith(".c"):
            self.tree.restore()
            shutil.copy2(self.pristine, self.tree.extension)
        else:
            self._write(self.tree.root / one.file, source)

    stamp = 0

    def _write(self, path: Path, text: str) -> None:
        """Write a file with a new time, because Python notices changes by size and second."""
        path.write_text(text)
        Runner.stamp = max(int(time.time()), Runner.stamp + 1)
        os.utime(path, (Runner.stamp, Runner.stamp))

    # ------------------------------------------------------------ the tests

    def _stages(self, one: Mutation) -> Iterator[Iterator[str]]:
        """Yield groups of tests, the likely ones first. A group yields the test that notices."""
        root, workers = self.tree.root, self.options.workers
        learned = self.memory.learned(one.file)
        programs = likely.c_tests(root, one.file) if one.file.endswith(".c") else ([], [])
        python = likely.python_tests(root, one.file)
        before = [test.removeprefix("tests/c/").removesuffix(".c") for test in learned]
        before = [name for name in before if name in programs[0] + programs[1]]
        first = list(dict.fromkeys([*before, *programs[0]]))
        yield self._programs([*first, *(name for name in programs[1] if name not in first)])
        units = [] if one.file.endswith(".c") else likely.unit_tests(root, one.file)
        yield self._pytest(one, units, 0, _UNIT_LIMIT)
        noticed = self.memory.learned_python(one.file)
        others = [test for test in noticed if test.split("::")[0] not in units]
        yield self._pytest(one, others, 0, _LEARNED_LIMIT)
        yield self._pytest(
            one, [name for name in python[0] if name not in units], workers, _SET_LIMIT
        )
        yield self._pytest(one, python[1], workers, _SET_LIMIT)
        if self.options.full:
            tests = likely.all_python_tests(root)
            rest = [name for name in tests if name not in python[0] + python[1]]
            yield self._pytest(one, rest, workers, _FULL_LIMIT)

    def _programs(self, names: list[str]) -> Iterator[str]:
        """Run the C tests first and several at a time, because they take only seconds."""
        names = [name for name in names if f"tests/c/{name}.c" not in self.sound.failed]
        left, failed = iter(names), list[str]()
        lock = threading.Lock()

        def work() -> None:
            while not failed and not self._is_late():
                with lock:
                    name = next(left, None)
                if name is None:
                    return
                if not self._program_passes(name):
                    failed.append(name)

        with ThreadPoolExecutor(max(self.options.workers, 1)) as pool:
            for done in [pool.submit(work) for _ in range(max(self.options.workers, 1))]:
                done.result()
        for name in failed:
            if self._is_sound(name):
                yield f"tests/c/{name}.c"
        if failed:  # these fail without a mutation, too: run the tests that are left
            yield from self._programs([name for name in names if name not in failed])

    def _program_passes(self, name: str) -> bool:
        command = self.tree.program(name)
        seconds = self.sound.seconds.get(name)
        ended = process.run(
            command,
            self.tree.root,
            _PROGRAM_LIMIT if seconds is None else max(_PROGRAM_LEAST, _PROGRAM_TIMES * seconds),
            environ=_environ(self.tree.root),
            checked=True,
        )
        if ended.code == 0:
            self.sound.seconds[name] = max(ended.seconds, self.sound.seconds.get(name, 0))
        return ended.code == 0

    def _is_sound(self, name: str) -> bool:
        """Return whether a C test passes with the unchanged core."""
        test = f"tests/c/{name}.c"
        if test not in self.sound.passed | self.sound.failed:
            mutated = self.tree.source, self.tree.mutated
            self.tree.restore()
            passes = any(self._program_passes(name) for _ in range(_TRIES))
            self.tree.source, self.tree.mutated = mutated
            (self.sound.passed if passes else self.sound.failed).add(test)
        return test in self.sound.passed

    def _pytest(self, one: Mutation, tests: list[str], workers: int, limit: float) -> Iterator[str]:
        if not tests or self._is_late():
            return
        if one.file.endswith(".c"):
            self.tree.link_extension()
        while True:
            tests = [test for test in tests if test not in self.sound.failed]
            left = min([limit, *(end - time.monotonic() for end in self._ends())])
            if left <= 0 or not tests:
                return
            ended = self._run_pytest(tests, workers, left)
            if ended.code in _NO_TESTS and workers == 0:
                for test in tests:
                    self.memory.forget(one.file, test)
                return
            if ended.code == 0 or ended.code in _NO_TESTS:
                return
            if ended.code is None:
                if left == limit:
                    yield f"a time limit of {limit} s: {tests[0]}"
                return
            failed = _FAILED.search(ended.output)
            test = failed.group(1) if failed else tests[0]  # the interpreter has crashed
            if self._test_is_sound(one, test):
                yield test
                return
            # The test is skipped from now on, and listed at the end.

    def _run_pytest(self, tests: list[str], workers: int, seconds: float) -> process.Ended:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", f"-n{workers}"]
        command += ["-p", "no:cacheprovider", "--reruns=0", f"--timeout={_TEST_LIMIT}", "-m", _OURS]
        command += [f"--deselect={test}" for test in sorted(self.sound.failed) if "::" in test]
        command += tests
        environ = _environ(self.tree.root)
        return process.run(command, self.tree.root, seconds, environ=environ, checked=False)

    def _test_is_sound(self, one: Mutation, test: str) -> bool:
        """Return whether a test passes in the unchanged tree."""
        if test not in self.sound.passed | self.sound.failed:
            path = self.tree.root / one.file
            mutated = path.read_text()
            if one.file.endswith(".c"):
                shutil.copy2(self.pristine, self.tree.extension)
            else:
                self._write(path, (self.tree.origin / one.file).read_text())
            # A test counts as passed if pytest does not find it by its name.
            passes = any(
                self._run_pytest([test], 0, _LEARNED_LIMIT).code in {0, *_NO_TESTS}
                for _ in range(_TRIES)
            )
            (self.sound.passed if passes else self.sound.failed).add(test)
            if len(self.sound.failed) > _FAILED_MOST:
                raise BuildError(f"many tests fail without a mutation: {self.sound.failed}")
            if one.file.endswith(".c"):
                self.tree.link_extension()
            else:
                self._write(path, mutated)
        return test in self.sound.passed

    def _ends(self) -> list[float]:
        return [end for end in (self.ends, self.options.deadline) if end]

    def _is_late(self) -> bool:
        return any(time.monotonic() >= end for end in self._ends())


def _environ(root: Path) -> dict[str, str]:
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTEST_ADDOPTS", "MAKEFLAGS"}
    }
    return {**environ, "PYTHONPATH": str(root / "src")}
