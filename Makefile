# Every target makes the environment it needs (.venv), so a fresh clone needs only Python >= 3.11 and make.
#
#   make demo                       the whole job, from raw text to a searched encoder
#   make test                       the tests
#   make PYTHON=python3.12 test     another Python
#   make TORCH=torch==2.14.0 demo   another torch
#   make CONSTRAINT= TORCH_INDEX= demo   torch as pip finds it, accelerator or not
#
# Torch: where no NVIDIA driver is found, constraints/cpu.txt admits the CPU build alone. It is taken from where pip is
# set up to look, and if it is not there, from TORCH_INDEX, PyTorch's own index of CPU builds.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV ?= .venv
JOBS ?= 2
TORCH ?= torch>=2.11
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
CONSTRAINT ?= constraints/cpu.txt
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

BIN := $(VENV)/bin
PIP := $(if $(CONSTRAINT),PIP_CONSTRAINT='$(abspath $(CONSTRAINT))') $(BIN)/python -m pip --disable-pip-version-check install -qq
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow real older lint check format bench extras clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(VENV)/.all ## train, fine-tune, index and search, on text every Python has
	$(BIN)/bothways demo

test: $(VENV)/.dev ## the tests and the documentation's code, without the long ones
	$(PYTEST) -m "not slow" -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.dev ## the long tests
	$(PYTEST) -m slow --timeout 3000

real: $(VENV)/.real ## the tests on published checkpoints, with those whose packages do not fit beside ours (80 MB)
	PYTHONPATH="$(abspath $(VENV)/real)" $(PYTEST) tests/real

older: $(VENV)/.dev ## does transformers 4 read what we write?
	$(BIN)/python scripts/check_older.py

lint: $(VENV)/.dev ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

check: lint test ## lint and test

format: $(VENV)/.dev ## mend style where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## every benchmark; each writes benchmarks/results/*.json
	set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

extras: $(VENV)/.dev ## try the newest and the lowest dependencies
	$(BIN)/python scripts/check_extras.py

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Torch goes first and alone: once it is there, nothing that depends on it looks for another build.
$(VENV)/.torch: $(CONSTRAINT)
	@test -n "$(PYTHON)" || { echo "no Python found; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bothways needs Python 3.11 or newer: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV) (once; a minute or two)"
	@$(PIP) '$(TORCH)'$(if $(TORCH_INDEX), 2>/dev/null || $(PIP) --index-url $(TORCH_INDEX) '$(TORCH)')
	@touch $@

$(VENV)/.all: $(VENV)/.torch pyproject.toml
	@echo "installing bothways and what it needs into $(VENV)"
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing bothways and the developers' tools into $(VENV)"
	@$(PIP) --editable '.[all,dev]'
	@touch $(VENV)/.all $@

# Packages read as files: what they ask for is too old.
$(VENV)/.real: | $(VENV)/.dev
	@$(PIP) --no-deps --target $(VENV)/real rxnmapper==0.4.3 rxnfp==0.1.0
	@touch $@
