# One word per chore, the same at home and in CI. Every target sets up .venv by itself; nothing else is needed than
# make and Python 3.11 or newer.
#
#     make demo       colour photographs with the model that comes with gancolor, then train it further: before and after
#     make test       the quick tests            make bench      what benchmarks/ measures (minutes)
#                     (MARK=slow: the others)
#     make lint       ruff, mypy, imports, names  make docs       check links and docs/cli.md
#     make setup      only the environment       make clean      remove .venv and what tools left behind
#
# PYTHON=python3.12 chooses the interpreter for a new .venv; pip's own variables (PIP_FIND_LINKS, ...) are respected.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp: .venv is complete as long as setup.cfg and constraints.txt are older. The half mark: something broke off.
STAMP := $(VENV)/.complete
HALF := $(VENV)/.half

# Environments cannot be moved: scripts and the editable install name the folder that the stamp holds.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell cat $(STAMP)),$(CURDIR))
$(shell mv $(STAMP) $(HALF))
endif
endif

DEMO_FLAGS ?= --image-size 96 --batch-size 8 --backbone-weights none --lr 5e-4 --warmup 0.1 --val-pictures 50 --time-limit 2m
MARK ?= not slow
TEST_FLAGS ?=
# DOCS_FLAGS=--write writes docs/cli.md afresh
DOCS_FLAGS ?=

.PHONY: help setup demo test lint bench docs clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): setup.cfg constraints.txt
	@command -v $(PYTHON) >/dev/null \
	  || { echo "make: Python must be installed, found no '$(PYTHON)'; try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: Python must be 3.11 or newer, got $$($(PYTHON) -V 2>&1 | head -n 1); try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "make: Python must have its venv module, $(PYTHON) has none; on Debian: apt install python3-venv" >&2; exit 1; }
	@if [ -e $(HALF) ] || [ ! -e $(BIN)/python ]; then \
	  echo "creating $(VENV) with $$($(PYTHON) -V)"; \
	  rm -rf $(VENV) && mkdir $(VENV) && touch $(HALF) && $(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -c 'import pip' 2>/dev/null \
	  || { echo "make: $(VENV) must have pip, this one has not; remove $(VENV) and make sets up its own" >&2; exit 1; }
	@touch $(HALF) && rm -f $(STAMP)
	@echo "installing gancolor and its tools into $(VENV) (torch is large: some minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@rm -f $(HALF) && echo '$(CURDIR)' > $(STAMP)
	@echo "ready; to use it by hand: . $(BIN)/activate"

demo: setup
	$(BIN)/python docs/demo.py photographs
	@echo
	@echo "Now general is trained further, against a discriminator, on generated still lifes: two minutes."
	$(BIN)/gancolor train --dataset still-life --init general --name demo $(DEMO_FLAGS)
	$(BIN)/python docs/demo.py tuned demo
	@echo
	@echo "Watch the training: . $(BIN)/activate && tensorboard --logdir $${GANCOLOR_RUNS:-runs}"

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 -m "$(MARK)" $(TEST_FLAGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/names.py

bench: setup
	@for script in data prepare train_step sample discriminator fusion encoders upsampling; do \
	  echo "== benchmarks/$$script.py"; $(BIN)/python "benchmarks/$$script.py" || exit 1; \
	done

docs: setup
	$(BIN)/python docs/check.py $(DOCS_FLAGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find gancolor tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
