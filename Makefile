PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready
.DEFAULT_GOAL := demo
.PHONY: setup demo test lint

setup: $(READY)

demo: $(READY)
	$(VENV)/bin/vpbench demo

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	touch $@
