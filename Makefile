# make setup        a virtual environment in .venv with every package at its pinned version
# make quickstart   the main job on this machine: a sweep, its champion, six predictions
# make test         the tests (TEST_ARGS='-k spec' narrows them)
# make check        formatting, lint, import rows, types
# make fmt          put the formatting right
# make bench        the benchmarks of the engine's claims, small, on the data in TUNERY_DATA; `make bench-memory` is one
#                   of them, and benchmarks/README.md has the commands of the full size
# PYTHON=... names the interpreter that set-up uses; it must be Python 3.11 or later.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTHON ?=
TEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BENCH_rivals := --max-train 640 --max-eval 200 --repeats 1
BENCH_makespan := --tasks cola --trials 4 --padded-trials 1 --max-train 256 --max-eval 128
BENCH_throughput := --lengths cola --seats 1 4 16 --seconds 1
BENCH_memory := --lengths cola --seats 1 4 16
BENCH_gpu := --seconds 4
BENCHES := rivals makespan throughput memory $(if $(shell command -v nvidia-smi),gpu)

.PHONY: setup check test fmt bench quickstart
.DEFAULT_GOAL := setup

setup: $(STAMP)

# A shim may be on the PATH without a working interpreter behind it, and some systems ship Python without
# ensurepip: so each candidate is run, not only found.
$(STAMP): pyproject.toml constraints.txt
	@if [ ! -x $(BIN)/python ]; then \
	  found=; \
	  for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found="$$candidate"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make setup: no Python 3.11 or later with the modules venv and ensurepip was found." >&2; \
	    echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name one: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "make setup: $(VENV) from $$found"; \
	  "$$found" -m venv $(VENV) || exit 1; \
	fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

fmt: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(BENCHES:%=bench-%)
	$(if $(filter gpu,$(BENCHES)),,@echo "benchmarks.gpu was not run: no GPU here")

bench-%: setup
	$(BIN)/python -m benchmarks.$* $(BENCH_$*)

quickstart: setup
	$(BIN)/platform submit specs/quickstart.yaml
	@echo
	$(BIN)/platform predict quickstart-acceptability --demo
