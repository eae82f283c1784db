# Each target installs first if there is no .venv: one command is enough on a bare machine.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STORE ?= store
INSTALLED := $(VENV)/installed

.PHONY: help install run test test-slow test-containers check bench docs clean

help:
	@echo "make run        a self-consuming loop on real handwritten digits in minutes, with a report"
	@echo "make test       the tests (make test-slow: those that take minutes)"
	@echo "make test-containers   the stack in real containers: 12 minutes, 30 GB of free disk"
	@echo "make check      linters, types, import layers"
	@echo "make bench      the benchmarks"
	@echo "make docs       the documentation as a site, with the reference; every link checked"
	@echo "make install    only build .venv"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {v.major}.{v.minor}; pass PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: install
	$(BIN)/sims run sims-loop/digits-quick --store $(STORE)

test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow and not containers"

test-slow: install
	$(BIN)/pytest -m slow

test-containers: install
	$(BIN)/pytest -m containers --capture no --verbose --exitfirst tests/containers

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	set -e; for benchmark in tests/benchmarks/bench_*.py; do $(BIN)/python $$benchmark; done

docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(STORE) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
