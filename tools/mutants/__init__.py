"""`make mutants` changes the sources in one place at a time, and runs the tests after each change.

Such a change is called a mutant. A mutant that no test notices survives: no test covers the
behaviour that it changes.

    make mutants FILES=csrc/conn.c     all mutants of these files (csrc/conn.c:50: of a line)
    make mutants SAMPLE=200 SEED=1     a random sample of all files
    make mutants NEWEST=40 BUDGET=360  the newest lines first, for at most six minutes

More options: FULL=1 runs the whole suite on each mutant that survives the likely tests. JOBS=2
tests two mutants at a time. EACH=30 gives 30 seconds to each mutant; one that needs more is shown
as out of time, and does not count. ARGS=--again ignores earlier results, ARGS=--list shows the
mutations. `python -m tools.mutants --help` has all options.

How it works:

- `c_source` and `python_source` find the possible mutations of a file. Those of Python come from
  cosmic-ray. Comments, strings, assertions, annotations and log texts are left alone.
- `builder` copies the checkout to build/mutants/, once for each job, and builds the core there. If
  all mutants are of Python files, it uses the core of the checkout. A mutant of a C file needs two
  compilations (with sanitizers for the C tests, without them for Python), and one link for each,
  because the C tests load the core as a library. A mutant does not count if it does not compile, or
  if its object code is that of the original.
- `likely` names the tests that are most likely to notice a mutant of a file. `runner` runs the C
  tests or the unit tests of a Python module first, because they take seconds. Then it runs the
  tests that noticed a mutant of that file before, and at last the other likely ones. A hang counts
  as noticed. If a test notices its first mutant, it must pass without the mutation, too.
- `known` keeps results in build/mutants/known.json. A result holds as long as neither the function
  nor its tests change. equivalent.txt lists mutants that do not change the behaviour, with reasons.

No mutation is ever made in the checkout.
"""
