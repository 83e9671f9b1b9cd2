# Every target works on a fresh machine: it makes .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Tests start hundreds of processes: none should compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow lint bench docs clean
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

.venv/docs: .venv/run requirements-docs.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-docs.txt
	@touch $@

demo: .venv/run  ## the whole thing on this machine, with local sources
	$(BIN)/scrapy demo

test: .venv/dev  ## the tests, on real PostgreSQL
	$(BIN)/python -m pytest -m "not slow" -n 5 --dist worksteal --durations 15

test-slow: .venv/dev  ## the long tests; as root, with chromium, pgbouncer, faketime, iproute2
	$(BIN)/python -m pytest -m slow -n 5 --dist loadgroup --no-loadscope-reorder --durations 15

lint: .venv/dev  ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs  ## the documentation as a site, in build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

bench: .venv/dev  ## the benchmarks, each a ratio against a peer
	$(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and caches, not the data
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
