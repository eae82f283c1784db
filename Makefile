# Each target installs first if there is no .venv: one command is enough on a bare machine.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STORE ?= store
INSTALLED := $(VENV)/installed

TOOLS := $(VENV)-tools/bin

.PHONY: help install run test test-slow test-containers chaos fuzz check bench docs lock audit licences clean

help:
	@echo "make run        a self-consuming loop on real handwritten digits in minutes, with a report"
	@echo "make test       the tests (make test-slow: those that take minutes)"
	@echo "make test-containers   the stack in real containers: 12 minutes, 30 GB of free disk"
	@echo "make fuzz       hostile files into every importer and reader, for 10 minutes"
	@echo "make chaos      kills real commands at random instants: KILLS=40 SEED=0 MINUTES=18"
	@echo "make check      linters, types, import layers"
	@echo "make bench      the benchmarks"
	@echo "make docs       the documentation as a site, with the reference; every link checked"
	@echo "make lock, audit, licences   what is installed: renewed with hashes, looked up, listed"
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
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow and not containers" --durations=30

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m slow --durations=15

test-containers: install
	$(BIN)/pytest -m containers --capture no --verbose --exitfirst tests/containers

fuzz: install
	SIMS_FUZZ_S=600 OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/sims_core/fuzz

KILLS ?= 40
SEED ?= 0
MINUTES ?= 18

chaos: install
	$(BIN)/python tests/chaos/chaos.py --kills $(KILLS) --seed $(SEED) --minutes $(MINUTES)

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

# A file that pip installs with --require-hashes: Python 3.11, Linux x86-64, as constraints.txt.
lock: $(TOOLS)
	$(TOOLS)/uv pip compile --quiet --extra dev --constraint constraints.txt --generate-hashes \
		--python-version 3.11.9 --python-platform x86_64-manylinux_2_28 --no-annotate --no-header \
		--output-file requirements.lock pyproject.toml

# Needs PyPI's service for known vulnerabilities, or --vulnerability-service osv.
audit: $(TOOLS)
	$(TOOLS)/pip-audit --require-hashes --disable-pip --requirement requirements.lock

$(TOOLS):
	$(PYTHON) -m venv $(VENV)-tools
	$(TOOLS)/pip install --quiet uv pip-audit

licences: install
	$(BIN)/python tests/licences.py > docs/licences.md

clean:
	rm -rf $(VENV) $(VENV)-tools $(STORE) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
