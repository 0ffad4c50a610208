# Everything runs from the project's own virtual environment, .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP_VERSION := 26.3
STAMP := .venv/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DVC_STUDIO_OFFLINE := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install run test scenario check ui serve-flows

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with the pinned versions (once; again when they change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 install")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --upgrade pip==$(PIP_VERSION)
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

run: install ## run the pipeline (what changed only), print the results and the report's path
	@export IRGEN_BUILD=run-$$(date +%Y%m%d-%H%M%S)-$$$$; $(BIN)/dvc repro && $(BIN)/irgen results

test: install ## run the tests
	$(BIN)/pytest

scenario: install ## run the whole pipeline with all its servers, as tests (some ten minutes)
	$(BIN)/pytest -m scenario

check: install ## what CI runs: lint, format, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

ui: install ## open the MLflow UI on this project's runs
	@$(BIN)/irgen ui

serve-flows: install ## serve the flows: builds, updates and retrains by schedule and event
	@IRGEN_ROOT="$(CURDIR)" $(BIN)/python -m flows.serve
