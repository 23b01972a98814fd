# Every target creates .venv from constraints.txt when it is missing or older than what it is made from.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
FLOORS := .venv-floors
OTHERS := .venv-compatibility
CODE   := src tests benchmarks examples tools compatibility

.PHONY: help setup reproduce test claims torture lint types docs benchmarks build floors compatibility clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

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

test: $(READY)  ## every test but those of `make claims`; the ones that fetch data included
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not claims"

claims: $(READY)  ## every experiment anew, against the committed verdicts; some ten minutes
	$(BIN)/python -m pytest -n auto --dist worksteal -m claims

torture: $(READY)  ## 200 kills at random moments and every other fault; tells kills and lost results; half an hour
	FEEDALIGN_KILLS=200 $(BIN)/python -m pytest -m fault tests/lab

lint: $(READY)  ## ruff: style, docstrings, formatting
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

# python -m, so that the generator finds the Markdown extensions in tools/docs/.
docs: $(READY)  ## run the tutorials and build the documentation, strictly, into site/; needs no network
	$(BIN)/python -m tools.docs.prepare
	$(BIN)/python -m zensical build --clean --strict

benchmarks: $(READY)  ## every benchmark, into benchmarks/results/
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

build: $(READY)  ## wheel and source archive into dist/, and try the wheel in an empty environment
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python tools/try_wheel.py

# Old packages warn of their newer neighbours, so here a warning is no error. What builds the documentation has no floors.
floors: $(FLOORS)/.ready  ## the tests with the lowest versions pyproject.toml allows; torch may download 3 GB
	$(FLOORS)/bin/python -m pytest -n auto --dist worksteal -W default --ignore tests/docs

$(FLOORS)/.ready: pyproject.toml tools/floors.py
	test -x $(FLOORS)/bin/python || $(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python tools/floors.py > $(FLOORS)/floors.txt
	$(FLOORS)/bin/python -m pip install --quiet -c $(FLOORS)/floors.txt -e '.[dev]'
	@touch $@

# HF_HUB_OFFLINE: the models have random weights, and nothing is downloaded.
compatibility: $(OTHERS)/.ready  ## other people's models and frameworks under the rules, into docs/how-to/compatibility-models.md
	HF_HUB_OFFLINE=1 $(OTHERS)/bin/python -m compatibility.run

$(OTHERS)/.ready: pyproject.toml constraints.txt compatibility/requirements.txt
	test -x $(OTHERS)/bin/python || $(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/python -m pip install --quiet -c constraints.txt -e .
	$(OTHERS)/bin/python -m compatibility.install
	@touch $@

clean:  ## remove what was built; runs/ and downloaded data stay
	rm -rf $(VENV) $(FLOORS) $(OTHERS) dist site .mypy_cache .ruff_cache .pytest_cache
