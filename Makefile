# The one word for each habit. `make` alone tells them.

# Which Python, and where its virtual environment is:
# make test PYTHON=python3.13 VENV=.venv313
PYTHON ?= python3
VENV ?= .venv
# What `make run` gives the server, and `make test` and `make sanitize` give pytest.
ARGS ?=

VENV_PYTHON := $(VENV)/bin/python
BUILT := build/stamps/$(subst /,_,$(VENV))
CORE := $(wildcard csrc/*.[ch])
BUILD_FILES := setup.py $(wildcard tools/*.py)
C_FILES = $(wildcard csrc/*.[ch] tests/c/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help run test lint format sanitize wheel clean
.DELETE_ON_ERROR:

help:
	@echo "make run       serve the demonstration on http://127.0.0.1:8000 (ARGS='--port 8080 app:app')"
	@echo "make test      run all tests (ARGS='-k name')"
	@echo "make lint      check style and types"
	@echo "make format    put C and Python files into the style that lint asks for"
	@echo "make sanitize  run the C tests and all tests under AddressSanitizer and UBSan"
	@echo "make wheel     build the source package and the wheel into dist/"
	@echo "make clean     remove everything made by these"
	@echo
	@echo "Each makes $(VENV) and builds the C core first, where that is needed."
	@echo "PYTHON=python3.13 VENV=.venv313 chooses another Python."

run: $(BUILT)
	$(VENV)/bin/picowsgi $(ARGS)

test: $(BUILT)
	$(VENV_PYTHON) -m pytest $(ARGS)

lint: $(BUILT)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)

format: $(BUILT)
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(C_FILES)

wheel: $(BUILT)
	rm -rf dist
	$(VENV_PYTHON) -m build --outdir dist

clean:
	rm -rf build dist src/*.egg-info src/picowsgi/_core*.so $(VENV) .*_cache .hypothesis
	find src tests tools examples -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the virtual environment

$(VENV)/pyvenv.cfg:
	@$(PYTHON) tools/check_machine.py
	$(PYTHON) -m venv $(VENV)

EVERYTHING := --editable '.[test,lint]'
CORE_ALONE := --editable . --no-deps --no-index

# What it needs is fetched only when it is new or pyproject.toml has changed.
$(BUILT): $(VENV)/pyvenv.cfg pyproject.toml $(CORE) $(BUILD_FILES)
	@mkdir -p $(@D)
	$(if $(filter %.cfg %.toml,$?),$(VENV_PYTHON) -m pip install --quiet --upgrade pip setuptools cffi)
	PICOWSGI_DEV=1 $(VENV_PYTHON) -m pip install --quiet --no-build-isolation \
	    --check-build-dependencies $(if $(filter %.cfg %.toml,$?),$(EVERYTHING),$(CORE_ALONE))
	@touch $@

# ---------------------------------------------------------------- sanitizers

# First the C tests: each tests/c/test_*.c is a program of its own, linked with the whole core.
# Then all tests, with a sanitized core that stands beside the ordinary one.
SANITIZED := build/sanitize
SANITIZE := PICOWSGI_DEV=1 PICOWSGI_SANITIZE=address,undefined
FLAGS := $(SANITIZE) $(VENV_PYTHON) tools/flags.py
CORE_OBJECTS := $(patsubst csrc/%.c,$(SANITIZED)/core/%.o,$(wildcard csrc/*.c))
C_TESTS := $(patsubst tests/c/%.c,$(SANITIZED)/c/%,$(wildcard tests/c/test_*.c))
C_HEADERS := $(wildcard csrc/*.h tests/c/*.h)

.PHONY: sanitize-c sanitize-python
.SECONDARY: $(CORE_OBJECTS)
sanitize: sanitize-c sanitize-python

# Each is given the folder with the wire corpus.
sanitize-c: $(C_TESTS)
	rm -rf $(SANITIZED)/corpus
	PYTHONPATH=tests $(VENV_PYTHON) -m wire.export $(SANITIZED)/corpus
	@set -e; for test in $(C_TESTS); do echo "$$test"; "$$test" $(SANITIZED)/corpus; done

$(SANITIZED)/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -c -o $@ $<

$(SANITIZED)/c/%: tests/c/%.c $(CORE_OBJECTS)
	@mkdir -p $(@D)
	$(CC) $$($(FLAGS) $<) -Icsrc -o $@ $^ $$($(FLAGS))

# Python leaks at its end by design, so leaks are looked for by the C tests alone. Its own allocator
# is off, so that a bytes object that the core reads too late is found too. Reports go to files,
# because pytest keeps what a dying process writes.
SANITIZED_PYTHON = PYTHONPATH=$(abspath $(SANITIZED)/lib) PYTHONMALLOC=malloc \
    LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) \
    ASAN_OPTIONS=detect_leaks=0:log_path=$(abspath $(SANITIZED)/reports/asan) \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$(abspath $(SANITIZED)/reports/ubsan) \
    $(VENV_PYTHON)

sanitize-python: $(BUILT)
	rm -rf $(SANITIZED)/lib $(SANITIZED)/reports
	mkdir -p $(SANITIZED)/reports
	$(SANITIZE) $(VENV_PYTHON) setup.py --quiet build --build-lib $(SANITIZED)/lib \
	    --build-temp $(SANITIZED)/temp
	@$(SANITIZED_PYTHON) -c "import picowsgi._core as core; print('sanitized:', core.__file__); \
	    assert core.__file__.startswith('$(abspath $(SANITIZED))')"
	@status=0; set -x; $(SANITIZED_PYTHON) -m pytest -m 'not unsanitized' $(ARGS) || status=$$?; set +x; \
	for report in $(SANITIZED)/reports/*; do \
	    if [ -e "$$report" ]; then cat "$$report"; status=1; fi; \
	done; exit $$status
