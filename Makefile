# The one front door: people, pre-commit and .ci/run all come in here. `make help` lists the targets.
# Needs Python 3.11 or later, make and a C++20 compiler; everything else goes into .venv and build/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# PYTHON: the interpreter .venv is made from; without it, the first of these that will do.
PYTHONS := $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14 python)
# PYTEST_ARGS: what to add to pytest's command line, as in make test PYTEST_ARGS="tests/core -x".
PYTEST_ARGS ?=
WERROR ?= $(if $(CI),ON,OFF)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PYTEST := $(BIN)/python -m pytest
CPP := $(wildcard native/*.cpp native/*.h tests/native/*.cpp)
# The stamps live in .venv, so that they go when it goes.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
BUILT := $(VENV)/.built
# Will this Python do? It needs its venv module, and the C headers that compile the engine.
SUITS := import ensurepip, os, sys, sysconfig, venv; \
	sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

.PHONY: help demo test slow check format lint types arch bench docs cross asan amx clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

# -- Set-up: .venv from the lock, the engine from native/; each step runs again only when it must ---

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(SUITS)' >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$("$$python" -V)"; exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "make: expected Python 3.11 or later with its venv module and C headers, found none among:" \
	  "$(PYTHONS)." >&2; \
	echo "Install one (on Debian: python3 python3-venv python3-dev), or name it:" \
	  "make PYTHON=/path/to/python3.11." >&2; \
	exit 1

$(RUN): requirements/build.txt requirements/run.txt | $(BIN)/python
	$(PIP) install -qq -r requirements/build.txt -r requirements/run.txt
	@touch $@

$(DEV): requirements/dev.txt requirements/build.txt requirements/run.txt | $(BIN)/python
	$(PIP) install -qq -r requirements/dev.txt
	@touch $@ $(RUN)

# An editable install: Python files are read from src/, the engine is compiled into build/ and
# copied into .venv. native/ itself is a prerequisite because a file that goes changes it alone.
$(BUILT): native $(CPP) CMakeLists.txt pyproject.toml src/lamina/__init__.py | $(RUN)
	$(PIP) install -qq --no-build-isolation --no-deps \
	  --config-settings cmake.define.LAMINA_WERROR=$(WERROR) --editable .
	@touch $@

# -- The two front doors ---------------------------------------------------------------------------

DEMO := build/demo
TABLE := examples/data/adult.parquet

demo: $(BUILT) ## fit a real table, use the model, print the result
	@mkdir -p $(DEMO)
	$(BIN)/lamina fit $(TABLE) --target income --out $(DEMO)/adult.model.lamina
	$(BIN)/lamina predict $(DEMO)/adult.model.lamina $(TABLE) --out $(DEMO)/predictions.csv
	@echo "The first rows of $(DEMO)/predictions.csv:"
	@head -n 6 $(DEMO)/predictions.csv

# Two at a time, as the engine has threads of its own; then those that look at the clock, alone. pytest
# says 5 where PYTEST_ARGS leaves it none of them.
test: $(DEV) $(BUILT) ## run the tests
	$(PYTEST) -n 2 --dist loadfile -m "not slow and not alone" $(PYTEST_ARGS)
	$(PYTEST) -m "alone and not slow" $(PYTEST_ARGS) || [ $$? -eq 5 ]

slow: $(DEV) $(BUILT) ## run the tests that take minutes
	$(PYTEST) -m slow $(PYTEST_ARGS)

# -- Checks ----------------------------------------------------------------------------------------

check: lint types arch ## all that can be judged without running: format, lint, types, import contracts

format: $(DEV) ## put Python and C++ into the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix-only --exit-zero --quiet
	$(if $(CPP),$(BIN)/clang-format -i $(CPP))

lint: $(DEV) ## format and lint, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(CPP))

types: $(DEV) $(BUILT) ## mypy, strict
	$(BIN)/mypy

arch: $(DEV) ## the import contracts
	PYTHONPATH=src $(BIN)/lint-imports

docs: $(DEV) $(BUILT) ## draw the pictures of docs/theory.md, run every example in README, docs and docstrings
	$(BIN)/python docs/make_pictures.py
	$(PYTEST) tests/test_readme.py $(PYTEST_ARGS)

# BENCH_ARGS: what to add, as in make bench BENCH_ARGS="--quick --workloads A".
bench: $(DEV) $(BUILT) ## time the engine against its peers
	$(BIN)/python benchmarks/engine.py $(BENCH_ARGS)

# The kernels for arm64, checked on any machine that has the two commands.
CROSS_CXX ?= aarch64-linux-gnu-g++
CROSS_RUN ?= qemu-aarch64
ENGINE := $(filter-out native/bindings% native/kernels_%,$(wildcard native/*.cpp))
cross: ## build the engine for arm64 and check it under an emulator
	@mkdir -p build/cross
	$(CROSS_CXX) -std=c++20 -O2 -fno-math-errno -fno-trapping-math -ffp-contract=fast -Wall -Wextra -Werror \
	  -static -pthread -Inative -DLAMINA_ISA_SCALAR -DLAMINA_ISA_NEON -o build/cross/check_engine \
	  tests/native/check_engine.cpp $(ENGINE) native/kernels_scalar.cpp native/kernels_neon.cpp
	$(CROSS_RUN) build/cross/check_engine

# The sanitizers' module lands in build/asan/site, in front of .venv's packages. -S leaves the
# editable install out, which would otherwise win; the interpreter itself is not instrumented, so
# the runtime is preloaded and its leaks are not ours to judge. The peak's loops are slowed here,
# NumPy's product is not.
ASAN := build/asan
asan: $(DEV) $(BUILT) ## the native tests under the address and undefined-behaviour sanitizers
	rm -rf $(ASAN)/site
	$(PIP) install -qq --no-build-isolation --no-deps --no-compile --target $(ASAN)/site \
	  --config-settings build-dir=$(ASAN)/cmake \
	  --config-settings cmake.define.LAMINA_SANITIZE=ON --config-settings cmake.build-type=RelWithDebInfo .
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	PYTHONPATH="$(ASAN)/site:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  $(BIN)/python -S -m pytest -p no:cacheprovider --capture=no tests/native \
	  --deselect tests/native/test_peak.py::test_no_product_of_matrices_beats_the_peak \
	  --deselect tests/native/test_peak.py::test_the_bfloat16_peak_is_above_float32s $(PYTEST_ARGS)

# The AMX kernels with their tiles in plain loops, on any machine with AVX-512-BF16; packages as for
# asan.
AMX := build/amx
amx: $(DEV) $(BUILT) ## the AMX kernels' tests, their tiles emulated
	rm -rf $(AMX)/site
	$(PIP) install -qq --no-build-isolation --no-deps --no-compile --target $(AMX)/site \
	  --config-settings build-dir=$(AMX)/cmake --config-settings cmake.define.LAMINA_EMULATE_AMX=ON .
	PYTHONPATH="$(AMX)/site:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  $(BIN)/python -S -m pytest -p no:cacheprovider tests/native/test_bfloat16.py \
	  tests/native/test_grouped.py tests/core/test_grouped.py \
	  tests/core/test_bfloat16.py $(PYTEST_ARGS)

clean: ## remove everything that was made here, .venv included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
