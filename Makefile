# Two commands do everything on a machine that has only Python, make and a network:
#   make demo    the whole system on drawn people, in minutes
#   make test    lint, types, tests, and the wheel in an empty environment
#
# uv is taken from the PATH, or else brought into .uv/ by `python -m venv`, because a system pip may
# be externally managed. Everything below .uv/, .venv/, build/ and demo/ can be deleted at any time.

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
EXTRAS := --extra onnx --extra objects --extra plots --extra pretrained --extra video --extra huggingface
RUN := $(UV) run --locked $(EXTRAS)

.DEFAULT_GOAL := help
.PHONY: help demo demo-teacher test lint types tests slow-tests environment wheel-check

help:
	@echo "make demo          draw people, cache a teacher, train with and without it, compare"
	@echo "make test          lint, types, tests, and the wheel in an empty environment"
	@echo "make slow-tests    the proofs that take minutes"
	@echo "make demo-teacher  train the demo's teacher anew (over an hour)"

# The folder is the demo's own: what an earlier demo left there is replaced.
demo: environment
	rm -rf demo
	$(RUN) distil demo --output demo

# How stages/demo_teacher.safetensors was made: other drawn people than the demo's,
# settings in stages/presets/demo-teacher.toml, weights kept as float16. An interrupted training goes
# on when the target is made again.
DEMO_TEACHER := build/demo-teacher
demo-teacher: environment
	test -f $(DEMO_TEACHER)/people/annotations.json || \
		$(RUN) distil draw-people --output $(DEMO_TEACHER)/people --images 4000 --seed 1
	$(RUN) distil train-teacher --preset demo-teacher \
		--annotations $(DEMO_TEACHER)/people/annotations.json --images $(DEMO_TEACHER)/people/images \
		--run-folder $(DEMO_TEACHER)/run --float16-copy $(DEMO_TEACHER)/demo_teacher.safetensors \
		$$(test -f $(DEMO_TEACHER)/run/config.json && echo --resume)
	cp $(DEMO_TEACHER)/demo_teacher.safetensors stages/demo_teacher.safetensors

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

# The wheel must work alone: built, installed with what it says it needs for --help into an
# environment of its own, and asked for help; it must hold the demo's teacher and the presets.
wheel-check: environment
	rm -rf build/wheel
	$(UV) build --wheel --quiet --out-dir build/wheel
	$(UV) venv --quiet build/wheel/environment
	$(UV) pip install --quiet --python build/wheel/environment --no-deps build/wheel/*.whl
	$(UV) pip install --quiet --python build/wheel/environment click
	cd build/wheel/environment && bin/distil --help > help.txt
	$(RUN) python -m zipfile --list build/wheel/*.whl > build/wheel/contents.txt
	for file in stages/demo_teacher.safetensors stages/presets/demo.toml stages/presets/distilpose-s.toml \
			pipeline/report/report.html.jinja; do \
		grep -q "$$file" build/wheel/contents.txt || { echo "the wheel lacks $$file"; exit 1; }; \
	done

environment: $(UV)
	$(UV) sync --locked $(EXTRAS) --quiet

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=0.9"
