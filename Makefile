# Everything runs in .venv; `make setup` makes it, and every other target does that first where it is not yet done.
PYTHON ?= python3
BIN := .venv/bin
BUILD := build
STAMP := .venv/.set-up
# Two test workers on few cores: one thread each, or they fight over them.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 DRJIT_CACHE_DIR=$(abspath $(BUILD)/drjit)
ifndef GEOML_DATA
ifneq ($(wildcard ../shared/data/.),)
export GEOML_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help setup llvm browser demo test test-all check lint types doctests figures clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) llvm browser ## the environment in .venv and, where it can, the system's part: LLVM, and Chromium for the tests of pages

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=python3.11")'
	$(BIN)/pip install -c constraints.txt -e '.[all,dev]'
	@touch $@

# Ray tracing on a CPU needs LLVM 19 or newer; nothing else does, so what cannot be installed is only named.
llvm: $(STAMP)
	@if $(BIN)/geoml doctor --need llvm >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && apt-get install -q -y libllvm19 || echo "libllvm19 did not install: ray tracing will not work here"; \
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then \
	  sudo -n apt-get update -q && sudo -n apt-get install -q -y libllvm19 || echo "libllvm19 did not install: ray tracing will not work here"; \
	else echo "For ray tracing on a CPU type:  sudo apt-get update && sudo apt-get install -y libllvm19"; fi

# The tests open pages in a headless browser where there is one, and say so where there is none.
browser: $(STAMP)
	@if command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && apt-get install -q -y --no-install-recommends chromium chromium-driver \
	    || echo "Chromium did not install: tests of pages in a browser will be skipped"; \
	fi

demo: setup ## a benchmark of downscaling across regions on a synthetic planet
	$(BIN)/rainshift benchmark experiment=demo

test: setup ## the tests, without the slow ones
	$(TEST_ENV) $(BIN)/pytest -q -n 2 -m "not slow"

test-all: setup ## all tests
	$(TEST_ENV) $(BIN)/pytest -q -n 2

check: setup lint types doctests test ## all that has to hold before a change goes in

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: $(STAMP)
	$(BIN)/mypy

doctests: $(STAMP)
	$(TEST_ENV) $(BIN)/pytest -q -n 2 --doctest-modules geoml rainshift radiomaps mcp_experts

figures: $(STAMP) ## the figures that the pages quote, from benchmarks/results
	$(BIN)/python -m benchmarks.quote

clean: ## remove what was built, not what was run
	rm -rf $(BUILD) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
