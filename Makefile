PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Of all tests many wait for clocks and sockets, so that five at a time keep two processors busy.
TEST_JOBS ?= 5

.DEFAULT_GOAL := help
.PHONY: help .venv demo check quick test lint wheel-check bench docs notebooks format clean

help:
	@echo "make demo    run scenarios/worker-crash.yaml in both worlds and name the pictures"
	@echo "make check   the fast lane, under a minute: format, lint, types, imports and the quick tests"
	@echo "make test    the same with every test"
	@echo "make lint    the same without tests; make quick: the quick tests alone"
	@echo "make wheel-check   build the wheel, install it into an empty environment, run it there"
	@echo "make bench   the speed figures, each measured in turn with its peers"
	@echo "make docs    the documents as a site, in site/index.html"
	@echo "make .venv   the environment alone"
	@echo "make notebooks   run the notebooks' scripts again, and write what they show"
	@echo "make clean   remove what was made, the environment included"

.venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: .venv
	$(BIN)/orchestrator simulate scenarios/worker-crash.yaml --out out/worker-crash
	@echo
	@echo "The same scenario on real processes, for half a minute, beside the simulation:"
	@echo
	$(BIN)/orchestrator fidelity scenarios/worker-crash.yaml

lint: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check: .venv
	@$(MAKE) --no-print-directory --jobs $(JOBS) --output-sync=target lint quick

quick: .venv
	$(BIN)/pytest -n $(JOBS) -m "not slow"

test: lint
	$(BIN)/pytest -n $(TEST_JOBS) --durations 40

# PYTHON names the interpreter of the empty environment.
wheel-check: .venv
	WHEEL_PYTHON=$(PYTHON) $(BIN)/pytest tests/test_wheel.py

format: .venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/.ready-bench: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@# Ciw installs its own tests as the package `tests`, which would hide ours from the workers that our tests start.
	rm -rf $(VENV)/lib/python*/site-packages/tests
	@touch $@

bench: $(VENV)/.ready-bench
	$(BIN)/python bench/simulate.py
	$(BIN)/python bench/live.py

docs: .venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

notebooks: .venv
	$(BIN)/python -m notebooks.execute

clean:
	rm -rf $(VENV) out site build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find orchestrator sim tests bench docs notebooks -name __pycache__ -prune -exec rm -rf {} +
