PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
# modules are compiled when they are first imported, as few are; compiling all of them takes pip a minute
PIP := PIP_COMPILE=0 $(VENV)/bin/python -m pip install --disable-pip-version-check -q
.DEFAULT_GOAL := demo
.PHONY: setup demo test lint
.NOTPARALLEL:

setup: $(RUN)

demo: $(RUN)
	$(VENV)/bin/vpbench demo

test: $(DEV)
	$(VENV)/bin/python -m pytest

lint: $(DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(DEV): EXTRA := [dev]
$(RUN) $(DEV): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; name one that is, as in: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".$(EXTRA)" || \
		{ echo "nothing was installed (see above); pip needs the network once, or PIP_FIND_LINKS=<folder of wheels>" >&2; exit 1; }
	@touch $(RUN) $@
