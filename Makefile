# The one entry for people and CI. `make` alone lists the targets; every target installs what it needs by itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=
export PYTHON VENV

BIN := $(VENV)/bin
# The venv's torch is often a CPU build: GPU_PYTHON=python3 takes the machine's own.
GPU_PYTHON ?= $(BIN)/python
CORE := $(VENV)/.reelmesh-core
FULL := $(VENV)/.reelmesh-full
BENCH := $(VENV)/.reelmesh-bench
SERVERS := $(VENV)/.reelmesh-servers
TRITON := $(VENV)/.reelmesh-triton

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"

# Two installs into one venv at a time would spoil it, whatever -j says.
.NOTPARALLEL:
.PHONY: help demo up test test-exports bench bench-engines bench-parts bench-gpu check format clean

help: ## List the targets
	@printf 'Reelmesh\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nARGS="..." is passed on, for example: make up ARGS="--http-port 9000"\n'

demo: $(CORE) $(TRITON) ## Start the mesh, make a podcast video of examples/podcast, check it, stop
	$(call say,Making examples/podcast into a video)
	@$(BIN)/reelmesh demo $(ARGS)

up: $(CORE) $(TRITON) ## Start the mesh and leave it running until Ctrl-C
	$(call say,Starting the mesh; Ctrl-C stops it)
	@$(BIN)/reelmesh up $(ARGS)

test: check $(TRITON) $(BENCH) $(SERVERS) ## Run every check, then the test suite but for slow exports
	$(call say,Running the tests)
	@$(BIN)/python -m pytest -n logical --no-loadscope-reorder -m "not slow_export" $(ARGS)

test-exports: $(FULL) ## Export the networks that take over eight seconds each, and prove them
	$(call say,Exporting and proving)
	@$(BIN)/python -m pytest -n logical --no-loadscope-reorder -m slow_export tests/optimize $(ARGS)

bench: $(FULL) $(TRITON) $(BENCH) $(SERVERS) ## Measure the mesh on this machine and print a summary
	$(call say,Measuring the mesh)
	@$(BIN)/python -m tests.servers.with_postgres $(BIN)/python -m loadtests.bench $(ARGS)

bench-engines: $(FULL) ## Measure engines against the libraries they run
	$(call say,Measuring the engines)
	@OMP_NUM_THREADS=2 $(BIN)/python -m bench.engines $(ARGS)

bench-parts: $(FULL) ## Export every part of the tiny models, and measure torch, ONNX Runtime and INT8
	$(call say,Exporting and measuring the parts)
	@OMP_NUM_THREADS=2 $(BIN)/python -m bench.parts $(ARGS)
	@OMP_NUM_THREADS=2 $(BIN)/python -m bench.int8

bench-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(FULL)) ## Measure full-size networks on this machine's GPU
	$(call say,Measuring the GPU)
	@$(GPU_PYTHON) bench/gpu $(ARGS)

check: $(FULL) ## Lint, format check, types, the import law, the model repository
	$(call say,ruff check)
	@$(BIN)/ruff check .
	$(call say,ruff format --check)
	@$(BIN)/ruff format --check .
	$(call say,mypy --strict)
	@$(BIN)/mypy
	$(call say,lint-imports)
	@$(BIN)/lint-imports
	$(call say,reelmesh models lint)
	@$(BIN)/reelmesh models lint

format: $(FULL) ## Rewrite the code as ruff formats it, with safe fixes
	$(call say,Formatting)
	@$(BIN)/ruff check --fix-only --quiet . || true
	@$(BIN)/ruff format .

clean: ## Remove the venv and caches; jobs and results in .reelmesh stay
	$(call say,Removing $(VENV) build and caches)
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORE): pyproject.toml scripts/bootstrap
	@if [ -f $(FULL) ] && [ $(FULL) -nt pyproject.toml ]; then :; else scripts/bootstrap core; fi
	@touch $@

$(FULL): pyproject.toml scripts/bootstrap tests/servers/node/package-lock.json
	@scripts/bootstrap full
	@touch $@

# The load generator, which is a Debian package.
$(BENCH): scripts/bootstrap
	@mkdir -p $(VENV)
	@scripts/bootstrap bench
	@touch $@

# The servers that the tests start, which are Debian packages.
$(SERVERS): scripts/bootstrap
	@mkdir -p $(VENV)
	@scripts/bootstrap servers
	@touch $@

# After whichever install there is; the wheel itself changes only with the installer.
$(TRITON): serving/backends/triton/install.py | $(CORE)
	@scripts/bootstrap triton
	@touch $@
