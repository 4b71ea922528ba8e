# The workshop. Everything here needs Python >= 3.11, make and git, and installs the rest into .venv:
# requirements/run.lock for `make run`, requirements/dev.lock (the same versions and more) for the others.

.DEFAULT_GOAL := help
.PHONY: help run test check format bench docs connected fuzz lock clean

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run-installed
DEV := $(VENV)/.dev-installed
FUZZ := $(VENV)/.fuzz-installed
BROWSER := $(VENV)/.browser-installed
UV_VERSION := 0.13.9
PACKAGES := kernel plugin_sdk sandbox marketplace api plugins

# pytest's processes and further arguments: `make test WORKERS=0 ARGS="tests/unit -k resolver"`.
WORKERS ?= 2
ARGS ?=
SECONDS ?= 60

export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(RUN) ## Start Keelstone with example tenants and plugins; Ctrl-C stops it
# On a terminal the platform gets a process group of its own (set -m), so that Ctrl-C reaches it
# alone: it stops in peace, and make reports how it ended instead of being interrupted itself.
	@if [ -t 0 ] && [ -t 1 ]; then set -m; $(BIN)/keelstone serve --seed; \
	else exec $(BIN)/keelstone serve --seed; fi

test: $(DEV) ## Run the tests
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

# atheris is large and of no other use: it comes with the first `make fuzz`.
fuzz: $(FUZZ) ## Fuzz what reads strangers' data; SECONDS=60 for each target, KEEP=--keep adds to the corpus
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(KEEP) $(ARGS)

connected: $(DEV) $(BROWSER) ## Run the suites that need PostgreSQL, Redis, Kafka and a browser on real ones
	$(BIN)/pytest -n 0 tests/connected $(ARGS)

check: $(DEV) ## Lint, types, import rules, lock and generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pip check
	$(BIN)/python -m docs.generate --check

format: $(DEV) ## Bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV) ## Measure, print a table and write build/bench.json
	$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(DEV) ## Write the reference pages anew from the code
	$(BIN)/python -m docs.generate

# Addresses never enter a lock: which index packages come from is the installer's affair.
lock: $(DEV) ## Resolve the dependencies of pyproject.toml anew; UPGRADE=--upgrade takes newer versions
	$(BIN)/pip install -q uv==$(UV_VERSION)
	$(BIN)/uv pip compile -q $(UPGRADE) $(COMPILE) --group build --extra sdk -o requirements/run.lock
	$(BIN)/uv pip compile -q $(UPGRADE) $(COMPILE) -c requirements/run.lock --group build --group dev --group bench \
		--extra postgres --extra redis --extra kafka --extra otlp --extra sdk -o requirements/dev.lock
	$(BIN)/uv pip compile -q $(UPGRADE) $(filter-out pyproject.toml,$(COMPILE)) -c requirements/dev.lock \
		--group pyproject.toml:fuzz -o requirements/fuzz.lock
	$(BIN)/uv pip compile -q $(UPGRADE) $(filter-out pyproject.toml,$(COMPILE)) -c requirements/dev.lock \
		--group pyproject.toml:browser -o requirements/browser.lock

COMPILE := pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

clean: ## Remove what was built; .venv and the data folder stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PACKAGES) tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------- the environment

$(RUN): requirements/run.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked packages into $(VENV) (once, about a minute) ..."
	@$(BIN)/pip install -q --require-hashes --no-deps -r requirements/run.lock
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/dev.lock $(RUN)
	@echo "Installing the locked development packages into $(VENV) ..."
	@$(BIN)/pip install -q --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

$(FUZZ): requirements/fuzz.lock $(DEV)
	@echo "Installing the fuzzer into $(VENV) ..."
	@$(BIN)/pip install -q --require-hashes --no-deps -r requirements/fuzz.lock
	@touch $@

$(BROWSER): requirements/browser.lock $(DEV)
	@echo "Installing the browser's driver into $(VENV) ..."
	@$(BIN)/pip install -q --require-hashes --no-deps -r requirements/browser.lock
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
		if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version) ..."; \
			rm -rf $(VENV); exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "Keelstone needs Python 3.11 or newer with its module venv, and found none."; \
	echo "Install it (Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; \
	exit 1
