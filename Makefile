# Every target creates .venv from constraints.txt when it is missing or older than what it is made from.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup reproduce test lint types docs benchmarks clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "feedalign needs Python 3.11 or newer, got $$($(PYTHON) --version); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into $(VENV), once; this takes a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	@touch $@

setup: $(READY)  ## create .venv and install everything, pinned by constraints.txt

reproduce: $(READY)  ## every experiment at its quick preset, into feedalign-report.html
	$(BIN)/feedalign reproduce

test: $(READY)  ## every test, the ones that fetch data included
	$(BIN)/python -m pytest -n auto

lint: $(READY)  ## ruff: style, docstrings, formatting
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

docs: $(READY)  ## build the documentation, strictly, into site/
	$(BIN)/mkdocs build --strict

benchmarks: $(READY)  ## every benchmark, into benchmarks/results/
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:  ## remove what was built; runs/ and downloaded data stay
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
