PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -q
# pip would compile thousands of modules that nobody imports; Python compiles the others once, if it may keep that
export PIP_COMPILE := 0
export PYTHONDONTWRITEBYTECODE :=
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
	$(VENV)/bin/python -c 'import vpbench.cli, vpbench.run.group, vpbench.tasks.recognition, vpbench.tasks.detection, \
		vpbench.render.figures.catalog, vpbench.render.report.content, vpbench.render.report.page, \
		torch, pandas, pyarrow.parquet, matplotlib.figure, matplotlib.backends.backend_agg'
	@touch $(RUN) $@
