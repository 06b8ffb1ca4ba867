# OpenTriage. `make` alone lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
TRAIN_VENV := .venv-train
# A package index or a mirror that is slow or away for a minute is asked again.
AGAIN := again() { "$$@" || { sleep 20; "$$@"; } || { sleep 60; "$$@"; }; }; again
PIP_QUIET := --quiet --disable-pip-version-check --no-input --retries 10 --timeout 60
APT := apt-get -qq -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300
export UV_HTTP_TIMEOUT ?= 120
export UV_HTTP_RETRIES ?= 10
SBOM_VENV := .venv-sbom
SHARED_OUT := --numprocesses auto --dist loadfile
EXTRA ?= cpu
ARGS ?=

.PHONY: help demo test test-acceptance test-peers test-page test-train test-viewers torture torture-hospital fuzz check safety sbom format peers lock bench-inference bench-receive bench-node clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## See it work: synthetic studies in, results in a stand-in PACS (ARGS="PATH..." for your own)
	@$(VENV)/bin/opentriage demo $(ARGS)

test: $(VENV)/.dev ## Run the tests (ARGS="-k name" to choose); those that need a peer skip loudly where `make peers` never ran
	@$(VENV)/bin/python -m pytest $(SHARED_OUT) $(ARGS)

test-acceptance: $(VENV)/.dev ## What the node promises, each held against a whole one (better after `make peers`)
	@$(VENV)/bin/python -m pytest tests/acceptance $(SHARED_OUT) $(ARGS)

test-peers: $(VENV)/.dev ## Hold what is sent against validators and archives of others, the slow ones (needs `make peers`)
	@$(VENV)/bin/python -m pytest tests/peers --timeout 600 $(SHARED_OUT) $(ARGS)

test-train: $(TRAIN_VENV)/.train ## Run the tests that need torch (about 5.5 GB to install)
	@$(TRAIN_VENV)/bin/mypy -p training
	@$(TRAIN_VENV)/bin/python -m pytest tests/train --timeout 600 $(ARGS)

test-viewers: $(VENV)/.viewers ## See real results in OHIF, Orthanc and chromium (needs `make peers`; ARGS="--pictures docs/images" keeps pictures)
	@$(VENV)/bin/python -m pytest tests/viewers --timeout 600 $(ARGS)

test-page: $(VENV)/.viewers ## Use the page in chromium as a reader does (needs `make peers`; ARGS="--pictures docs/images" keeps pictures)
	@$(VENV)/bin/python -m pytest tests/page --timeout 600 $(ARGS)

torture: $(VENV)/.dev ## Break the node's surroundings and count what it loses (ARGS="--experiments 1,2 --long"; docs/torture.md)
	@PYTHONPATH=. $(VENV)/bin/python -m tests.torture $(ARGS)

torture-hospital: $(VENV)/.dev ## Hostile images, broken models, strangers, an audit server that is away: what the node does with them (docs/torture.md)
	@PYTHONPATH=. $(VENV)/bin/python -m tests.torture --suite hospital $(ARGS)

fuzz: $(VENV)/.dev ## Damaged bytes into everything that a stranger's bytes reach (ARGS="--minutes 10"; the short form is in `make test`)
	@PYTHONPATH=. $(VENV)/bin/python -m tests.fuzz $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, layers, spelling, and that the generated documents say what the code does
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell
	$(VENV)/bin/opentriage conformance --check
	$(VENV)/bin/python -m tools.safety --check

safety: $(VENV)/.viewers ## Run what stands against each hazard, and write docs/safety.md
	@PYTHONPATH=. $(VENV)/bin/python -m tools.safety --run

sbom: $(VENV)/.dev ## Write dist/opentriage-EXTRA.cdx.json, the bill of materials (EXTRA=cpu|gpu|openvino|postgres)
	@rm -rf $(SBOM_VENV) && $(PYTHON) -m venv --without-pip $(SBOM_VENV)
	@$(AGAIN) $(VENV)/bin/uv pip install --quiet --python $(SBOM_VENV)/bin/python --require-hashes -r requirements/$(EXTRA).txt
	@PYTHONPATH=. $(VENV)/bin/python -m tools.sbom --python $(SBOM_VENV)/bin/python \
	    --requirements requirements/$(EXTRA).txt --output dist/opentriage-$(EXTRA).cdx.json

format: $(VENV)/.dev ## Put the code into shape
	$(VENV)/bin/ruff check --fix --exit-zero .
	$(VENV)/bin/ruff format .

peers: ## Install the Debian packages that the tests use as peers (needs root or sudo)
	@run=""; if [ "$$(id -u)" != 0 ]; then run=sudo; fi; \
	peers() { $$run $(APT) "$$@" update && $$run env DEBIAN_FRONTEND=noninteractive \
	    $(APT) install -y --no-install-recommends \
	    dcmtk dicom3tools orthanc orthanc-dicomweb libpixelmed-java default-jdk-headless postgresql prometheus chromium \
	    gcc libc6-dev bubblewrap openssl $$(command -v npm > /dev/null || echo npm) > /dev/null; }; \
	$(AGAIN) peers -o APT::Update::Error-Mode=any || peers
	@touch .peers  # from now on a test that lacks one of them fails

bench-inference: $(VENV)/.dev ## Measure the model: T=50 against T=1, and one look from file to finding
	@PYTHONPATH=. $(VENV)/bin/python -m benchmarks.inference $(ARGS)

bench-receive: $(VENV)/.dev ## Measure receivers side by side (needs `make peers`; ARGS="--quick", "--write")
	@PYTHONPATH=. $(VENV)/bin/python -m benchmarks.receive $(ARGS)

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
	rm -rf $(VENV) $(TRAIN_VENV) $(SBOM_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "OpenTriage needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu the venv module is the package python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements/cpu.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing OpenTriage into $(VENV) (about a minute) ..."
	@$(AGAIN) $(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/cpu.txt
	@$(AGAIN) $(VENV)/bin/python -m pip install $(PIP_QUIET) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@echo "Installing what development and tests need ..."
	@$(AGAIN) $(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.viewers: requirements/viewers.txt $(VENV)/.dev
	@echo "Installing what drives a browser ..."
	@$(AGAIN) $(VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/viewers.txt
	@touch $@

$(TRAIN_VENV)/.train: requirements/train.txt pyproject.toml
	@test -x $(TRAIN_VENV)/bin/python || $(PYTHON) -m venv $(TRAIN_VENV)
	@echo "Installing torch into $(TRAIN_VENV) (about 5.5 GB) ..."
	@$(AGAIN) $(TRAIN_VENV)/bin/python -m pip install $(PIP_QUIET) --require-hashes -r requirements/train.txt
	@$(AGAIN) $(TRAIN_VENV)/bin/python -m pip install $(PIP_QUIET) --no-deps --editable .
	@touch $@
