# Everything a checkout can do. Needs python3 (3.11 or later) with venv and pip; the rest goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
SEED ?= 0
ROUNDS ?= 40

QUICK := not sim and not conformance and not torture
# Clusters of processes. Their tests mostly wait: two at a time leave half of two processors to those that look at the
# clock. The tests of a file share a cluster, and so stay together.
PROCESSES := tests/integration tests/docs/test_walkthrough.py tests/docs/test_members.py
# Tests start some hundreds of processes: what is compiled once is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help cluster test lint bench bench-self bench-failover bench-recipes bench-curves bench-steady torture sim mutants conformance docs clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

cluster: $(VENV)/.base ## run three nodes in this terminal, with keys to kill and pause them; Ctrl-C ends all
	@exec $(BIN)/coord dev

test: lint ## check everything: ruff, mypy, pytest (some minutes)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(QUICK)" $(PROCESSES:%=--ignore=%)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "$(QUICK)" $(PROCESSES)

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## compare with etcd, side by side on this machine; ARGS="--rows lock --pairs 9" (a quarter of an hour)
	$(BIN)/python bench/side_by_side.py $(ARGS)

bench-self: $(VENV)/.dev ## measure throughput, latency, memory and stalls of coord alone (some minutes)
	$(BIN)/python bench/load.py --nodes 3 --rows
	$(BIN)/python bench/load.py --conns 1 --clients 1 --total 5000
	$(BIN)/python bench/load.py --conns 10 --clients 1000
	$(BIN)/python bench/size.py

bench-failover: $(VENV)/.dev ## kill and pause the leader of three nodes 30 times under load, and restart all in turn (ten minutes)
	$(BIN)/python bench/failover.py --kills 30 --pauses 30 --rolling 3 $(ARGS)

bench-recipes: $(VENV)/.dev ## measure locks, crowds of waiters, leases that expire together, many sessions (some minutes)
	$(BIN)/python bench/recipes.py

bench-curves: $(VENV)/.dev ## measure coord over clients, keys, members, sizes and log length, and draw it; ARGS="keys log" (seven minutes)
	@mkdir -p build
	$(BIN)/python bench/curves.py --json build/curves.json --draw docs/performance $(ARGS)

bench-steady: $(VENV)/.dev ## see that coord stays as it is under load, beside a compaction and a snapshot (eleven minutes)
	$(BIN)/python bench/steady.py --check $(ARGS)

torture: $(VENV)/.dev ## kill, pause, cut off and fail the disks of real nodes under load; needs strace
	@command -v strace >/dev/null || { echo 'needs strace, to make syncs fail: apt-get install strace'; exit 1; }
	SEED=$(SEED) ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q -m torture tests/integration

sim: $(VENV)/.dev ## run the simulators long; SEED=n replays one run, with one line an event of Raft's
	$(BIN)/python -m coord.testing.raft_sim $(if $(filter file,$(origin SEED)),--seeds 0:1500 --jobs 2,--seed $(SEED) --trace)
	SEED=$(SEED) $(BIN)/python -m pytest -q -m sim --hypothesis-seed=$(SEED)

mutants: $(VENV)/.dev ## plant known bugs, one by one, and see that the simulators find each (some minutes)
	$(BIN)/python -m coord.testing.mutants

conformance: $(VENV)/.dev ## compare with the installed etcd and etcdctl, and check the systemd unit
	@command -v etcd >/dev/null || { echo 'needs etcd and etcdctl: apt-get install etcd-server etcd-client'; exit 1; }
	$(BIN)/python -m pytest -q -m conformance

docs: $(VENV)/.dev ## rewrite the pages that are made from the code
	$(BIN)/python docs/logs.py
	$(BIN)/python -m tests.conformance.document

clean: ## remove .venv and caches, but no data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "coord needs Python 3.11 or later: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: pyproject.toml | $(VENV)/.made
	@echo 'Installing coord into $(VENV) (once) ...'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	@echo 'Installing coord and the tools of developers into $(VENV) (once) ...'
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.base $@
