# `make help` lists the targets. Everything runs as root on Debian 12+ or Ubuntu 22.04+.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench clean
BIN := .venv/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: ## Install Debian packages, .venv and pylxc itself (quick when done before)
	@scripts/setup demo

demo: setup ## Boot a Debian 12 machine and look at it
	@scripts/demo

lint: ## Linter, format check, types, layers
	@scripts/setup test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## All checks and all tests; PYTEST_ARGS picks some, e.g. PYTEST_ARGS="tests/unit -x"
	@scripts/test $(PYTEST_ARGS)

docs: setup ## Write docs/options.md from the registry of configuration keys
	$(BIN)/python -m pylxc.config.docs > docs/options.md

bench: ## Measure pylxc beside LXD 5.0.2; BENCH_ARGS="--runs 3 --only exec"
	@scripts/setup demo
	@scripts/setup bench
	$(BIN)/python -m bench $(BENCH_ARGS)

clean: ## Remove what building and testing left in the tree (containers stay)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
