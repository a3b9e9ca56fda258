# Two commands do everything on a machine that has only Python, make and a network:
#   make demo    the whole system on drawn people, in minutes
#   make test    lint, types and tests
#
# uv is taken from the PATH, or else brought into .uv/ by `python -m venv`, because a system pip may
# be externally managed. Everything below .uv/ and .venv/ can be deleted at any time.

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
RUN := $(UV) run --locked --extra onnx

.DEFAULT_GOAL := help
.PHONY: help demo test lint types tests slow-tests environment wheel-check

help:
	@echo "make demo         draw people, cache a teacher, train with and without it, compare"
	@echo "make test         lint, types, tests, and the wheel in an empty environment"
	@echo "make slow-tests   the proofs that take minutes"

demo: environment
	$(RUN) distil demo

test: lint types tests wheel-check

lint: environment
	$(RUN) ruff check
	$(RUN) ruff format --check

types: environment
	$(RUN) mypy

tests: environment
	$(RUN) pytest -m "not slow"

slow-tests: environment
	$(RUN) pytest -m slow

# The wheel must work alone: built, installed into an environment of its own, and asked for help.
wheel-check: environment
	rm -rf dist .uv/wheel
	$(UV) build --wheel --quiet
	$(UV) venv --quiet .uv/wheel
	$(UV) pip install --quiet --python .uv/wheel --no-deps dist/*.whl
	$(UV) pip install --quiet --python .uv/wheel click
	cd .uv/wheel && bin/distil --help > /dev/null

environment: $(UV)
	$(UV) sync --locked --extra onnx --quiet

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=0.9"
