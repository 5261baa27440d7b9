# Everything happens in one virtual environment, made when it is first needed. `make help` lists the targets.
#   VENV=path     another environment, also one that exists
#   PYTHON=name   the Python to make it with
#   TORCH=...     another torch than that of constraints.txt: TORCH=torch==2.9.1, or TORCH= to keep the one that is there

VENV ?= .venv
PYTHON ?= python3.11 python3.12 python3
TORCH ?= $(shell grep '^torch==' constraints.txt)

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# strict: only the listed packages become importable, under their names below `remedy` (see pyproject.toml)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --config-settings editable_mode=strict --no-build-isolation

.DEFAULT_GOAL := help
.PHONY: help demo dev test check docs link clean FORCE

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: link  ## find what repairs examples/wide_softmax.py
	$(BIN)/remedy submit examples/wide_softmax.py:training

dev: link  ## install remedy, editable, with all its tools

# One thread each: several at once that share two cores wait for one another's most of the time.
test: link  ## the tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --dist loadfile

check: link  ## style, types and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p remedy
	$(BIN)/lint-imports --no-logo

docs: link  ## write docs/ from the catalogue
	$(BIN)/python -m remedy.commands.pages docs

clean:  ## remove the environment and all that was built; studies (.remedy/) stay
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A strict editable install is a tree of links to the files there were: new files are seen after it is made again.
link: $(STAMP)
	@$(INSTALL) --quiet --no-deps --editable .

# Written anew only when it differs, so that another TORCH is installed and the same one is not.
$(VENV)/constraints.txt: FORCE
	@mkdir -p $(VENV)
	@sed 's|^torch==.*|$(TORCH)|' constraints.txt | cmp --silent - $@ || sed 's|^torch==.*|$(TORCH)|' constraints.txt > $@
FORCE:

$(STAMP): pyproject.toml $(VENV)/constraints.txt
	@found=; \
	if [ ! -x $(BIN)/python ]; then \
	    for python in $(PYTHON); do \
	        if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "remedy needs Python 3.11 or newer, and none of these is one: $(PYTHON). Name another with PYTHON=..." >&2; exit 1; \
	    fi; \
	    echo "Making $(VENV) with $$($$found --version). The first time takes some minutes."; \
	    $$found -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(VENV)/constraints.txt setuptools
	$(INSTALL) --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@
