PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Without compiled modules each start of a command compiles Beam's and its own anew: 3 s in place of 1.5.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test ledger check smoke bench bench-endpoint bench-stream compare compare-article serve prism flink flink-cluster lock schema model docs picture clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed  ## Create the environment in .venv (every other target does so by itself).

$(VENV)/.installed: requirements.lock setup.py model/version.py
	@echo "setting up $(VENV) (about a minute, 2.6 GB) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^[^ #]/ { chosen = /^uv==/ } chosen' requirements.lock | \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r /dev/stdin
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Predict the packaged births with the packaged model.
	@$(BIN)/python -m pipelines.batch --config configs/natality.json

test: setup  ## Run every test (the servers they need start by themselves).
	@$(BIN)/python -u -m pytest -q --durations=15

ledger: setup  ## Kill streams on every engine, from Pub/Sub and Kafka, and count what comes out (20 minutes).
	@$(BIN)/python -m pytest -q -n 0 -m long

check: setup  ## Lint, types, directions of imports, schema.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > /dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pipelines.config --check

smoke:  ## Run the demo and a few tests on the oldest and the newest Python, where they are installed.
	@tests/smoke.sh 3.10 3.13

bench: setup  ## Measure throughput, growth and cold start against named baselines.
	@$(BIN)/python -m tests.benchmarks.batch

bench-endpoint: setup  ## Measure protocols, request sizes and requests at a time against named baselines.
	@$(BIN)/python -m tests.benchmarks.endpoint

bench-stream: setup  ## Measure latency and throughput of streams.
	@$(BIN)/python -m tests.benchmarks.stream

compare: setup  ## Compare ways to call the model, in batch runs and streams (10 minutes); ends with the reports.
	@$(BIN)/python -m pipelines.compare --config configs/compare-batch.json
	@$(BIN)/python -m pipelines.compare --config configs/compare-stream.json

compare-article: setup  ## The article's comparison, from emulators of BigQuery and Pub/Sub (15 minutes; needs Go).
	@$(BIN)/python -m tests.servers.article batch
	@$(BIN)/python -m tests.servers.article stream

serve: setup  ## Serve the packaged model on this machine (REST 8501, gRPC 8500).
	@$(BIN)/python -m model.serve --model model/trained/v1

prism: setup  ## Build Beam's Prism into .tools, for --runner PrismRunner (needs Go).
	@$(BIN)/python -m tests.servers.prism

flink: setup  ## Start a Flink job server on this machine, for --runner FlinkRunner (needs Java and Maven).
	@$(BIN)/python -m tests.servers.flink

flink-cluster: setup  ## Start a Flink cluster of two task managers with a worker pool (needs Java and Maven).
	@$(BIN)/python -m tests.servers.flink_cluster

schema: setup  ## Regenerate configs/schema.json from pipelines/config/.
	@$(BIN)/python -m pipelines.config --write

model: setup  ## Train the packaged model again (reproducible from its seed).
	@$(BIN)/python -m model.train

docs: .venv-docs/.installed  ## Build the documents as a site, out/site (links are checked).
	@.venv-docs/bin/python docs/tools/site_pages.py
	@.venv-docs/bin/zensical build --strict --clean
	@.venv-docs/bin/python docs/tools/broken_links.py out/site

.venv-docs/.installed: requirements-docs.lock
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

picture: setup  ## Draw docs/images/demo.svg again from what the demo prints.
	@$(BIN)/python docs/tools/picture.py

lock: setup  ## Resolve requirements.lock and requirements-docs.lock again, with hashes, from the ranges.
	@$(BIN)/uv pip compile --quiet --universal --fork-strategy requires-python --python-version 3.10 --generate-hashes \
		--extra dev setup.py -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --group docs \
		-o requirements-docs.lock

clean:  ## Remove what runs and builds leave behind.
	@rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
