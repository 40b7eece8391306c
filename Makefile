# The everyday commands. Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEV_READY := $(VENV)/.dev-ready
READY := $(VENV)/.ready
# Modules are compiled when they are first imported, which most never are.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable

.PHONY: demo test test-slow test-all lint format clean

demo: $(READY)  ## train, evaluate, plot, export and sample on the embedded digits; only set-up needs the network
	$(BIN)/kvae demo

test: $(DEV_READY)  ## the default tests
	$(BIN)/python -m pytest

test-slow: $(DEV_READY)  ## the longer tests, which CI runs too
	$(BIN)/python -m pytest -m "slow and not exhaustive" --no-loadscope-reorder

test-all: $(DEV_READY)  ## every test, with all cases of the longer ones
	$(BIN)/python -m pytest -m "" --no-loadscope-reorder

lint: $(DEV_READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_READY)  ## rewrite the code in the format of the project
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): setup.py constraints.txt | $(BIN)/python
	$(INSTALL) .
	@touch $@

$(DEV_READY): setup.py constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]'
	@touch $@ $(READY)
