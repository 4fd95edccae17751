# `make run` and `make test` do everything on a fresh machine: the environment, the install, the job.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv run test faults lint docs linkcheck bench
venv: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ganlab needs Python 3.11 or newer: make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	@echo 'installing into .venv: on Linux pip downloads about 3 GB, most of it PyTorch; elsewhere less than 1 GB'
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[test,lint,stlpips,docs]'
	$(BIN)/ganlab schema > experiments/.schema.json
	@touch $@

run: venv
	$(BIN)/ganlab run experiments/emb.json

# two processes of one thread each: most tests compute too little to share among threads. Each file's tests run in one
# process, which makes the file's fixtures once. Files keep their order: sorted by the number of tests, the longest file,
# of one test, would come last
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: venv
	$(TESTS)

# kills runs many times and tries thousands of mutated specs, where `make test` tries a few: not part of .ci/run
faults: venv
	$(TESTS) -m faults

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: venv
	$(BIN)/python -m sphinx -n -W --keep-going -b html docs build/docs

# asks every site that the pages link to: it needs the network
linkcheck: venv
	$(BIN)/python -m sphinx -n -W --keep-going -b linkcheck docs build/linkcheck

bench: venv
	$(BIN)/python -m pytest benchmarks/ -s
