PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= dev,litellm,sweep,search,baselines,wandb,rl
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: help setup demo test test-fast check format bench clean

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "routefront needs Python 3.11 or newer; give make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP) ## create .venv and install everything the tests need

$(VENV)/.core: pyproject.toml
	@if [ ! -f $(STAMP) ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "routefront needs Python 3.11 or newer; give make PYTHON=python3.11")' && \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e . ; fi
	@touch $@

demo: $(VENV)/.core ## install the core and tune the embedded scenario; prints where the report lies
	rm -rf runs/demo
	$(BIN)/routefront tune scenario=hybrid_api constraints.quality_floor=0.9 out=runs/demo

test: setup ## all tests, slow and gateway ones included
	$(PYTEST) -n 2

test-fast: setup ## the fast tier
	$(PYTEST) -n 2 -m 'not slow and not verify'

check: setup ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests/test_layers.py

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## ours beside plain NumPy, BoTorch, SimPy, ciw and a heap loop, in one process
	$(BIN)/routefront bench output=bench.json

clean: ## remove the environment and everything generated
	rm -rf $(VENV) runs outputs bench.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
