# One word for each task. `make` alone lists them.

# Which Python, and where its virtual environment is:
# make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv
# Python keeps bytecode, also where the environment asks it not to. Without it each process of a test
# compiles the package, and each worker of pytest rewrites all test modules: a quarter of the time.
unexport PYTHONDONTWRITEBYTECODE
# What `make run` gives the server, and `make test` and `make sanitize` give pytest.
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
DOCS := build/docs-venv
BUILT := build/stamps/$(subst /,_,$(VENV))
CORE := $(wildcard csrc/*.[ch])
BUILD_FILES := setup.py $(wildcard tools/*.py)
C_FILES = $(wildcard csrc/*.[ch] tests/c/*.[ch] tests/c/threads/*.[ch] tests/fuzz/*.c bench/c/*.c \
    tests/kqueue/*.c tests/kqueue/sys/*.h)

.DEFAULT_GOAL := help
.PHONY: help run test test-poll test-kqueue test-freethreaded test-pypy lint format stress sanitize \
    mutants coverage valgrind soak bench bench-check docs wheel check-dist release-check clean
.DELETE_ON_ERROR:

help:
	@echo "make run       serve the demonstration on http://127.0.0.1:8000 (ARGS='--port 8080 app:app')"
	@echo "make test      run all tests (ARGS='-k name')"
	@echo "make test-poll run the C tests and all tests with poll(2) instead of epoll(7)"
	@echo "make test-kqueue"
	@echo "               the same with a core for other systems, and a kqueue(2) made of epoll(7)"
	@echo "make test-freethreaded"
	@echo "               run all tests on a CPython 3.14 without the GIL, built first where there is none"
	@echo "make test-pypy run all tests on PyPy, which it gets first where it is missing"
	@echo "make lint      check style, types, wording, and which file may know which"
	@echo "make format    put C and Python files into the style that lint asks for"
	@echo "make stress    check every byte that random clients get from random applications, for T=60"
	@echo "               seconds (ARGS='--only whole,stream --seed S')"
	@echo "make sanitize  run the C tests and all tests under AddressSanitizer and UBSan, and the next"
	@echo "make sanitize-threads"
	@echo "               run a server's threads against each other under ThreadSanitizer"
	@echo "make sanitize-stress"
	@echo "               the same as make stress under AddressSanitizer and UBSan"
	@echo "make fuzz      run each fuzzer for T=60 seconds (needs clang)"
	@echo "make valgrind  look for leaks of the C core, in the C tests and in a server"
	@echo "make soak      load a server with faults for T seconds, and compare (T=1800)"
	@echo "make mutants   change the sources in one place at a time: do the tests notice?"
	@echo "               (FILES=csrc/conn.c, or SAMPLE=200 SEED=1; FULL=1: run the whole suite)"
	@echo "make coverage  write the lines and branches that no test reaches to build/coverage"
	@echo "make bench     compare with other servers (ARGS='--servers picowsgi,bjoern --scenarios hello')"
	@echo "make bench-check"
	@echo "               count instructions, and fail where 5 % more are needed than before"
	@echo "make docs      build the documentation into build/site"
	@echo "make wheel     build the source package and the wheel into dist/, and check them"
	@echo "make release-check"
	@echo "               install both into every Python here and test them; try the README's commands"
	@echo "make clean     remove everything made by these"
	@echo
	@echo "Each makes $(VENV) and builds the C core first, where that is needed."
	@echo "PYTHON=python3.13 VENV=.venv313 chooses another Python."

# Where nothing is built yet it installs what serving needs, and not what the tests need.
run: $(if $(wildcard $(BUILT)),$(BUILT),$(BUILT)-run)
	$(VENV)/bin/picowsgi $(ARGS)

test: $(BUILT)
	$(VENV_PYTHON) -m pytest $(ARGS)

test-poll: $(BUILT)
	PICOWSGI_POLLER=poll $(MAKE) sanitize-c sanitize-threads
	PICOWSGI_POLLER=poll $(VENV_PYTHON) -m pytest $(ARGS)

# The core stands beside the ordinary one.
EMULATED := build/kqueue
test-kqueue: $(BUILT)
	$(MAKE) sanitize-c sanitize-threads EMULATE=kqueue SANITIZED=$(EMULATED)/c \
	    THREADS=$(EMULATED)/threads
	PICOWSGI_DEV=1 PICOWSGI_EMULATE=kqueue $(VENV_PYTHON) setup.py --quiet build \
	    --build-lib $(EMULATED)/lib --build-temp $(EMULATED)/temp
	PYTHONPATH=$(abspath $(EMULATED)/lib) $(VENV_PYTHON) -c "from picowsgi import core; \
	    print(core.build()); assert core.POLLERS[0] == 'kqueue'"
	PYTHONPATH=$(abspath $(EMULATED)/lib) $(VENV_PYTHON) -m pytest $(ARGS)

# Its own Python may have fewer packages ready: without the one a test needs, that is left out.
FREETHREADED ?=
test-freethreaded:
	python="$(FREETHREADED)"; [ -n "$$python" ] || python=$$(tools/python-t.sh) && \
	PIP_PREFER_BINARY=1 $(MAKE) test PYTHON="$$python" VENV=.venv-t EXTRAS=test

# With a Debian mirror PyPy is got from there (tools/pypy.py says how); PYPY=/path/to/pypy3 takes
# an installed one.
test-pypy:
	pypy="$(or $(PYPY),$$($(PYTHON) tools/pypy.py))" && $(MAKE) test PYTHON="$$pypy" VENV=.venvpypy

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
	else echo "actionlint is not on the PATH: left out"; fi
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)

format: $(BUILT)
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(C_FILES)

# As root it gets wrk, nginx and what else is missing with apt-get. bench/README.md has the rest.
bench: $(BUILT)
	$(VENV_PYTHON) -m bench run --apt $(ARGS)

bench-check: $(BUILT)
	$(VENV_PYTHON) -m bench check

# The variable silences what Material prints about a version of MkDocs to come.
docs: $(DOCS)/made
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(DOCS)/bin/mkdocs build --strict

# The wheel is made of the source package, so what that lacks is found. auditwheel gives it the tag
# of the oldest C library that it runs with: on this machine that may be a recent one. Wheels for
# older ones are made by cibuildwheel, in pyproject.toml.
wheel: $(BUILT)-release
	rm -rf dist build/wheel
	$(VENV)/bin/check-manifest
	$(VENV_PYTHON) -m build --outdir build/wheel
	PATH=$(abspath $(VENV))/bin:$$PATH $(VENV)/bin/auditwheel repair --only-plat --wheel-dir dist \
	    build/wheel/*.whl
	$(VENV)/bin/auditwheel show dist/*.whl
	mv build/wheel/*.tar.gz dist
	$(MAKE) check-dist

# What is in dist/, wherever it was built; TAG=v0.1.0 is that of a release.
check-dist: $(BUILT)-release
	$(VENV)/bin/abi3audit --strict --summary dist/*-abi3-*.whl
	$(VENV)/bin/twine check --strict dist/*
	$(VENV_PYTHON) tools/check_dist.py dist $(TAG)

release-check: wheel
	$(VENV_PYTHON) tools/release_check.py dist

clean:
	rm -rf build dist bench/.cache src/*.egg-info src/picowsgi/_core*.so $(VENV) .*_cache .hypothesis
	find src tests tools examples bench docs -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the virtual environment

$(VENV)/pyvenv.cfg:
	@$(PYTHON) tools/check_machine.py
	$(PYTHON) -m venv $(VENV)

EXTRAS ?= test,lint,bench
EVERYTHING := --editable '.[$(EXTRAS)]'
CORE_ALONE := --editable . --no-deps --no-index

# What it needs is fetched only when it is new or pyproject.toml has changed.
$(BUILT): $(VENV)/pyvenv.cfg pyproject.toml $(CORE) $(BUILD_FILES)
	@mkdir -p $(@D)
	$(if $(filter %.cfg %.toml,$?),$(VENV_PYTHON) -m pip install --quiet --upgrade pip setuptools cffi)
	PICOWSGI_DEV=1 $(VENV_PYTHON) -m pip install --quiet --no-build-isolation \
	    --check-build-dependencies $(if $(filter %.cfg %.toml,$?),$(EVERYTHING),$(CORE_ALONE))
	@touch $@

$(BUILT)-run: $(VENV)/pyvenv.cfg pyproject.toml $(CORE) $(BUILD_FILES)
	@mkdir -p $(@D)
	@echo "Building picowsgi in $(VENV), for the first time or because a file has changed."
	@$(if $(filter %.cfg %.toml,$?),$(VENV_PYTHON) -m pip install --quiet --upgrade setuptools cffi)
	@PICOWSGI_DEV=1 $(VENV_PYTHON) -m pip install --quiet --no-build-isolation \
	    $(if $(filter %.cfg %.toml,$?),--editable .,$(CORE_ALONE))
	@touch $@

# What only packages are checked with.
$(BUILT)-release: $(BUILT) pyproject.toml
	$(VENV_PYTHON) -m pip install --quiet --group release
	@touch $@

# Apart, because MkDocs installs watchdog, with which werkzeug watches files in another way. It reads
# the options from src/, for which nothing has to be built.
$(DOCS)/made: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade pip
	$(DOCS)/bin/python -m pip install --quiet --group docs
	@touch $@

# ---------------------------------------------------------------- sanitizers

# First the C tests: each tests/c/test_*.c is a program of its own, linked with the whole core.
# Then all tests, with a sanitized core that stands beside the ordinary one.
SANITIZED := build/sanitize
EMULATE :=
SANITIZE := PICOWSGI_DEV=1 PICOWSGI_EMULATE=$(EMULATE) PICOWSGI_SANITIZE=address,undefined
FLAGS := $(SANITIZE) $(VENV_PYTHON) tools/flags.py
CORE_SOURCES := $(wildcard csrc/*.c) $(if $(EMULATE),$(wildcard tests/$(EMULATE)/*.c))
CORE_OBJECTS := $(patsubst %.c,$(SANITIZED)/core/%.o,$(notdir $(CORE_SOURCES)))
C_TESTS := $(patsubst tests/c/%.c,$(SANITIZED)/c/%,$(wildcard tests/c/test_*.c))
# What the C tests and the fuzzers share; it stands between the core and its poller (tests/c/site.h).
C_HELPERS := $(filter-out $(wildcard tests/c/test_*.c),$(wildcard tests/c/*.c))
C_HELPER_OBJECTS := $(patsubst tests/c/%.c,$(SANITIZED)/c/%.o,$(C_HELPERS))
C_WRAPPED := pw_poll_wait pw_condition_wait pthread_mutex_lock pthread_mutex_unlock \
    pthread_cond_wait pthread_cond_signal pthread_cond_broadcast clock_gettime poll
C_LINK := $(C_WRAPPED:%=-Wl,--wrap=%)
C_HEADERS := $(wildcard csrc/*.h tests/c/*.h tests/kqueue/sys/*.h)

.PHONY: sanitize-c sanitize-threads sanitize-python sanitize-stress sanitized-core
.SECONDARY: $(CORE_OBJECTS) $(C_HELPER_OBJECTS)
sanitize: sanitize-c sanitize-threads sanitize-python

# Each is given the folder with the wire corpus.
sanitize-c: $(C_TESTS)
	rm -rf $(SANITIZED)/corpus
	PYTHONPATH=tests $(VENV_PYTHON) -m wire.export $(SANITIZED)/corpus
	@set -e; for test in $(C_TESTS); do echo "$$test"; "$$test" $(SANITIZED)/corpus; done

$(SANITIZED)/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -c -o $@ $<

$(SANITIZED)/core/%.o: tests/kqueue/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -c -o $@ $<

$(SANITIZED)/c/%.o: tests/c/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -Icsrc -c -o $@ $<

$(SANITIZED)/c/%: tests/c/%.c $(CORE_OBJECTS) $(C_HELPER_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -Icsrc -o $@ $^ $(C_LINK) $$($(FLAGS))

# ThreadSanitizer does not work together with the others. If the kernel spreads addresses more than it
# knows of, it ends with "unexpected memory mapping", so they are not spread where the system allows
# that (a container may forbid it). If it cannot run even an empty program, the target says so.
THREADS := build/sanitize-threads
THREADS_FLAGS := PICOWSGI_DEV=1 PICOWSGI_EMULATE=$(EMULATE) PICOWSGI_SANITIZE=thread $(VENV_PYTHON) tools/flags.py
THREADS_OBJECTS := $(patsubst %.c,$(THREADS)/core/%.o,$(notdir $(CORE_SOURCES)))
UNSPREAD := setarch $$(uname -m) -R

.SECONDARY: $(THREADS_OBJECTS)
sanitize-threads: $(THREADS)/stress $(THREADS)/nothing
	@unspread="$(UNSPREAD)"; $$unspread true 2>/dev/null || unspread=; \
	if ! $$unspread $(THREADS)/nothing; then echo "ThreadSanitizer cannot run here: left out"; exit; fi; \
	echo "$<"; TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 $$unspread $<

$(THREADS)/nothing: $(BUILT)
	@mkdir -p $(@D)
	echo 'int main(void) { return 0; }' | $(CC) -fsanitize=thread -x c -o $@ -

$(THREADS)/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(THREADS_FLAGS) $<) -c -o $@ $<

$(THREADS)/core/%.o: tests/kqueue/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(THREADS_FLAGS) $<) -c -o $@ $<

STRESS_SOURCES := $(wildcard tests/c/threads/*.c) tests/c/audit.c tests/c/check.c
$(THREADS)/stress: $(STRESS_SOURCES) $(THREADS_OBJECTS) $(wildcard tests/c/*.h tests/c/threads/*.h)
	@mkdir -p $(@D)
	$(CC) $$($(THREADS_FLAGS) $<) -Icsrc -o $@ $(STRESS_SOURCES) $(THREADS_OBJECTS) \
	    $$($(THREADS_FLAGS)) -pthread

# Python leaks at its end by design, so leaks are looked for by the C tests alone. Its own allocator
# is off, so that a bytes object that the core reads too late is found too. Reports go to files,
# because pytest keeps what a dying process writes. libstdc++ is loaded with the sanitizers: they look
# for its exceptions once, at the start, and a C++ module of another package that raises one ends the
# process otherwise.
SANITIZED_ENVIRON = PYTHONPATH=$(abspath $(SANITIZED)/lib) PYTHONMALLOC=malloc \
    LD_PRELOAD=$$($(CC) -print-file-name=libasan.so):$$($(CC) -print-file-name=libstdc++.so.6) \
    ASAN_OPTIONS=detect_leaks=0:log_path=$(abspath $(SANITIZED)/reports/asan) \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$(abspath $(SANITIZED)/reports/ubsan)
SANITIZED_PYTHON = $(SANITIZED_ENVIRON) $(VENV_PYTHON)

sanitized-core: $(BUILT)
	rm -rf $(SANITIZED)/lib $(SANITIZED)/reports
	mkdir -p $(SANITIZED)/reports
	$(SANITIZE) $(VENV_PYTHON) setup.py --quiet build --build-lib $(SANITIZED)/lib \
	    --build-temp $(SANITIZED)/temp
	@$(SANITIZED_PYTHON) -c "import picowsgi._core as core; print('sanitized:', core.__file__); \
	    assert core.__file__.startswith('$(abspath $(SANITIZED))')"

# Tests of models and tools, which have nothing of the core to look at.
WITHOUT_CORE := tests/model/* tests/bench/* tests/tools/*
sanitize-python: sanitized-core
	@status=0; set -x; $(SANITIZED_PYTHON) -m pytest -m 'not unsanitized and not browser' \
	    $(WITHOUT_CORE:%=--ignore-glob='%') $(ARGS) || status=$$?; set +x; \
	for report in $(SANITIZED)/reports/*; do \
	    if [ -e "$$report" ]; then cat "$$report"; status=1; fi; \
	done; exit $$status

# ---------------------------------------------------------------- stress

STRESS = PYTHONPATH=tests $(VENV_PYTHON) -m stress.stress --seconds $(T)

stress: $(BUILT)
	$(STRESS) $(ARGS)

sanitize-stress: sanitized-core
	$(STRESS) --environ "$(SANITIZED_ENVIRON)" --reports $(SANITIZED)/reports $(ARGS)

# ---------------------------------------------------------------- fuzzers

# Each tests/fuzz/fuzz_*.c runs for T seconds, from the wire corpus and what it found before. The
# input of a failure is kept as build/fuzz/failed/FUZZER-*; `build/fuzz/FUZZER THAT_FILE` repeats it.
T ?= 60
CLANG ?= clang
FUZZ := build/fuzz
FUZZ_FLAGS = PICOWSGI_SANITIZE=$(1),address,undefined $(VENV_PYTHON) tools/flags.py
FUZZERS := $(patsubst tests/fuzz/%.c,$(FUZZ)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_OBJECTS := $(patsubst csrc/%.c,$(FUZZ)/core/%.o,$(wildcard csrc/*.c)) \
    $(patsubst tests/c/%.c,$(FUZZ)/c/%.o,$(C_HELPERS))

.PHONY: fuzz fuzz-compiler
.SECONDARY: $(FUZZ_OBJECTS)
fuzz: $(FUZZERS)
	rm -rf $(FUZZ)/seeds
	mkdir -p $(FUZZ)/failed
	PYTHONPATH=tests $(VENV_PYTHON) -m wire.export $(FUZZ)/seeds
	@for fuzzer in $(notdir $(FUZZERS)); do \
	    echo "$$fuzzer for $(T) s"; \
	    mkdir -p $(FUZZ)/found/$$fuzzer; \
	    if $(FUZZ)/$$fuzzer -max_total_time=$(T) -max_len=4096 -timeout=10 -print_final_stats=1 \
	        -dict=tests/fuzz/http.dict -artifact_prefix=$(FUZZ)/failed/$$fuzzer- \
	        $(FUZZ)/found/$$fuzzer $(FUZZ)/seeds >$(FUZZ)/$$fuzzer.log 2>&1; \
	    then grep ^stat:: $(FUZZ)/$$fuzzer.log; \
	    else tail -n 60 $(FUZZ)/$$fuzzer.log; exit 1; fi; \
	done

# Before anything is compiled: is there a clang that has libFuzzer?
fuzz-compiler:
	@mkdir -p $(FUZZ)
	@echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' >$(FUZZ)/compiler.c
	@$(CLANG) -fsanitize=fuzzer,address,undefined -o $(FUZZ)/compiler $(FUZZ)/compiler.c \
	    >$(FUZZ)/compiler.log 2>&1 || { cat $(FUZZ)/compiler.log; \
	    echo "make fuzz needs clang and its libFuzzer, as CLANG=... or from Debian and Ubuntu:"; \
	    echo "    apt-get install clang libclang-rt-14-dev    # 14: the version of that clang"; \
	    exit 1; }

$(FUZZ)/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT) | fuzz-compiler
	@mkdir -p $(@D)
	$(CLANG) $$($(call FUZZ_FLAGS,fuzzer-no-link) $<) -c -o $@ $<

$(FUZZ)/c/%.o: tests/c/%.c $(C_HEADERS) tools/flags.py $(BUILT) | fuzz-compiler
	@mkdir -p $(@D)
	$(CLANG) $$($(call FUZZ_FLAGS,fuzzer-no-link) $<) -Icsrc -c -o $@ $<

$(FUZZ)/%: tests/fuzz/%.c $(FUZZ_OBJECTS)
	@mkdir -p $(@D)
	$(CLANG) $$($(call FUZZ_FLAGS,fuzzer-no-link) $<) -Icsrc -Itests/c -o $@ $^ $(C_LINK) \
	    $$($(call FUZZ_FLAGS,fuzzer))

# ---------------------------------------------------------------- valgrind, soak

# The C tests, and a server under mixed load (tests/soak/leaks.py), with a core of their own:
# valgrind does not know all instructions of picohttpparser's SSE4.2 path, so that is its plain one.
CHECKED := build/valgrind
CHECKED_FLAGS := -U__SSE4_2__
CHECK = valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect \
    --errors-for-leak-kinds=definite,indirect --num-callers=30 --error-exitcode=1
# valgrind closes a connection that comes while descriptors are short, so test_lifetime cannot run.
CHECKED_TESTS := $(filter-out %/test_lifetime,\
    $(patsubst tests/c/%.c,$(CHECKED)/c/%,$(wildcard tests/c/test_*.c)))
CHECKED_OBJECTS := $(patsubst csrc/%.c,$(CHECKED)/core/%.o,$(wildcard csrc/*.c)) \
    $(patsubst tests/c/%.c,$(CHECKED)/c/%.o,$(C_HELPERS))

.PHONY: valgrind-c valgrind-python
.SECONDARY: $(CHECKED_OBJECTS)
valgrind: valgrind-c valgrind-python

valgrind-c: $(CHECKED_TESTS)
	rm -rf $(CHECKED)/corpus
	PYTHONPATH=tests $(VENV_PYTHON) -m wire.export $(CHECKED)/corpus
	@set -e; for test in $(CHECKED_TESTS); do \
	    echo "$$test"; $(CHECK) "$$test" $(CHECKED)/corpus; \
	done

$(CHECKED)/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(VENV_PYTHON) tools/flags.py $<) $(CHECKED_FLAGS) -O1 -g -c -o $@ $<

$(CHECKED)/c/%.o: tests/c/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(VENV_PYTHON) tools/flags.py $<) $(CHECKED_FLAGS) -O1 -g -Icsrc -c -o $@ $<

$(CHECKED)/c/%: tests/c/%.c $(CHECKED_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $$($(VENV_PYTHON) tools/flags.py $<) -O1 -g -Icsrc -o $@ $^ $(C_LINK)

valgrind-python: $(BUILT)
	rm -rf $(CHECKED)/lib
	CFLAGS="$$CFLAGS $(CHECKED_FLAGS)" $(VENV_PYTHON) setup.py --quiet build \
	    --build-lib $(CHECKED)/lib --build-temp $(CHECKED)/temp
	PYTHONPATH=$(abspath $(CHECKED)/lib):tests $(VENV_PYTHON) -m soak.leaks

# ---------------------------------------------------------------- mutants, coverage

# tools/mutants/__init__.py says how it works. SAMPLE, NEWEST and SEED choose mutants; BUDGET and EACH
# are limits in seconds, for the run and for one mutant.
FILES ?=
MUTANTS = $(VENV_PYTHON) -m tools.mutants $(FILES) $(if $(SAMPLE),--sample $(SAMPLE)) \
    $(if $(NEWEST),--newest $(NEWEST)) $(if $(SEED),--seed $(SEED)) $(if $(FULL),--full) \
    $(if $(BUDGET),--budget $(BUDGET)) $(if $(EACH),--each $(EACH)) $(if $(JOBS),--jobs $(JOBS))

mutants: $(BUILT)
	$(MUTANTS) $(ARGS)

# ARGS are the tests to run, all if there are none.
coverage: $(BUILT)
	$(VENV_PYTHON) -m tools.mutants.coverage_page $(ARGS)

soak: $(BUILT)
	PYTHONPATH=tests $(VENV_PYTHON) -m soak.soak --seconds $(T)
