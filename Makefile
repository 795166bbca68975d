# Every target sets up what it needs; nothing but Python 3.11+ and make has to be there.
# uv is used where it is installed, venv and pip otherwise.

VENV := .venv
BIN := $(VENV)/bin
# MLX on macOS comes as it is; on Linux name a build: `make serve EXTRA=cuda`.
EXTRA ?= $(if $(filter Linux,$(shell uname -s)),cpu)
PACKAGE := .$(if $(EXTRA),[$(EXTRA)])
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
UV := $(shell command -v uv 2>/dev/null)
PIP_INSTALL := $(if $(UV),uv pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet) \
	--constraint constraints.txt
SOURCES := domain application adapters tests benchmarks

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: serve
serve: $(VENV)/.runtime ## Serve on http://127.0.0.1:8000 (the demo model, unless configured)
	$(BIN)/portico serve $(ARGS)

.PHONY: chat
chat: $(VENV)/.runtime ## Chat with the demo model in the terminal
	$(BIN)/portico chat $(ARGS)

.PHONY: install
install: $(VENV)/.dev ## Set up the development environment in .venv

.PHONY: check
check: format-check lint types imports test test-clients ## All of it: the only definition of clean

.PHONY: test
# Two at a time: some of them measure memory, or start servers. In the order of their folders, so
# that the quick ones come last, and neither of the two waits long for the other.
test: $(VENV)/.dev ## Run the tests
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-clients
test-clients: $(VENV)/.clients ## Test with other people's clients (needs Node.js 20 and npm)
	$(BIN)/pytest tests/clients $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.fuzz ## Send 10,000 bodies to every endpoint, and what schemathesis makes up (12 minutes)
	FUZZ_EXAMPLES=10000 $(BIN)/pytest tests/reliability/test_fuzz.py tests/fuzz $(ARGS)

.PHONY: format-check
format-check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)

.PHONY: format
format: $(VENV)/.dev ## Format the code, and fix what the linter can
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: lint
lint: $(VENV)/.dev ## Lint
	$(BIN)/ruff check $(SOURCES)

.PHONY: types
types: $(VENV)/.dev ## Check the types, strictly
	$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## Check the import contracts of the architecture
	$(BIN)/lint-imports

.PHONY: docs-captures
docs-captures: $(VENV)/.dev ## Make the pictures of the docs anew
	$(BIN)/python -m tests.docs_capture

.PHONY: constraints
constraints: $(VENV)/.clients ## Pin what is installed now
	$(BIN)/pip list --format=freeze --exclude portico-mlx --exclude pip > constraints.txt

.PHONY: clean
clean: ## Remove the environment and every cache
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(UV)$(PYTHON)" || { echo "Portico needs Python 3.11 or newer."; exit 1; }
	$(if $(UV),uv venv --quiet --python '>=3.11' $(VENV),$(PYTHON) -m venv $(VENV))
	@# Older pips know no dependency groups.
	$(if $(UV),,$(BIN)/pip install --quiet --upgrade 'pip>=25.1')

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '$(PACKAGE)'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP_INSTALL) --group dev
	@touch $@

$(VENV)/.clients: $(VENV)/.dev
	$(PIP_INSTALL) --group clients
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP_INSTALL) --group fuzz
	@touch $@
