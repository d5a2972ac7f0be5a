# `make run` and `make test` need Python 3.11+ (with venv), make and git, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= .pool5
IMAGES ?=

.PHONY: run test test-fast test-long lint format image image-test clean

run: $(VENV)/.run
	POOL5_DATA="$(DATA)" $(BIN)/pool5 serve $(if $(IMAGES),--index "$(IMAGES)",--demo)

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not browser and not long"

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest -m long --timeout 3600

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

image:
	docker build --target cpu -t pool5:cpu .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.run

image-test:
	tests/deployment/build_image.sh cpu $(BUILD)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
