# `make demo` and `make test` set up all that they need in .venv, from Python alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := test
.PHONY: install demo test lint unit faults clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "streamgen: installing into $(VENV) (torch is the large part: minutes on a slow line)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "streamgen needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[test]'
	@touch $@

demo: install
	@$(BIN)/streamgen demo

test: install lint unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: install
	$(BIN)/python -m pytest

# Some 5 s a fault; what was played is kept, and running it again goes on: make faults N=300 SEED=1
N ?= 300
SEED ?= 1
REPORT ?= build/faults/report-$(SEED)-of-$(N).md

faults: install
	$(BIN)/python tests/faults/campaign.py --faults $(N) --seed $(SEED) --folder build/faults --report $(REPORT)

clean:
	rm -rf $(VENV) dist build demo-output
