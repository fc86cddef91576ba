# Two commands do all the set-up: `make solve` and `make test`. Every target can be repeated and interrupted.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
# llama.cpp's AMX kernels die of an illegal instruction when gcc has built them (ggml-org/llama.cpp#26954).
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
NO_AMX := $(shell grep -qw amx_tile /proc/cpuinfo 2>/dev/null && $(CC) $(NO_AMX) -x c -fsyntax-only /dev/null 2>/dev/null && echo "$(NO_AMX)")

.PHONY: help setup solve test lint bench experiments soak engine clean
help:
	@echo "make setup   a virtual environment with everything in it ($(VENV)/bin/dreamprm)"
	@echo "make solve   set up, fetch the default models, solve examples/merge_intervals.md (with its examples, where an engine is ready)"
	@echo "make test    set up, start a container engine if there is none, run all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   measure the figures; JSON into benchmarks/results/"
	@echo "make experiments   does label correction work? planted noise and real rollouts, at full size; goes on where it stopped"
	@echo "make soak    the sandbox for some minutes: 10,000 gradings, a loaded machine, 50 starts, 500 gradings among kills"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== virtual environment in $(VENV)"
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "dreamprm needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "== packages (llama-cpp-python is compiled: some minutes the first time)"
	$(PIP) install --progress-bar on -c constraints.txt torch
	CMAKE_BUILD_PARALLEL_LEVEL=$${CMAKE_BUILD_PARALLEL_LEVEL:-$$(nproc)} CFLAGS="$$CFLAGS $(NO_AMX)" CXXFLAGS="$$CXXFLAGS $(NO_AMX)" \
	  $(PIP) install --progress-bar on -c constraints.txt -e ".[all,dev]"
	@touch $@

solve: setup
	@echo "== models (kept in the user's cache; checked by SHA-256)"
	$(BIN)/dreamprm models pull qwen2.5-coder-1.5b
	@echo "== solving examples/merge_intervals.md"
	@if $(BIN)/dreamprm sandbox status >/dev/null 2>&1; then set -x; $(BIN)/dreamprm solve examples/merge_intervals.md --examples; \
	else echo "(no container engine is ready: the examples are not run, the rewards alone choose; see make engine)"; \
	  set -x; $(BIN)/dreamprm solve examples/merge_intervals.md; fi

test: setup lint engine
	@echo "== models for the tests that use the real ones"
	$(BIN)/dreamprm models pull qwen2.5-coder-0.5b
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

engine: setup
	@echo "== container engine"
	sandbox/engine.sh

bench: setup engine
	$(BIN)/dreamprm models pull qwen2.5-coder-1.5b qwen2.5-coder-0.5b
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA))

# What a result's file holds already is not measured again: remove the file for that.
experiments: setup
	for name in planted real; do \
	  $(BIN)/python -m dreamprm_trainer.$$name --out benchmarks/results/$$name.json \
	  && $(BIN)/python -m dreamprm_trainer.experiment_report benchmarks/results/$$name.json > benchmarks/results/$$name.md \
	  || exit 1; done
	for pool in mbpp-dev-0.5b lcb-easy-train-1.5b; do \
	  $(BIN)/dreamprm bench --adherence --samples trainer/data/$$pool.jsonl.gz --json > benchmarks/results/adherence-$$pool.json \
	  || exit 1; done

soak: setup engine
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
