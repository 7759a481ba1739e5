"""tools/mutants tests mutants, remembers the results, and reports the survivors."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tools.mutants import __main__ as command_line
from tools.mutants import c_source, likely, process, python_source
from tools.mutants.builder import BuildError
from tools.mutants.known import Memory
from tools.mutants.mutation import Mutation
from tools.mutants.runner import NONE, NOTICED, SURVIVED, UNFINISHED, Options, Result, Runner, Sound

SOURCE = """\
def largest(a, b):
    size = 10
    return a if a > b else b
"""
TEST = """\
def test_the_largest():
    assert largest(1, 2) == 2 == largest(2, 1)
"""
C_SOURCE = "int f(int a)\n{\n    a += 0;\n    return a > 5;\n}\n"


class StubTree:
    """A tiny project; its one C test is a command that searches a text in the mutated source."""

    def __init__(self, root: Path) -> None:
        self.root, self.origin = root, root / "checkout"
        self.programs = root / "programs"
        self.extension = root / "src" / "core.so"
        self.source, self.mutated = "", {}
        for name, text in {
            "src/thing.py": SOURCE,
            "csrc/thing.c": C_SOURCE,
            "tests/unit/test_thing.py": TEST,
            "tests/c/test_thing.c": "",
            "src/core.so": "",
            "programs/none": "",
        }.items():
            for folder in (self.root, self.origin):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)

    def mutate(self, _source: str, text: str) -> str:
        if "a -= 0" in text or "a += 1" in text:
            return "the same object code"
        self.source, self.mutated = text, {"plain": self.root}
        return ""

    def restore(self) -> None:
        self.source, self.mutated = "", {}

    def link_extension(self) -> None:
        pass

    def program(self, _name: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit({'>= 5' in self.source!r})"]


@pytest.fixture
def tree(tmp_path: Path) -> StubTree:
    return StubTree(tmp_path)


@pytest.fixture
def memory(tree: StubTree) -> Memory:
    return Memory(tree.root / "known.json", tree.root)


@pytest.fixture
def runner(tree: StubTree, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(likely, "_PYTHON_GENERAL", "")
    monkeypatch.setattr(likely, "_C_GENERAL", "")
    monkeypatch.setattr(Runner, "_run_pytest", run_tests)
    return Runner(tree, memory, Options(workers=0), Sound())


def run_tests(runner: Runner, tests: list[str], workers: int, seconds: float) -> process.Ended:
    """A fast stand-in for pytest."""
    names: dict[str, Any] = {}
    exec((runner.tree.root / "src" / "thing.py").read_text(), names)
    exec((runner.tree.root / "tests" / "unit" / "test_thing.py").read_text(), names)
    for name in [name for name in names if name.startswith("test_")]:
        test = f"tests/unit/test_thing.py::{name}"
        if test in runner.sound.failed or not any(test.startswith(one) for one in tests):
            continue
        try:
            names[name]()
        except AssertionError:
            return process.Ended(1, f"FAILED {test} - assert False\n", 0)
    return process.Ended(0, "", 0)


def c_mutation(new_line: str) -> Mutation:
    found = c_source.mutations("csrc/thing.c", C_SOURCE)
    return next(one for one in found if one.new_line == new_line)


def python_mutation(new_line: str) -> Mutation:
    pytest.importorskip("cosmic_ray")
    made = (one.make() for one in python_source.candidates("src/thing.py", SOURCE))
    return next(one for one in made if one is not None and one.new_line == new_line)


def test_a_c_mutant_is_noticed(runner: Runner) -> None:
    result = runner.test(c_mutation("return a >= 5;"))
    assert (result.status, result.by) == (NOTICED, "tests/c/test_thing.c")


def test_a_c_mutant_survives(runner: Runner) -> None:
    assert runner.test(c_mutation("return a > 6;")).status == SURVIVED


def test_a_mutant_with_the_same_object_code_does_not_count(runner: Runner) -> None:
    assert runner.test(c_mutation("a -= 0;")).status == NONE


def test_a_python_mutant_is_noticed_and_the_source_is_restored(runner: Runner) -> None:
    result = runner.test(python_mutation("return a if a <= b else b"))
    assert result.status == NOTICED
    assert result.by == "tests/unit/test_thing.py::test_the_largest"
    assert (runner.tree.root / "src" / "thing.py").read_text() == SOURCE


def test_a_python_mutant_survives(runner: Runner) -> None:
    assert runner.test(python_mutation("size = 11")).status == SURVIVED


def test_the_unit_tests_of_a_python_file_run_alone_and_first(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[list[str], int]] = []

    def note(_runner: Runner, tests: list[str], workers: int, _seconds: float) -> process.Ended:
        ran.append((tests, workers))
        return process.Ended(0, "", 0)

    for name in ("tests/e2e/test_thing.py", "tests/unit/test_other.py"):
        (runner.tree.root / name).parent.mkdir(exist_ok=True)
        (runner.tree.root / name).write_text("import thing\n")
    monkeypatch.setattr(Runner, "_run_pytest", note)
    runner.options = Options(workers=2)
    assert runner.test(python_mutation("size = 11")).status == SURVIVED
    assert ran == [
        (["tests/unit/test_thing.py"], 0),
        (["tests/e2e/test_thing.py", "tests/unit/test_other.py"], 2),
    ]


def test_a_test_that_fails_without_the_mutation_does_not_count(runner: Runner) -> None:
    broken = "\n\ndef test_of_something_else():\n    assert False\n"
    with (runner.tree.root / "tests/unit/test_thing.py").open("a") as file:
        file.write(broken)
    assert runner.test(python_mutation("size = 11")).status == SURVIVED
    assert runner.sound.failed == {"tests/unit/test_thing.py::test_of_something_else"}


def test_a_result_is_known_while_its_test_stays_the_same(runner: Runner, memory: Memory) -> None:
    one = c_mutation("return a >= 5;")
    assert not runner.test(one).known
    runner.memory = Memory(runner.tree.root / "known.json", runner.tree.root)  # another run
    assert runner.test(one).known
    assert runner.test(one).status == NOTICED
    assert runner.memory.learned("csrc/thing.c") == ["tests/c/test_thing.c"]
    (runner.tree.root / "tests/c/test_thing.c").write_text("/* new */")
    assert not runner.test(one).known


def test_a_survivor_is_tested_again_after_a_new_test(runner: Runner) -> None:
    one = c_mutation("return a > 6;")
    runner.test(one)
    assert runner.test(one).known
    (runner.tree.root / "tests/c/test_another.c").write_text("")
    assert not runner.test(one).known


def test_a_mutant_is_unfinished_after_the_deadline(runner: Runner) -> None:
    runner.options = Options(deadline=time.monotonic())
    assert runner.test(c_mutation("return a > 6;")).status == UNFINISHED


def test_a_mutant_that_runs_out_of_time_is_unfinished_and_shown(
    runner: Runner, run: command_line.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.options = Options(each=1e-9)
    result = runner.test(c_mutation("return a > 6;"))
    assert result.status == UNFINISHED
    run.results = [result, Result(c_mutation("return a >= 5;"), NOTICED)]
    command_line.report(run)
    printed = capsys.readouterr().out
    assert "out of time: csrc/thing.c:4 f" in printed
    assert "csrc: 1 of 1 noticed (100 %)" in printed


def test_a_hanging_test_ends_and_leaves_no_process(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True)\n"
        "print(other.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script]
    ended = process.run(command, tmp_path, 1, environ=dict(os.environ), checked=False)
    assert ended.code is None
    left = Path(f"/proc/{int(ended.output)}/stat")
    assert not left.exists() or left.read_text().split()[2] in "ZX"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_tests_of_a_run_in_the_background_do_not_ignore_signals(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        script = f"import signal; print(signal.getsignal({int(number)}) != signal.SIG_IGN)"
        command = [sys.executable, "-c", script]
        ended = process.run(command, tmp_path, 30, environ=dict(os.environ), checked=False)
    finally:
        signal.signal(number, before)
    assert ended.output == "True\n"


# ---------------------------------------------------------------- the command line


@pytest.fixture
def run() -> command_line.Run:
    return command_line.Run(command_line.arguments([]), [])


def test_the_report_shows_survivors_and_the_score(
    run: command_line.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.results = [
        Result(c_mutation("return a >= 5;"), NOTICED, "tests/c/test_thing.c"),
        Result(c_mutation("return a > 6;"), SURVIVED),
    ]
    assert command_line.report(run) == 0
    printed = capsys.readouterr().out
    assert "survived: csrc/thing.c:4 f (constant)\n  - return a > 5;\n  + return a > 6;" in printed
    assert "csrc: 1 of 2 noticed (50 %)" in printed


def test_a_run_without_a_mutant_fails(run: command_line.Run) -> None:
    run.results = [Result(c_mutation("a -= 0;"), NONE, "does not compile")]
    assert command_line.report(run) == 2


def test_a_run_fails_when_a_test_fails_without_a_mutation(run: command_line.Run) -> None:
    run.results = [Result(c_mutation("return a > 6;"), SURVIVED)]
    run.sound.failed.add("tests/unit/test_thing.py::test_of_something_else")
    assert command_line.report(run) == 2


def test_a_folder_stands_for_its_files() -> None:
    chosen = command_line.chosen(argparse.Namespace(files=["csrc/time"], sample=0, newest=0))
    assert {name for name, _ in chosen} == {"csrc/timer.c"}
    line = chosen[0][1].line
    one = argparse.Namespace(files=[f"csrc/timer.c:{line}"], sample=0, newest=0)
    assert {candidate.line for _, candidate in command_line.chosen(one)} == {line}
    with pytest.raises(SystemExit, match="no mutation in csrc/other"):
        command_line.chosen(argparse.Namespace(files=["csrc/other.c"], sample=0, newest=0))


def test_the_checkout_does_not_change_when_the_core_does_not_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: command_line.Run) -> None:
        raise BuildError("expected ';'")

    monkeypatch.setattr(command_line, "alone", nullcontext)
    monkeypatch.setattr(command_line.Run, "all", fail)
    monkeypatch.setattr(command_line.os, "nice", lambda by: 0)
    monkeypatch.setattr(command_line.sys, "argv", ["mutants", "csrc/timer.c"])
    assert command_line.main() == 2
    assert "do not build:\nexpected ';'" in capsys.readouterr().out


def test_help_names_every_option() -> None:
    command = [sys.executable, "-m", "tools.mutants", "--help"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert "--newest" in done.stdout
    assert "No mutation is ever made in the checkout." in done.stdout
