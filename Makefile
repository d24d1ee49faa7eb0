# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
READY := .venv/.ready
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 2000

.PHONY: demo test test-all lint types layers tests site page format clean

demo: $(INSTALLED)
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

site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "The site is build/site; with search: python3 -m http.server --directory build/site"

# Builds the report's page anew from web/; needs node, which nothing else does.
page:
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run check && npm run build

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# What running needs, pretrained models in GGUF included, and nothing else.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[gguf]'
	touch $@

# What checks need, too.
$(READY): $(INSTALLED)
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
