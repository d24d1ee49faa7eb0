# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 2000

.PHONY: demo test test-all lint types layers tests page format clean

demo: $(READY)
	$(BIN)/circuitfind discover ioi --model ioi-small --threshold 0.02 --out runs/demo
	@echo "The diagram is runs/demo/diagram.svg"

test: lint types layers tests

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/pytest -q --numprocesses 2 --dist loadfile

# What `make test` leaves out: tests marked slow, and those that need a GPU where there is one.
test-all: lint types layers $(READY)
	$(BIN)/pytest -q --numprocesses 2 --dist loadfile -m ""

# Builds the report's page anew from web/; needs node, which nothing else does.
page:
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run check && npm run build

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
