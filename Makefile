# Everything runs from the project's own virtual environment, .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP_VERSION := 26.3
STAMP := .venv/.installed
COMPLAINTS := .venv/install.log
SHELL := bash
# What pip prints, in few lines: the large files, a count of the others, and when it unpacks them.
PROGRESS := awk '/^ *(Downloading|Using cached|Processing) .*(whl|gz)/ && !/metadata/ { n++; \
	if (/\([0-9.]+ GB|\([0-9][0-9][0-9]+\.[0-9] MB/) print "  " $$0; \
	else if (n % 50 == 0) print "  " n " packages fetched" } \
	/^Installing collected/ { print "  " split($$0, names, ",") " packages are unpacked now, some minutes without a word" } { fflush() }'

# Files in the order of tests/conftest.py, slow ones first, so that no process waits for the other.
BY_FILE := -n 2 --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DVC_STUDIO_OFFLINE := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help install run demo test test-all check docs docs-serve ui serve-flows

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with the pinned versions (once; again when they change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 install")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv: 7 GB on the disk, of which PyTorch and its GPU libraries 5 GB."
	@echo "It takes two and a half minutes on two cores, plus the time to fetch them, once."
	@$(BIN)/python -m pip install --quiet --root-user-action ignore --upgrade pip==$(PIP_VERSION) 2>$(COMPLAINTS) \
		|| { cat $(COMPLAINTS) >&2; exit 1; }
	@set -o pipefail; $(BIN)/python -m pip install --root-user-action ignore -c constraints.txt -e ".[dev]" 2>$(COMPLAINTS) \
		| $(PROGRESS) || { cat $(COMPLAINTS) >&2; exit 1; }
	@echo "Installed: $$(du -sh .venv | cut -f1) in .venv"
	@touch $@

run: install ## run the pipeline (what changed only), print the results and the report's path
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "make run: this folder is no Git repository, which DVC needs: clone the project with git, or run git init here" >&2; exit 2; }
	@export IRGEN_BUILD=run-$$(date +%Y%m%d-%H%M%S)-$$$$; $(BIN)/dvc repro && $(BIN)/irgen results

demo: install ## search the index in a browser
	@$(BIN)/irgen serve --open

test: install ## run the tests that need no server and no patience (six minutes)
	$(BIN)/pytest -n 2 -m "not slow"

test-all: install ## run all tests: servers, kills, whole pipelines (half an hour)
	$(BIN)/pytest $(BY_FILE) -m ""

docs: install ## build these pages into site/, strictly
	@$(BIN)/mkdocs build --strict

docs-serve: install ## show the pages at http://127.0.0.1:8000, rebuilt on every change
	@$(BIN)/mkdocs serve

check: install ## what CI runs: lint, format, types, docs, all tests but the longest scenarios
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) docs
	$(BIN)/pytest $(BY_FILE)

ui: install ## open the MLflow UI on this project's runs
	@$(BIN)/irgen ui

serve-flows: install ## serve the flows: builds, updates and retrains by schedule and event
	@IRGEN_ROOT="$(CURDIR)" $(BIN)/python -m flows.serve
