# The only doors of the house: make setup demo test torture lint e2e bench (and bench-quick, constraints, clean for maintainers).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup
# tests of the vault, its torture and the stores: half of the time of all
BESIDE := tests/vault tests/torture tests/providers tests/contract/test_object_stores.py
.DEFAULT_GOAL := help
.PHONY: help setup demo test torture lint e2e bench bench-quick constraints clean

help: ## show these doors
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(SETUP) ## make .venv with everything refloat, its tests and its demo need
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "refloat needs Python 3.11 or newer; set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	@echo "refloat: setting up .venv (once, a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[controller,practice,dev]'
	@$(BIN)/python -m compileall -q $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

demo: setup ## protect, destroy, recover and compare a small application; needs no cluster and no cloud
	@$(BIN)/refloat demo

test: setup ## every fast test, on this machine alone
	@$(BIN)/python -m tests.tools.restic || true
	@$(BIN)/python -m tests.tools.azurite || true
	@$(BIN)/python -m tests.tools.cassandra || true
	@mkdir -p build; \
	$(BIN)/python -m pytest $(BESIDE) > build/vault-tests.log 2>&1 & vault=$$!; \
	$(BIN)/python -m pytest tests --ignore=tests/e2e $(BESIDE:%=--ignore=%); \
	rest=$$?; echo; echo "the vault, its torture in short, and the stores, run beside these:"; \
	wait $$vault; vault=$$?; cat build/vault-tests.log; exit $$((rest ? rest : vault))

torture: setup ## the proofs of the vault at full length: kills, damage, faults, hostile input (hours)
	@$(BIN)/python -m tests.tools.restic --all || true
	@REFLOAT_TORTURE=1 $(BIN)/python -m pytest tests/torture -s --timeout=14400

lint: setup ## ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

e2e: setup ## the straight line on real clusters; needs the environment tests/e2e/README.md names
	@$(BIN)/python -m pytest tests/e2e -x --timeout=1200

bench: setup ## refloat beside restic and kopia, in the same run (long; give it the machine)
	@$(BIN)/python -m benchmarks $(BENCH) && $(BIN)/python -m benchmarks.overhead

bench-quick: setup ## the same with little data, in about three minutes
	@$(BIN)/python -m benchmarks --quick $(BENCH)

constraints: ## resolve the newest versions that pyproject.toml allows into constraints.txt
	@rm -rf build/resolve && $(PYTHON) -m venv build/resolve
	@build/resolve/bin/pip install --quiet --upgrade pip
	@build/resolve/bin/pip install --quiet --editable '.[controller,practice,gcs,azure,dev]'
	@{ head -1 constraints.txt; build/resolve/bin/pip freeze --exclude-editable; } > build/constraints.txt && mv build/constraints.txt constraints.txt

clean: ## forget the environment and what was built
	@rm -rf $(VENV) .tools build demo *.egg-info
