# `make` lists the targets that you need most, `make words` all of them with their variables.
# The lines that begin with "#:" and "#+" are these lists. tools/c.mk has the rules for C programs.

# The Python, and the folder of the virtual environment: make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv
# Python keeps bytecode, even if the environment says that it should not. Otherwise each process of a
# test would compile the package, and each worker of pytest all test modules: a quarter of the time.
unexport PYTHONDONTWRITEBYTECODE
# The arguments for the program that the target runs, such as picowsgi or pytest.
ARGS ?=
# The folders of the tests that `make test` runs.
QUICK := tests/unit tests/wire tests/e2e
# The seconds that `make stress`, each fuzzer of `make fuzz`, and `make soak` take.
T ?= 60

VENV_PYTHON := $(VENV)/bin/python
DOCS := build/docs-venv
BUILT := build/stamps/$(subst /,_,$(VENV))
CORE := $(wildcard csrc/*.[ch])
BUILD_FILES := setup.py $(wildcard tools/*.py)
C_FILES = $(wildcard csrc/*.[ch] tests/c/*.[ch] tests/c/threads/*.[ch] tests/fuzz/*.c bench/c/*.c \
    tests/kqueue/*.c tests/kqueue/sys/*.h)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

include tools/c.mk

.PHONY: help words
help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)
	@echo
	@echo "make words        list all targets and their variables"

words:
	@sed -n 's/^#[:+] //p' $(MAKEFILE_LIST)
	@echo
	@echo "A target first creates $(VENV) and builds the C core if it needs them."
	@echo "PYTHON=python3.13 VENV=.venv313 chooses another Python and another environment."

# ---------------------------------------------------------------- run, test, lint

.PHONY: run test test-all test-poll test-kqueue test-freethreaded test-pypy lint format

#: make run          serve a demonstration on http://127.0.0.1:8000
#+                   ARGS='--port 8080 app:app': the options of picowsgi
# If nothing is built yet, this builds only the core, and runs the package from its folder.
run: $(if $(wildcard $(BUILT)),$(BUILT),$(BUILT)-run)
	PYTHONPATH=src $(VENV_PYTHON) -m picowsgi $(ARGS)

#: make test         run the tests of the server and of its parts
#+                   ARGS='-k name': the options of pytest, which then chooses among all tests
test: $(BUILT)
	$(VENV_PYTHON) -m pytest $(or $(ARGS),$(QUICK))

#+ make test-all     run all tests: also those with frameworks, browsers and proxies, of the models,
#+                   of the benchmark and of the tools
test-all: $(BUILT)
	$(VENV_PYTHON) -m pytest $(ARGS)

#+ make test-poll    run the C tests and all tests with poll(2) instead of epoll(7)
test-poll: $(BUILT)
	PICOWSGI_POLLER=poll $(MAKE) sanitize-c sanitize-threads
	PICOWSGI_POLLER=poll $(VENV_PYTHON) -m pytest $(ARGS)

#+ make test-kqueue  run them with a core for other systems, and a kqueue(2) made of epoll(7)
# This core is a second one in a folder of its own.
EMULATED := build/kqueue
test-kqueue: $(BUILT)
	$(MAKE) sanitize-c sanitize-threads EMULATE=kqueue SANITIZED=$(EMULATED)/c \
	    THREADS=$(EMULATED)/threads
	PICOWSGI_DEV=1 PICOWSGI_EMULATE=kqueue $(VENV_PYTHON) setup.py --quiet build \
	    --build-lib $(EMULATED)/lib --build-temp $(EMULATED)/temp
	PYTHONPATH=$(abspath $(EMULATED)/lib) $(VENV_PYTHON) -c "from picowsgi import core; \
	    print(core.build()); assert core.POLLERS[0] == 'kqueue'"
	PYTHONPATH=$(abspath $(EMULATED)/lib) $(VENV_PYTHON) -m pytest $(ARGS)

#+ make test-freethreaded
#+                   run all tests on a CPython 3.14 without the GIL; build it if it is missing
#+                   FREETHREADED=python3.14t: use this one
# Only what the tests need is installed, and rather an older wheel than a newer source package.
FREETHREADED ?=
test-freethreaded:
	python="$(FREETHREADED)"; [ -n "$$python" ] || python=$$(tools/python-t.sh) && \
	PIP_PREFER_BINARY=1 $(MAKE) test-all PYTHON="$$python" VENV=.venv-t EXTRAS=test

#+ make test-pypy    run all tests on PyPy; get it if it is missing (tools/pypy.py)
#+                   PYPY=/path/to/pypy3: use this one
test-pypy:
	pypy="$(or $(PYPY),$$($(PYTHON) tools/pypy.py))" && $(MAKE) test-all PYTHON="$$pypy" VENV=.venvpypy

#: make lint         check style, types, wording, and which file may use which
lint: $(BUILT)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(VENV_PYTHON) tools/c_order.py
	$(VENV_PYTHON) tools/words.py
	$(VENV_PYTHON) tools/prose.py
	$(VENV)/bin/zizmor --offline --quiet .github/workflows
	@if command -v actionlint >/dev/null; then set -x; actionlint; \
	else echo "actionlint is not on the PATH: skipped"; fi
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)

#: make format       format the C and Python files as lint expects them
format: $(BUILT)
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(C_FILES)

# ---------------------------------------------------------------- sanitizers

.PHONY: sanitize sanitize-python sanitized-core
#: make sanitize     run the C tests and all tests under AddressSanitizer, UBSan and ThreadSanitizer
sanitize: sanitize-c sanitize-threads sanitize-python

# Python does not free all memory at exit, so only the C tests look for leaks. PYTHONMALLOC turns
# Python's own allocator off, so that the sanitizer notices when the core reads a bytes object after
# its end. The reports go to files, because pytest captures the output of a process that dies.
# libstdc++ is loaded with the sanitizers, because they look for its exception functions only at the
# start. Without it, a C++ module of another package that raises an exception would end the process.
SANITIZED_ENVIRON = PYTHONPATH=$(abspath $(SANITIZED)/lib) PYTHONMALLOC=malloc \
    LD_PRELOAD=$$($(CC) -print-file-name=libasan.so):$$($(CC) -print-file-name=libstdc++.so.6) \
    ASAN_OPTIONS=detect_leaks=0:log_path=$(abspath $(SANITIZED)/reports/asan) \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$(abspath $(SANITIZED)/reports/ubsan)
SANITIZED_PYTHON = $(SANITIZED_ENVIRON) $(VENV_PYTHON)

#+ make sanitized-core
#+                   build the core under AddressSanitizer and UBSan
sanitized-core: $(BUILT)
	rm -rf $(SANITIZED)/lib $(SANITIZED)/reports
	mkdir -p $(SANITIZED)/reports
	$(SANITIZED_ENV) $(VENV_PYTHON) setup.py --quiet build --build-lib $(SANITIZED)/lib \
	    --build-temp $(SANITIZED)/temp
	@$(SANITIZED_PYTHON) -c "import picowsgi._core as core; print('sanitized:', core.__file__); \
	    assert core.__file__.startswith('$(abspath $(SANITIZED))')"

# The tests of models and tools do not use the core. Those of the examples and of development use
# little of it, and have limits for a build at full speed.
WITHOUT_CORE := tests/model/* tests/bench/* tests/tools/* $(addprefix tests/integration/test_, \
    proxy_examples.py kubernetes*.py prometheus.py grafana.py debuggers.py reload_streams.py \
    live_reload.py runserver_order.py flask_picowsgi.py django_runserver.py)
#+ make sanitize-python
#+                   run all tests with that core
#+                   ARGS='-k name': the options of pytest
sanitize-python: sanitized-core
	@status=0; set -x; $(SANITIZED_PYTHON) -m pytest -m 'not unsanitized and not browser' \
	    -n4 $(WITHOUT_CORE:%=--ignore-glob='%') $(ARGS) || status=$$?; set +x; \
	for report in $(SANITIZED)/reports/*; do \
	    if [ -e "$$report" ]; then cat "$$report"; status=1; fi; \
	done; exit $$status

# ---------------------------------------------------------------- stress, soak

STRESS = PYTHONPATH=tests $(VENV_PYTHON) -m stress.stress --seconds $(T)

.PHONY: stress sanitize-stress soak
#: make stress       check every byte that random clients get from random applications, for T=60 s
#+                   ARGS='--only whole,stream': these kinds of applications
#+                   ARGS='--seed S': the same requests as in an earlier run
stress: $(BUILT)
	$(STRESS) $(ARGS)

#+ make sanitize-stress
#+                   run make stress under AddressSanitizer and UBSan
sanitize-stress: sanitized-core
	$(STRESS) --environ "$(SANITIZED_ENVIRON)" --reports $(SANITIZED)/reports $(ARGS)

#+ make soak         load a server for T seconds, also with faults, and check that its memory and
#+                   descriptors do not grow; use a long time, such as T=1800
soak: $(BUILT)
	PYTHONPATH=tests $(VENV_PYTHON) -m soak.soak --seconds $(T)

# ---------------------------------------------------------------- valgrind

.PHONY: valgrind valgrind-python
#+ make valgrind     look for leaks of the C core in the C tests and in a server
valgrind: valgrind-c valgrind-python

#+ make valgrind-python
#+                   look for leaks in a server under mixed load (tests/soak/leaks.py)
valgrind-python: $(BUILT)
	rm -rf $(VALGRIND)/lib
	CFLAGS="$$CFLAGS $(VALGRIND_NO_SSE)" $(VENV_PYTHON) setup.py --quiet build \
	    --build-lib $(VALGRIND)/lib --build-temp $(VALGRIND)/temp
	PYTHONPATH=$(abspath $(VALGRIND)/lib):tests $(VENV_PYTHON) -m soak.leaks

# ---------------------------------------------------------------- mutants, coverage

.PHONY: mutants coverage
#: make mutants      change the sources in one place at a time, and show what no test notices
#+                   FILES=csrc/conn.c: change these files
#+                   SAMPLE=200 SEED=1: take a random sample of the changes
#+                   NEWEST=40 BUDGET=360: change the newest lines first, for at most 360 s
#+                   EACH=30 JOBS=2 FULL=1: see tools/mutants/__init__.py
FILES ?=
MUTANTS = $(VENV_PYTHON) -m tools.mutants $(FILES) $(if $(SAMPLE),--sample $(SAMPLE)) \
    $(if $(NEWEST),--newest $(NEWEST)) $(if $(SEED),--seed $(SEED)) $(if $(FULL),--full) \
    $(if $(BUDGET),--budget $(BUDGET)) $(if $(EACH),--each $(EACH)) $(if $(JOBS),--jobs $(JOBS))

mutants: $(BUILT)
	$(MUTANTS) $(ARGS)

#+ make coverage     write the lines and branches that no test reaches to build/coverage
#+                   ARGS='tests/wire': run only these tests
coverage: $(BUILT)
	$(VENV_PYTHON) -m tools.mutants.coverage_page $(ARGS)

# ---------------------------------------------------------------- benchmark

.PHONY: bench bench-check
#: make bench        compare picowsgi with other servers
#+                   ARGS='--servers picowsgi,bjoern --scenarios hello': measure only these
#+                   bench/README.md has all options
# If you are root, this installs wrk, nginx and other missing programs with apt-get.
bench: $(BUILT)
	$(VENV_PYTHON) -m bench run --apt $(ARGS)

#: make bench-check  count the instructions of a request, and fail if there are 5 % more than before
bench-check: $(BUILT)
	$(VENV_PYTHON) -m bench check

# ---------------------------------------------------------------- documentation, packages

.PHONY: docs wheel check-dist release-check clean
#: make docs         build the documentation into build/site, and check it
#+                   REPOSITORY=https://...: the address that the pages link to
# The variable silences a message of Material about a future version of MkDocs.
docs: $(DOCS)/made
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(DOCS)/bin/mkdocs build --strict
	$(DOCS)/bin/python tools/check_site.py

#: make wheel        build the source package and the wheel into dist/, and check them
# The wheel is built from the source package, so a file that is missing there is noticed. auditwheel
# gives the wheel the tag of the oldest C library that it runs with, which depends on this machine.
# cibuildwheel builds the wheels for older C libraries (see pyproject.toml).
wheel: $(BUILT)-release
	rm -rf dist build/wheel
	$(VENV)/bin/check-manifest
	$(VENV_PYTHON) -m build --outdir build/wheel
	PATH=$(abspath $(VENV))/bin:$$PATH $(VENV)/bin/auditwheel repair --only-plat --wheel-dir dist \
	    build/wheel/*.whl
	$(VENV)/bin/auditwheel show dist/*.whl
	mv build/wheel/*.tar.gz dist
	$(MAKE) check-dist

#+ make check-dist   check the packages in dist/, no matter where they were built
#+                   TAG=v0.1.0: the tag of the release
check-dist: $(BUILT)-release
	$(VENV)/bin/abi3audit --strict --summary dist/*-abi3-*.whl
	$(VENV)/bin/twine check --strict dist/*
	$(VENV_PYTHON) tools/check_dist.py dist $(TAG)

#+ make release-check
#+                   build the packages, install and test them with every Python on this machine,
#+                   and try the commands of the README
release-check: wheel
	$(VENV_PYTHON) tools/release_check.py dist

#: make clean        remove everything that these targets have built
clean:
	rm -rf build dist bench/.cache src/*.egg-info src/picowsgi/_core*.so $(VENV) .*_cache .hypothesis
	find src tests tools examples bench docs -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the virtual environment

$(VENV)/pyvenv.cfg:
	@$(PYTHON) tools/check_machine.py
	@echo "Creating a virtual environment in $(VENV)."
	@$(PYTHON) tools/make_venv.py $(VENV)

EXTRAS ?= test,lint,bench
EVERYTHING := --editable '.[$(EXTRAS)]'
CORE_ALONE := --editable . --no-deps --no-index

# pip fetches packages only for a new environment, and after a change of pyproject.toml. Pyramid, for a
# test, needs a setuptools that still has pkg_resources.
$(BUILT): $(VENV)/pyvenv.cfg pyproject.toml $(CORE) $(BUILD_FILES)
	@mkdir -p $(@D)
	$(if $(filter %.cfg %.toml,$?),$(VENV_PYTHON) -m pip install --quiet --upgrade pip 'setuptools<82' cffi)
	PICOWSGI_DEV=1 $(VENV_PYTHON) -m pip install --quiet --no-build-isolation \
	    --check-build-dependencies $(if $(filter %.cfg %.toml,$?),$(EVERYTHING),$(CORE_ALONE))
	@touch $@

$(BUILT)-run: $(VENV)/pyvenv.cfg pyproject.toml $(CORE) $(BUILD_FILES)
	@mkdir -p $(@D)
	@echo "Building the C core, for the first time or because a file has changed."
	@PICOWSGI_DEV=1 $(VENV_PYTHON) setup.py --quiet build_ext --inplace
	@touch $@

# The programs that check the packages.
$(BUILT)-release: $(BUILT) pyproject.toml
	$(VENV_PYTHON) -m pip install --quiet --group release
	@touch $@

# MkDocs has an environment of its own, because it installs watchdog, and werkzeug would then use
# watchdog to watch files. MkDocs reads the options from src/, so the core need not be built.
$(DOCS)/made: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade pip
	$(DOCS)/bin/python -m pip install --quiet --group docs
	@touch $@
