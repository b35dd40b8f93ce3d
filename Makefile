# Needs GNU make and a POSIX shell. Everything is installed into $(VENV), never outside it.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
PIP_FLAGS := --quiet --disable-pip-version-check
# In the order of tests/conftest.py, longest files first: by itself xdist begins with those of most tests.
TEST_FLAGS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.PHONY: help install demo test test-browser test-slow faults cluster-test bench bench-full lint types format check ci clean

help: ## Show this help
	@echo "Usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [WORKERS=2]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F '|' '{ printf "%-12s %s\n", $$1, $$2 }'

install: $(VENV)/.installed-runtime ## Install evolute into the virtual environment

demo: $(VENV)/.installed-runtime ## Train a small mixed population and show what it did
	$(BIN)/evolute demo

test: $(VENV)/.installed-test ## Run the tests, except those that take minutes
	$(BIN)/python -m pytest $(TEST_FLAGS)

test-slow: $(VENV)/.installed-test ## Run the tests that take minutes
	XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=3" $(BIN)/python -m pytest $(TEST_FLAGS) -m slow

test-browser: $(VENV)/.installed-test $(VENV)/.installed-browser ## Look at the report in Chromium, where there is one
	$(BIN)/python -m pytest -rs tests/test_report_browser.py

faults: $(VENV)/.installed-test ## Kill and damage real runs, resume them, and compare (about 20 minutes)
	$(BIN)/python tests/faults.py

cluster-test: $(VENV)/.installed-test $(VENV)/.installed-cluster-test ## Train on a real Ray cluster of three nodes and kill one (minutes)
	$(BIN)/python tests/cluster_faults.py

bench: $(VENV)/.installed-runtime ## Measure speed side by side, in about three minutes
	$(BIN)/python benchmarks/bench.py

bench-full: $(VENV)/.installed-runtime ## The same with all member counts, tasks and repetitions
	$(BIN)/python benchmarks/bench.py --full

lint: $(VENV)/.installed-lint ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-lint ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-lint ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test ## What a change must pass: lint, types and test

ci: ## What the continuous integration runs: check and a short training run
	.ci/run

clean: ## Remove the virtual environment, caches and builds; runs/ stays
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of dependencies: nothing is installed again until pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(PIP) install $(PIP_FLAGS) -e '.$(patsubst %,[%],$(filter-out runtime,$*))'
	@touch $@

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "evolute needs Python 3.11, 3.12 or 3.13, and $(PYTHON) was not found; name one with: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { \
	  echo "evolute needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1); name one with: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" || { \
	  rm -f "$@"; \
	  echo "the virtual environment $(VENV) could not be made; if ensurepip is missing, install Python's venv package" \
	    "(on Debian and Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; }
