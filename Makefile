# make run and make test set themselves up on a fresh machine: Python 3.11, make, a package registry.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml requirements-dev.txt constraints.txt
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit("dragoman needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cli,schema,pydantic,http,fast,host,openai,anthropic]' -r requirements-dev.txt
	@touch $(READY)

.PHONY: setup
setup: $(READY) ## the environment, and nothing else

.PHONY: run
run: $(READY) ## see it work: a server, a client, and what goes over the wire
	@$(BIN)/python examples/tour.py

# Hundreds of tests start a process: without compiled files each would compile the library anew.
.PHONY: test
test: $(READY) ## the tests
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2

.PHONY: soak
soak: $(READY) ## what takes too long for make test: servers killed at random, over every transport
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2 -m long

.PHONY: attacks
attacks: $(READY) ## hostile servers against the host, each attack by its number
	@$(BIN)/python -m tests.attacks

.PHONY: check
check: $(READY) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: coverage
coverage: $(READY) ## the tests, with branch coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -p no:xdist
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: interop
interop: $(READY) ## against the other implementations, in real processes
	@$(PYTHON) interop/peers.py
	@$(BIN)/python -m pytest tests/interop -m interop -n 2 --dist loadgroup

.PHONY: conformance
conformance: $(READY) ## against the official suite, every revision with a handshake
	@$(BIN)/python -m conformance

.PHONY: bench
bench: $(READY) ## speed, side by side with the peers
	@$(PYTHON) interop/peers.py
	@$(BIN)/python -m bench

.PHONY: fuzz
fuzz: $(READY) ## the parsers, FUZZ_S seconds each
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@for target in fuzz/fuzz_*.py; do echo "$$target"; $(BIN)/python $$target -max_total_time=$(or $(FUZZ_S),60) || exit 1; done

.PHONY: docs
docs: $(READY) ## regenerate what the docs take from the code
	@$(BIN)/python -m tests.requirements.render

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
