# make run       run a script on a node made for it, as a first look
# make cluster   three nodes and a CSU on this machine, until Ctrl-C
# make test      everything that must hold: style, types, import contracts, tests
# make fuzz      100,000 odd records and as many odd datagrams of a peer, a quarter of an hour
# make lint      the same without the tests
# make lock      renew constraints.txt from the newest releases
# make benchmarks what one node and several achieve, five minutes on a quiet machine
# make rude      what shortages and rude clients cost the others, ten minutes; needs root for some rows
# make placement how well jobs are placed, in the simulation, half an hour
# make paper      the paper's experiment, twelve minutes; make paper PAPER=--full with the original's times, an hour
# make clean

# A Python of 3.11 or later; another one: make test PYTHON=/path/to/python
PYTHON ?= $(shell for each in python3.11 python3; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)

BIN := .venv/bin
STAMP := .venv/installed
DRAWING := .venv/drawing
PIP := -m pip --quiet --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: run cluster test fuzz lint lock benchmarks rude placement paper clean

run: $(STAMP)
	@$(BIN)/cmt run examples/primes.py

cluster: $(STAMP)
	@exec $(BIN)/python -m benchmarks.local_cluster .cluster

# A file's tests stay together: some share a cluster.
test: lint
	@$(BIN)/pytest -q --numprocesses 2 --dist loadfile

fuzz: $(STAMP)
	@FUZZ=100000 $(BIN)/pytest -q --timeout 0 tests/protocol/test_peer_fuzz.py

lint: $(STAMP)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

benchmarks: $(STAMP)
	@$(BIN)/python -m benchmarks.run
	@$(BIN)/python -m benchmarks.cluster

rude: $(STAMP)
	@$(BIN)/python -m benchmarks.rude

placement: $(STAMP)
	@$(BIN)/python -m benchmarks.placement

paper: $(DRAWING)
	@$(BIN)/python -m benchmarks.paper_experiment $(PAPER)

# Wheels only: nothing is compiled, so no compiler is needed.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z '$(PYTHON)' ]; then \
		echo 'Python 3.11 or later is needed: install it, or name it: make PYTHON=/path/to/python' >&2; exit 1; fi
	@echo 'Installing into .venv ...' >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --only-binary :all: --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(DRAWING): $(STAMP)
	@$(BIN)/python $(PIP) install --only-binary :all: --constraint constraints.txt --editable '.[bench]'
	@touch $@

lock:
	@rm -rf .venv.lock
	@$(PYTHON) -m venv .venv.lock
	@.venv.lock/bin/python $(PIP) install --only-binary :all: --editable '.[dev,bench]'
	@.venv.lock/bin/python -m pip --disable-pip-version-check freeze --exclude-editable > constraints.txt
	@rm -rf .venv.lock

clean:
	@rm -rf .venv .venv.lock .cluster build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f twisted/plugins/dropin.cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
