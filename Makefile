# `make demo`, `make test` and `make docs` set everything up themselves: Python >= 3.11 and a package registry
# are all they need. A stamp written last tells a finished environment from a half-made one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO := demo
SITE := site

.PHONY: demo test test-all test-fast docs format clean

# Passive waiting: threads that spin for each other slow down many times on a machine in use.
demo: $(VENV)/run.stamp
	rm -rf $(DEMO)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/demo.py $(DEMO)

test: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations 25

# Also the exhaustive tests, which repeat others over more cases: about an hour.
test-all: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --all

test-fast: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

# The site is $(SITE)/index.html; it opens without a server.
docs: $(VENV)/docs.stamp
	rm -rf $(SITE)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/sphinx-build --fail-on-warning --keep-going --quiet \
	  -d $(VENV)/doctrees docs $(SITE)
	@echo "the site is $(SITE)/index.html"

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) $(SITE) docs/api jupyter_execute

# Torch first and pinned, so that nothing else decides which build is taken.
$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "scorefield needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable '.[report,tune]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	touch $@
