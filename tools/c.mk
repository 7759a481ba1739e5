# The C tests and the fuzzers. Each variant has its own folder below build/, with its own objects of
# the core. The Makefile includes this file.

# EMULATE=kqueue builds the core without the functions that only Linux has, with the kqueue(2) of
# tests/kqueue/. Use another folder for it, as `make test-kqueue` does.
EMULATE :=

CORE_SOURCES := $(wildcard csrc/*.c) $(if $(EMULATE),$(wildcard tests/$(EMULATE)/*.c))
C_HEADERS := $(wildcard csrc/*.h tests/c/*.h tests/kqueue/sys/*.h)
# Each tests/c/test_*.c is a program. The other files there belong to all programs.
TEST_SOURCES := $(wildcard tests/c/test_*.c)
SUPPORT_SOURCES := $(filter-out $(TEST_SOURCES),$(wildcard tests/c/*.c))
# The linker replaces these functions by those of the tests (tests/c/site.h, tests/c/locks.c).
C_WRAPPED := pw_poll_wait pw_condition_wait pthread_mutex_lock pthread_mutex_trylock \
    pthread_mutex_unlock pthread_cond_wait pthread_cond_signal pthread_cond_broadcast \
    clock_gettime poll
C_WRAP := $(C_WRAPPED:%=-Wl,--wrap=%)

# ---------------------------------------------------------------- a variant

# $(eval $(call c_variant,NAME)) makes the rules of a variant. Set these variables before:
#   NAME            the folder
#   NAME_CC         the compiler
#   NAME_ENV        environment variables for tools/flags.py, which prints the compiler flags
#   NAME_LINK_ENV   the same for the linker flags; without it, NAME_ENV
#   NAME_FLAGS      more compiler flags
#   NAME_FIRST      targets to make before the first object
#   NAME_RUN        the program under which the tests run
# The variant then has:
#   NAME_CORE       the objects of the core
#   NAME_SUPPORT    the objects of the files that belong to all C tests
#   NAME_TESTS      the programs

# The recipe of an object: c_compile NAME,FLAGS.
define c_compile
@mkdir -p $(@D)
$($(1)_CC) $$($($(1)_ENV) $(VENV_PYTHON) tools/flags.py $<) $($(1)_FLAGS) $(2) -c -o $@ $<
endef

# The recipe of a program: c_link NAME,FLAGS. Its prerequisites are sources, objects and headers.
define c_link
@mkdir -p $(@D)
$($(1)_CC) $$($($(1)_ENV) $(VENV_PYTHON) tools/flags.py $<) $($(1)_FLAGS) -Icsrc -o $@ \
    $(filter-out %.h,$^) $(2) $$($(or $($(1)_LINK_ENV),$($(1)_ENV)) $(VENV_PYTHON) tools/flags.py)
endef

define c_variant
$(1)_CORE := $(patsubst %.c,$($(1))/core/%.o,$(notdir $(CORE_SOURCES)))
$(1)_SUPPORT := $(patsubst tests/c/%.c,$($(1))/c/%.o,$(SUPPORT_SOURCES))
$(1)_TESTS := $(patsubst tests/c/%.c,$($(1))/c/%,$(TEST_SOURCES))
.SECONDARY: $$($(1)_CORE) $$($(1)_SUPPORT)

$($(1))/core/%.o: csrc/%.c $(C_HEADERS) tools/flags.py $(BUILT) | $($(1)_FIRST)
	$$(call c_compile,$(1))

$($(1))/core/%.o: tests/kqueue/%.c $(C_HEADERS) tools/flags.py $(BUILT) | $($(1)_FIRST)
	$$(call c_compile,$(1))

$($(1))/c/%.o: tests/c/%.c $(C_HEADERS) tools/flags.py $(BUILT) | $($(1)_FIRST)
	$$(call c_compile,$(1),-Icsrc)

$($(1))/c/%: tests/c/%.c $$($(1)_CORE) $$($(1)_SUPPORT)
	$$(call c_link,$(1),$$(C_WRAP))
endef

# The recipe that runs the C tests of a variant, each with the folder of the wire corpus.
define c_run_tests
rm -rf $($(1))/corpus
PYTHONPATH=tests $(VENV_PYTHON) -m wire.export $($(1))/corpus
@set -e; for test in $($(1)_TESTS); do echo "$$test"; $($(1)_RUN) "$$test" $($(1))/corpus; done
endef

# ---------------------------------------------------------------- AddressSanitizer and UBSan

SANITIZED := build/sanitize
SANITIZED_CC = $(CC)
SANITIZED_ENV := PICOWSGI_DEV=1 PICOWSGI_EMULATE=$(EMULATE) PICOWSGI_SANITIZE=address,undefined
$(eval $(call c_variant,SANITIZED))

.PHONY: sanitize-c
#+ make sanitize-c   run the C tests under AddressSanitizer and UBSan
sanitize-c: $(SANITIZED_TESTS)
	$(call c_run_tests,SANITIZED)

# ---------------------------------------------------------------- ThreadSanitizer

# ThreadSanitizer does not work with the others. It ends with "unexpected memory mapping" if the
# kernel randomizes addresses more than it expects. setarch turns this off, if the system allows it
# (a container may forbid it). If even an empty program cannot run, the target says so.
THREADS := build/sanitize-threads
THREADS_CC = $(CC)
THREADS_ENV := PICOWSGI_DEV=1 PICOWSGI_EMULATE=$(EMULATE) PICOWSGI_SANITIZE=thread
$(eval $(call c_variant,THREADS))

FIXED_ADDRESSES := setarch $$(uname -m) -R

.PHONY: sanitize-threads
#+ make sanitize-threads
#+                   run the threads of a server against each other under ThreadSanitizer
sanitize-threads: $(THREADS)/stress $(THREADS)/nothing
	@fixed="$(FIXED_ADDRESSES)"; $$fixed true 2>/dev/null || fixed=; \
	if ! $$fixed $(THREADS)/nothing; then echo "ThreadSanitizer cannot run here: skipped"; exit; fi; \
	echo "$<"; TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 $$fixed $<

$(THREADS)/nothing: $(BUILT)
	@mkdir -p $(@D)
	echo 'int main(void) { return 0; }' | $(CC) -fsanitize=thread -x c -o $@ -

$(THREADS)/stress: $(wildcard tests/c/threads/*.c) tests/c/audit.c tests/c/check.c $(THREADS_CORE) \
    $(wildcard tests/c/*.h tests/c/threads/*.h)
	$(call c_link,THREADS,-pthread)

# ---------------------------------------------------------------- valgrind

# valgrind does not know all instructions of picohttpparser's code for SSE4.2, so this core has the
# plain code.
VALGRIND := build/valgrind
VALGRIND_CC = $(CC)
VALGRIND_ENV := PICOWSGI_EMULATE=$(EMULATE)
VALGRIND_NO_SSE := -U__SSE4_2__
VALGRIND_FLAGS := $(VALGRIND_NO_SSE) -O1 -g
VALGRIND_RUN := valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect \
    --errors-for-leak-kinds=definite,indirect --num-callers=30 --error-exitcode=1
$(eval $(call c_variant,VALGRIND))
# valgrind closes a connection that arrives when no descriptor is left, so this test cannot run.
VALGRIND_TESTS := $(filter-out %/test_lifetime,$(VALGRIND_TESTS))

.PHONY: valgrind-c
#+ make valgrind-c   look for leaks in the C tests
valgrind-c: $(VALGRIND_TESTS)
	$(call c_run_tests,VALGRIND)

# ---------------------------------------------------------------- fuzzers

# Each tests/fuzz/fuzz_*.c is a fuzzer. It begins with the wire corpus and the inputs that earlier
# runs have found. An input that fails is kept as build/fuzz/failed/FUZZER-*. To repeat it, run
# `build/fuzz/FUZZER THAT_FILE`.
CLANG ?= clang
FUZZ := build/fuzz
FUZZ_CC = $(CLANG)
FUZZ_ENV := PICOWSGI_EMULATE=$(EMULATE) PICOWSGI_SANITIZE=fuzzer-no-link,address,undefined
FUZZ_LINK_ENV := PICOWSGI_SANITIZE=fuzzer,address,undefined
FUZZ_FIRST := fuzz-compiler
$(eval $(call c_variant,FUZZ))
FUZZERS := $(patsubst tests/fuzz/%.c,$(FUZZ)/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: fuzz fuzz-compiler
#+ make fuzz         run each fuzzer for T=60 seconds
#+                   CLANG=clang-14: the compiler, a clang with libFuzzer
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

#+ make fuzz-compiler
#+                   check that this compiler has libFuzzer
fuzz-compiler:
	@mkdir -p $(FUZZ)
	@echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' >$(FUZZ)/compiler.c
	@$(CLANG) -fsanitize=fuzzer,address,undefined -o $(FUZZ)/compiler $(FUZZ)/compiler.c \
	    >$(FUZZ)/compiler.log 2>&1 || { cat $(FUZZ)/compiler.log; \
	    echo "make fuzz needs clang with libFuzzer, as CLANG=... or from Debian and Ubuntu:"; \
	    echo "    apt-get install clang libclang-rt-14-dev    # 14: the version of that clang"; \
	    exit 1; }

$(FUZZ)/%: tests/fuzz/%.c $(FUZZ_CORE) $(FUZZ_SUPPORT)
	$(call c_link,FUZZ,-Itests/c $(C_WRAP))
