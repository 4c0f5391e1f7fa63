# `make run` and `make test` each set up what they need and then do their job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test quick lint coverage parity clean

run: $(STAMP)
	$(BIN)/bench run --methods sft,soar,flow_grpo --subset high_aesthetic

# One thread per process: two processes of one thread are faster than one of two, and sums come out the same everywhere.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

# The loop while one works: lints, and the tests that neither train for long nor start processes (tests/conftest.py).
quick: lint
	$(MAKE) test PYTEST='$(PYTEST) -m "not slow"'

coverage:
	$(MAKE) test PYTEST="$(PYTEST) --cov --cov-report=term:skip-covered"

# Metrics against the packages they stand for, each of which lives in an environment of its own.
PARITY := $(notdir $(patsubst %/requirements.txt,%,$(wildcard parity/*/requirements.txt)))
parity: $(STAMP) $(PARITY:%=.venv-parity-%/.installed)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest parity

.venv-parity-%/.installed: parity/%/requirements.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	if [ -f parity/$*/setup.sh ]; then VENV=$(@D) sh parity/$*/setup.sh; fi
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bench needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps -r constraints.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) cache runs
