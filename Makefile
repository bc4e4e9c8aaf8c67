# make up      a cluster on this machine and a chat that shows the reuse of its KV cache
# make test    linters, types, imports, tests
# The first run makes .venv (about two minutes); later ones only when the pins changed.

SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
PINS := pyproject.toml constraints.txt constraints-cuda.txt requirements-storage.txt requirements-sglang.txt \
	requirements-cluster.txt scripts/setup.sh
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
FAST := not slow and not cluster$(if $(HAS_GPU),, and not gpu)
FULL := not cluster$(if $(HAS_GPU),, and not gpu)

.DEFAULT_GOAL := help
.PHONY: help setup up bench lint test test-unit test-full clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): $(PINS)
	@PYTHON="$(PYTHON)" bash scripts/setup.sh
	@touch $@

setup: $(STAMP) ## Make .venv with the pinned dependencies
	@:

up: $(STAMP) ## Start a cluster on loopback, hold a chat, serve (ARGS="--port 9000 --once")
	@$(BIN)/kvloop up $(ARGS)

lint: $(STAMP) ## Style, types and imports between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Most tests wait for other processes: two files at a time, whole loops beside loops only.
LOOPS := tests/integration/loop tests/integration/engine
# Exit status 5 is no fault where ARGS chose no test of one half.
NONE_CHOSEN := { [ $$? = 5 ] && [ -n '$(ARGS)' ]; }
PARTS = -m "$(1)" $(LOOPS:%=--ignore=%) -n 2 --dist loadfile $(ARGS)
WHOLE = -m "$(1)" $(LOOPS) -n 2 --dist loadfile $(ARGS)

# One Kubernetes for all of them, so one process.
CLUSTER = -m "$(1)" tests/cluster $(ARGS)

# Of a few that failed each runs once more, alone: scripts/run_tests.py tells which those were.
TWICE = $(BIN)/python scripts/run_tests.py
test: lint ## Everything that runs in minutes (ARGS="-k name")
	$(TWICE) parts $(call PARTS,$(FAST)) || $(NONE_CHOSEN)
	$(TWICE) loops $(call WHOLE,$(FAST)) || $(NONE_CHOSEN)
	$(TWICE) cluster $(call CLUSTER,cluster and not slow) || $(NONE_CHOSEN)

test-unit: $(STAMP) ## Only the tests that start no process
	$(BIN)/pytest tests/unit $(ARGS)

# The loops run whatever the parts came to, and what became of all tests is written down.
REPORTS := build/test-full
test-full: export KVLOOP_TESTS := full
test-full: lint ## The slow tests too; the outcome goes to docs/test-full.md
	@rm -rf $(REPORTS)
	@failed=0; commit=$$(git describe --always --dirty --abbrev=12 --exclude '*'); \
	$(BIN)/pytest $(call PARTS,$(FULL)) --junitxml=$(REPORTS)/parts.xml || $(NONE_CHOSEN) || failed=1; \
	$(BIN)/pytest $(call WHOLE,$(FULL)) --junitxml=$(REPORTS)/loops.xml || $(NONE_CHOSEN) || failed=1; \
	$(BIN)/pytest $(call CLUSTER,cluster) --junitxml=$(REPORTS)/cluster.xml || $(NONE_CHOSEN) || failed=1; \
	if [ -z '$(ARGS)' ]; then \
		$(BIN)/python scripts/record_test_full.py --commit "$$commit" \
			$(REPORTS)/parts.xml $(REPORTS)/loops.xml $(REPORTS)/cluster.xml || failed=1; \
	fi; \
	exit $$failed

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
