# Everything here works from a fresh clone; nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test lint format dashboard benchmark docs clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

train: $(VENV)/.train ## Train a DCGAN on MNIST, 20 epochs; ARGS="model=mlp epochs=5" changes it
	$(RUN) ganmnist.train $(ARGS)

dashboard: $(VENV)/.train ## Open TensorBoard on logs/
	$(RUN) tensorboard.main --logdir logs

# The tests are small, and threads of theirs wait for each other wherever something else runs.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/.test ## Run the tests and print the coverage
	$(RUN) pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term $(ARGS)

lint: $(VENV)/.test ## Check style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(VENV)/.test ## Put the code in shape
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

benchmark: $(VENV)/.train ## Measure both recipes against a plain training loop
	$(VENV)/bin/python scripts/benchmark.py $(ARGS)

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/.docs ## Build the documentation site: site/index.html
	$(RUN) mkdocs build --strict

clean: ## Remove caches, but neither runs nor data
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ganmnist needs Python 3.11 or newer; choose one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml constraints.txt
	$(RUN) pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.train
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@
