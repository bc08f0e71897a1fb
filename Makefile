# Newcomers: `make serve` and `make test` are the two commands. Everything installs into .venv.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8080
MODEL ?= smollm2
VARIANT ?= auto
NAME ?=
ARGS ?=

VENV := .venv
CLIENTS := .cache/clients
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt --editable
EXPORT = $(BIN)/basert export '$(MODEL)' $(if $(NAME),--name '$(NAME)')
EXPORTED = set -e; name=$$($(EXPORT) --print-name); $(EXPORT) --if-missing --variant $(VARIANT)

.DEFAULT_GOAL := help
.PHONY: help serve export test lint format bench bench-peers clean install-service uninstall-service

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip setuptools
	touch $@

# The stamps order themselves: test's environment is a superset of run's.
$(VENV)/.run: $(VENV)/.made setup.cfg constraints.txt
	@echo "installing basert with its exporter into $(VENV) (a few minutes the first time)"
	$(INSTALL) '.[cpu,audio,export,peers]'
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(INSTALL) '.[cpu,openvino,audio,postgres,export,signing,peers,test,dev]'
	touch $@

tests/node/node_modules/.made: tests/node/package.json
	cd tests/node && npm install --no-audit --no-fund --silent
	touch $@

# Client libraries whose packages do not go with ours.
$(CLIENTS)/.made: tests/clients/requirements.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	touch $@

serve: $(VENV)/.run ## export MODEL=<source> [VARIANT=…] [NAME=…] once, then serve it on PORT (ARGS= adds flags)
	@$(EXPORTED); exec $(BIN)/basert serve "$$name" --port $(PORT) $(ARGS)

export: $(VENV)/.run ## compile MODEL=<source> [VARIANT=…] [NAME=…] into the store
	$(EXPORT) --variant $(VARIANT) $(ARGS)

test: lint tests/node/node_modules/.made $(CLIENTS)/.made ## the whole gate: lint, then every test
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test ## rewrite the code as ruff would have it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.run ## measure MODEL: prefill, decode, concurrency (ARGS= goes to `basert bench`)
	@$(EXPORTED); exec $(BIN)/basert bench "$$name" $(ARGS)

bench-peers: $(VENV)/.run ## measure MODEL beside llama.cpp and others (ARGS= goes to `basert bench-peers`)
	@$(EXPORTED); exec $(BIN)/basert bench-peers "$$name" $(ARGS)

install-service: ## install the systemd units (as root)
	deploy/install.sh install

uninstall-service: ## remove the systemd units (as root)
	deploy/install.sh uninstall

clean: ## remove everything that was made here, the store excepted
	rm -rf $(VENV) build dist *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
