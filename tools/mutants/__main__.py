"""The command line of `make mutants`."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import __doc__ as description
from . import sample
from .builder import BUILD, PROJECT, BuildError, Tree
from .known import Memory, equivalents
from .mutation import Mutation
from .runner import NONE, NOTICED, SURVIVED, UNFINISHED, Options, Result, Runner, Sound

EQUIVALENT = "equivalent"
_BROKEN = 2  # exit status: no mutant was built, or a test fails without a mutation


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutants",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", nargs="*", help="files to change, or FILE:LINE; without any: all")
    add("--sample", type=int, default=0, help="size of the random sample; 0: all mutants")
    add("--newest", type=int, default=0, help="number of newest lines; 0: all lines")
    add("--seed", type=int, default=1, help="seed of the random sample")
    add("--full", action="store_true", help="run the whole suite on what survives the likely tests")
    add("--budget", type=float, default=0, help="limit for the whole run, in seconds; 0: none")
    add("--each", type=float, default=0, help="limit for one mutant, in seconds; 0: none")
    add("--jobs", type=int, default=1, help="mutants tested at a time")
    add("--workers", type=int, default=2, help="workers of pytest for each job")
    add("--again", action="store_true", help="do not use earlier results")
    add("--list", action="store_true", help="show the mutations and test none")
    return parser.parse_args(words)


def chosen(options: argparse.Namespace) -> list[sample.Chosen]:
    """Return the candidates in the order of the tests."""
    wanted = [name.partition(":") for name in options.files or [""]]
    names = [
        name
        for name in sample.files(PROJECT)
        if any(name.startswith(beginning) for beginning, _, _ in wanted)
    ]
    found = [
        (name, one)
        for name, one in sample.candidates(PROJECT, names)
        if any(
            name.startswith(beginning) and line in {"", str(one.line)}
            for beginning, _, line in wanted
        )
    ]
    if not found:
        sys.exit(f"error: no mutation in {' '.join(options.files)}")
    if options.newest:
        return sample.newest(PROJECT, found)
    return sample.shuffled(found, options.seed) if options.sample else found


@contextmanager
def alone() -> Iterator[None]:
    """Allow only one run at a time. Ctrl-C and SIGTERM end it, also in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"error: another run uses {BUILD.relative_to(PROJECT)}")
        yield


class Run:
    """Tests candidates until there are enough mutants, and keeps the results."""

    def __init__(self, options: argparse.Namespace, candidates: list[sample.Chosen]) -> None:
        self.began = time.monotonic()
        self.limit = options.sample or options.newest
        self.deadline = self.began + options.budget if options.budget else 0.0
        self.options = Options(
            options.full, options.each, self.deadline, options.workers, options.again
        )
        self.jobs = options.jobs
        self.equivalents = equivalents((Path(__file__).parent / "equivalent.txt").read_text())
        self.sound, self.results = Sound(), list[Result]()
        self.started = 0
        self._left = iter(candidates)
        self._needs_c = any(name.endswith(".c") for name, _ in candidates)
        self._lock = threading.Lock()

    def all(self) -> None:
        """Test the mutants, as many at a time as there are jobs."""
        trees = [Tree(number) for number in range(self.jobs)]
        for tree in trees:
            if self._needs_c:
                tree.build()
            else:
                tree.take_extension()
        memory = Memory(BUILD / "known.json", trees[0].root)
        runners = [Runner(tree, memory, self.options, self.sound) for tree in trees]
        runners[0].check_unchanged(with_programs=self._needs_c)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for done in [pool.submit(self._work, runner) for runner in runners]:
                    done.result()
            except KeyboardInterrupt:
                self._left = iter(())
                self.options.deadline = time.monotonic()
                print("stopping after the current test")
                raise

    def _next(self) -> Mutation | None:
        with self._lock:
            if self.limit and self.started >= self.limit:
                return None
            if self.deadline and time.monotonic() >= self.deadline:
                return None
            for _, candidate in self._left:
                one = candidate.make()
                if one is not None:
                    self.started += 1
                    return one
        return None

    def _work(self, runner: Runner) -> None:
        while (one := self._next()) is not None:
            name = one.file, one.function, one.old_line, one.new_line
            if name in self.equivalents:
                result = Result(one, EQUIVALENT, self.equivalents[name])
            else:
                result = runner.test(one)
            with self._lock:
                self.results.append(result)
                # Equivalent mutants and those that are not built do not count: take another one.
                if result.status in {NONE, EQUIVALENT}:
                    self.started -= 1
                if result.status != NONE:
                    self._show(result)

    def _show(self, result: Result) -> None:
        tested = sum(one.status in {NOTICED, SURVIVED} for one in self.results)
        by = f"by {result.by}" if result.status == NOTICED else ""
        seconds = "known" if result.known else f"{result.seconds:.1f} s"
        one = result.mutation
        print(f"{tested:4} {result.status:10} {one.place} {one.kind}, {seconds} {by}", flush=True)


def report(run: Run) -> int:
    """Print the mutants that survived, and the score. Return the exit status."""
    of = {
        status: [one for one in run.results if one.status == status]
        for status in (NOTICED, SURVIVED, NONE, EQUIVALENT, UNFINISHED)
    }
    print()
    shown = [*of[SURVIVED], *of[UNFINISHED]]
    for result in sorted(shown, key=lambda one: (one.mutation.file, one.mutation.line)):
        one = result.mutation
        what = "survived" if result.status == SURVIVED else "out of time"
        print(f"{what}: {one.place} {one.function} ({one.kind})")
        print(f"  - {one.old_line}\n  + {one.new_line}")
    for test in sorted(run.sound.failed):
        print(f"error: {test} fails without a mutation, so it was skipped")
    tested = len(of[NOTICED]) + len(of[SURVIVED])
    if tested == 0:
        print("error: no mutant was built and tested")
        return _BROKEN
    for name in ("csrc", "src"):
        noticed, all_of_it = (
            sum(one.mutation.file.startswith(f"{name}/") for one in results)
            for results in (of[NOTICED], [*of[NOTICED], *of[SURVIVED]])
        )
        if all_of_it:
            print(f"{name}: {noticed} of {all_of_it} noticed ({100 * noticed // all_of_it} %)")
    tests = "the whole suite" if run.options.full else "only the likely tests (FULL=1: all)"
    within = f", {run.options.each:.0f} s for each mutant" if run.options.each else ""
    print(
        f"with {tests}{within}; not counted: {len(of[EQUIVALENT])} equivalent, {len(of[NONE])} "
        f"without effect or that do not compile, {len(of[UNFINISHED])} unfinished; "
        f"{(time.monotonic() - run.began) / 60:.1f} minutes"
    )
    return _BROKEN if run.sound.failed else 0


def main() -> int:
    options = arguments(sys.argv[1:])
    candidates = chosen(options)
    if options.list:
        for _, candidate in candidates:
            one = candidate.make()
            if one is not None:
                print(f"{one.place} {one.kind}\n  - {one.old_line}\n  + {one.new_line}")
        return 0
    os.nice(5)
    run = Run(options, candidates)
    try:
        with alone():
            run.all()
    except BuildError as error:
        print(f"error: the unchanged sources do not build:\n{error}")
        return _BROKEN
    except KeyboardInterrupt:
        pass
    return report(run)


if __name__ == "__main__":
    sys.exit(main())
