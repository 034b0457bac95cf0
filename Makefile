# Every target sets up its own .venv first; nothing outside this folder is changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := setup.py requirements.txt
# An interpreter with torch and without adarank_jax, for the slow tests only.
TORCH_VENV := .venv-torch
TORCH ?= torch

.NOTPARALLEL:
.PHONY: run run-text test test-survival test-slow lint format check clean

run: $(VENV)/suite  ## merge the eight embedded experts and print the table
	$(BIN)/python -m experiments.run_vit

run-text: $(VENV)/text-demo  ## make seven text experts (once), merge, print the table
	$(BIN)/python -m experiments.run_glue

test: $(VENV)/dev  ## the default test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-survival: $(VENV)/dev  ## kills, damage, full disks: minutes, not hours
	$(BIN)/python -m pytest -m 'slow or not slow' -k 'not hundred and not thousand' \
		tests/experiments/test_survival.py tests/experiments/test_fuzz.py

test-slow: $(VENV)/dev $(TORCH_VENV)/ready  ## long runs, and comparisons with torch
	ADARANK_TORCH_PYTHON=$(CURDIR)/$(TORCH_VENV)/bin/python \
		$(BIN)/python -m pytest -m slow

lint: $(VENV)/dev  ## ruff, import-linter, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/dev  ## ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adarank_jax needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/suite $(VENV)/text-demo $(VENV)/dev: $(VENV)/%: $(SETUP) | $(BIN)/python
	@echo "Installing the packages of extra $* into $(VENV) (about 1 GB, once) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

$(TORCH_VENV)/ready:
	$(PYTHON) -m venv --clear $(TORCH_VENV)
	@echo "Installing $(TORCH) and transformers into $(TORCH_VENV) (large, once) ..."
	$(TORCH_VENV)/bin/python -m pip install --quiet $(TORCH) 'transformers>=5,<6' \
		safetensors pillow
	touch $@

clean:
	rm -rf $(VENV) $(TORCH_VENV) *.egg-info .pytest_cache .ruff_cache .import_linter_cache
