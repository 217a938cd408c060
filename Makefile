# acr-ray: make help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=12

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test test-slow test-endurance test-browser lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "acr-ray needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

setup: $(READY) ## make .venv and install everything into it (about 6.5 GB)

demo: $(READY) ## train two ways on real digits, certify both, compare (about 3 minutes)
	@$(BIN)/python -m jobs.demo

bench: $(READY) ## every benchmark, the quick way (about 3 minutes)
	@for name in $$($(BIN)/python -c 'from jobs.bench import BENCHMARKS; print(*BENCHMARKS)'); do $(BIN)/python -m jobs.bench $$name --quick || exit 1; done

test: $(READY) ## the tests (about 13 minutes on two cores)
	$(PYTEST) -m "not slow and not endurance and not browser and not gpu"

test-slow: $(READY) ## longer faults and statistics (about 20 minutes)
	$(PYTEST) -m "slow and not gpu"

test-endurance: $(READY) ## dozens of kills at random moments, whole searches, every method killed (about an hour)
	$(PYTEST) -m "endurance and not gpu"

test-browser: $(READY) ## the report in headless Chromium (installs it where apt-get can)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	$(PYTEST) -m browser

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## put everything into ruff's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built and the demo's results, not your own outputs
	rm -rf $(VENV) outputs/demo *.egg-info .pytest_cache .ruff_cache
