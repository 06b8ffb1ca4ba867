# OpenTriage. `make` alone lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
TRAIN_VENV := .venv-train
PIP_QUIET := --quiet --disable-pip-version-check --no-input
ARGS ?=

.PHONY: help demo test test-train test-viewers check format peers lock bench-inference bench-node clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## See it work: synthetic studies in, results in a stand-in PACS (ARGS="PATH..." for your own)
	@$(VENV)/bin/opentriage demo $(ARGS)

test: $(VENV)/.dev ## Run the tests (ARGS="-k name" to choose); those that need a peer skip loudly where `make peers` never ran
	@$(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-train: $(TRAIN_VENV)/.train ## Run the tests that need torch (about 5.5 GB to install)
	@$(TRAIN_VENV)/bin/mypy -p training
	@$(TRAIN_VENV)/bin/python -m pytest tests/train $(ARGS)

test-viewers: $(VENV)/.viewers ## See real results in OHIF, Orthanc and chromium (needs `make peers`; ARGS="--pictures docs/images" keeps pictures)
	@$(VENV)/bin/python -m pytest tests/viewers $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, layers, spelling, and that docs/conformance.md says what the code does
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell
	$(VENV)/bin/opentriage conformance --check

format: $(VENV)/.dev ## Put the code into shape
	$(VENV)/bin/ruff check --fix --exit-zero .
	$(VENV)/bin/ruff format .

peers: ## Install the Debian packages that the tests use as peers (needs root or sudo)
	@run=""; if [ "$$(id -u)" != 0 ]; then run=sudo; fi; \
	$$run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$run apt-get install -y -qq --no-install-recommends \
	    dcmtk dicom3tools orthanc orthanc-dicomweb libpixelmed-java default-jdk-headless postgresql chromium $$(command -v npm > /dev/null || echo npm) > /dev/null
	@touch .peers  # from now on a test that lacks one of them fails

bench-inference: $(VENV)/.dev ## Measure the model: T=50 against T=1, and one look from file to finding
	@PYTHONPATH=. $(VENV)/bin/python -m benchmarks.inference $(ARGS)

bench-node: $(VENV)/.dev ## Measure the whole node: last byte to report in the PACS
	@PYTHONPATH=. $(VENV)/bin/python -m benchmarks.node $(ARGS)

lock: $(VENV)/.dev ## Pin the newest versions that pyproject.toml allows
	@lock() { $(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --custom-compile-command "make lock" "$$@"; }; \
	lock --extra cpu -o requirements/cpu.txt; \
	lock --extra gpu -o requirements/gpu.txt; \
	lock --extra cpu --extra openvino --extra validate -o requirements/openvino.txt; \
	lock --extra cpu --extra postgres -o requirements/postgres.txt; \
	lock --extra cpu --extra dev --extra openvino --extra postgres -o requirements/dev.txt; \
	lock --extra cpu --extra dev --extra train -o requirements/train.txt; \
	lock --extra viewers --constraint requirements/dev.txt -o requirements/viewers.txt

clean: ## Remove what was built here
	rm -rf $(VENV) $(TRAIN_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "OpenTriage needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu the venv module is the package python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements/cpu.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing OpenTriage into $(VENV) (about a minute) ..."
	@$(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/cpu.txt
	@$(VENV)/bin/python -m pip install $(PIP_QUIET) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "Installing what development and tests need ..."
	@$(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.viewers: requirements/viewers.txt $(VENV)/.dev
	@echo "Installing what drives a browser ..."
	@$(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/viewers.txt
	@touch $@

$(TRAIN_VENV)/.train: requirements/train.txt pyproject.toml
	@test -x $(TRAIN_VENV)/bin/python || $(PYTHON) -m venv $(TRAIN_VENV)
	@echo "Installing torch into $(TRAIN_VENV) (about 5.5 GB) ..."
	@$(TRAIN_VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/train.txt
	@$(TRAIN_VENV)/bin/python -m pip install $(PIP_QUIET) --no-deps --editable .
	@touch $@
