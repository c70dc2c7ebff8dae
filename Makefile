# Every target sets up what it needs: a virtual environment in .venv, installed under the tested constraints.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint types layers format wheel clean

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(VENV)/.runtime  ## install readout and run it on the bundled switchback log
	$(BIN)/readout demo

test: $(VENV)/.develop  ## install everything and run the test suite
	$(BIN)/python -m pytest -n auto $(ARGS)

slow: $(VENV)/.develop  ## the long studies: coverage over many seeds, the built wheel
	$(BIN)/python -m pytest -n auto -m slow $(ARGS)

lint: $(VENV)/.develop  ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.develop  ## mypy --strict
	$(BIN)/mypy

layers: $(VENV)/.develop  ## imports run one way: cli, readout, then estimators and attribution
	$(BIN)/lint-imports

format: $(VENV)/.develop  ## mend what ruff can mend
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.develop  ## build the distribution into dist/
	$(BIN)/python -m build

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "readout needs Python 3.11 or later; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.runtime: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.develop: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable . --group dev
	@touch $@ $(VENV)/.runtime
