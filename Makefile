SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PY ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= switchyard-demo
BUF := npx --yes @bufbuild/buf@1.75.0
# The repository root on sys.path would create second copies of every module.
export PYTHONSAFEPATH := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

# `proto` is a directory too: without .PHONY make would call it up to date.
.PHONY: help dashboard setup tools native demo parity test quick check lint fmt types arch proto proto-check proto-lint bench bench-engine bench-gpu bench-trainer headline fuzz churn crash model seeds bench-knowledge resume-storm

help:           ## what can be made here
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 16

# torch first and alone: the pinned build is the CPU one, and a later
# requirement that it satisfies then installs nothing more.
$(VENV)/.ready: pyproject.toml constraints.txt
	@start=$$(date +%s); \
	test -x $(BIN)/python || $(PY) -m venv $(VENV); \
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0; \
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	touch $@; echo "set-up took $$(( $$(date +%s) - start )) s"

setup: $(VENV)/.ready  ## a virtual environment with everything in it

# Unpacked, not installed: tests start them, and nothing else on the machine changes.
tools:          ## a container registry and Prometheus for the tests, from Debian's packages
	@mkdir -p build/tools && cd build/tools && apt-get download -qq docker-registry prometheus && for deb in *.deb; do dpkg -x $$deb .; done

# As `pip install -e .` does it, for a tree that is not the installed one.
native: setup   ## the compiled kernels, beside their sources
	@$(BIN)/python -c 'from setuptools import setup; setup()' --quiet build_ext --inplace --force

demo: setup     ## train, publish, serve and generate, end to end
	@$(BIN)/switchyard demo

test: setup     ## every test that needs no special machine
	@start=$$(date +%s); $(BIN)/pytest; echo "tests took $$(( $$(date +%s) - start )) s"

quick: setup    ## the tests that take less than ten seconds each
	@$(BIN)/pytest -m "not slow"

check: lint types arch proto-check  ## everything but the tests

lint: setup     ## style, docstrings, module sizes
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

fmt: setup      ## rewrite in the house style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# mypy finds `switchyard.*` through a tree of links, because the import
# package is mapped onto the top-level folders.
types: setup    ## strict types
	@mkdir -p build/types/switchyard
	@for d in proto registry trainer server clients; do ln -sfn ../../../$$d build/types/switchyard/$$d; done
	@$(BIN)/mypy --no-color-output | sed 's#build/types/switchyard/##'

arch: setup     ## who may import whom
	@$(BIN)/lint-imports --no-cache

PROTOS := registry/v1/registry.proto registry/v1/upkeep.proto registry/v1/rollout.proto inference/v1/inference.proto admin/v1/admin.proto

# protoc maps the virtual path switchyard/proto onto proto/, so generated
# imports need no rewriting.
proto: setup    ## generate the Python code of the wire contract
	@mkdir -p build/gen
	@$(BIN)/python -m grpc_tools.protoc -Iswitchyard/proto=proto --python_out=build/gen --pyi_out=build/gen \
	  --grpc_python_out=build/gen $(addprefix switchyard/proto/,$(PROTOS))
	@cp -r build/gen/switchyard/proto/. proto/

proto-check: proto  ## committed generated code is what protoc makes
	@git diff --exit-code -- proto

proto-lint: setup   ## buf's style rules, and no break against the released contract
	@mkdir -p build/buf && ln -sfn ../../proto build/buf/switchyard && cp proto/buf.yaml build/buf/buf.yaml
	@cd build/buf && $(BUF) lint && $(BUF) breaking --against ../../proto/released.binpb

parity-matrix: setup  ## every architecture and kind of adapter against PEFT; writes docs/parity.md
	@$(BIN)/pytest tests/parity/test_matrix.py -q --parity-page docs/parity.md

parity: setup   ## parity with PEFT on the adapters of the last demo, as a table
	@$(BIN)/pytest tests/parity/test_demo_parity.py -q --demo-dir $(DEMO_DIR)

bench: bench-engine  ## the committed measurements, made again
	@PYTHONPATH=bench/registry $(BIN)/python bench/registry/run.py

bench-engine: setup  ## decode, prefill, loads, gRPC and memory, with PEFT beside it
	@OMP_WAIT_POLICY=passive PYTHONPATH=bench/engine $(BIN)/python bench/engine/run.py
	@OMP_WAIT_POLICY=passive PYTHONPATH=bench/engine $(BIN)/python bench/engine/overload.py

bench-gpu: setup  ## proves the GPU kernels on this machine's device, then measures them
	@PYTHONPATH=bench/gpu $(BIN)/python bench/gpu/run.py --out build/gpu.json

dashboard: setup  ## the dashboard, and a picture of it from a live Prometheus
	@$(BIN)/python -P -m switchyard.server.observe.dashboard deploy/grafana/switchyard.json
	@PYTHONPATH=bench/dashboard:tests/support $(BIN)/python bench/dashboard/run.py

bench-trainer: setup  ## the memory that `train --explain` says against real runs
	@$(BIN)/python bench/trainer/memory.py

# About an hour of one core; what is done is kept in build/headline, and the command goes on.
headline: setup  ## base, QLoRA and 2,000 held-out addresses through Generate, for three seeds
	@OMP_WAIT_POLICY=passive PYTHONPATH=bench/headline $(BIN)/python bench/headline/run.py

model: setup    ## long histories of the registry against an oracle in memory, on SQLite and PostgreSQL
	@$(BIN)/pytest tests/crash/test_state_machine.py -q --crash-full

fuzz: setup     ## 200,000 changed files of each kind through the gate and the reader of configurations
	@SWITCHYARD_FUZZ_RUNS=200000 $(BIN)/pytest tests/hostile/test_fuzz.py -q --durations=4 -o timeout=3600

churn: setup    ## 64 adapters through 4 slots for 100,000 tokens, and 10,000 callers that go
	@$(BIN)/pytest tests/churn -q -s --churn-full --timeout 3600

bench-knowledge: setup  ## new facts learnt from pages, and what is forgotten, with a picture
	@PYTHONPATH=bench/knowledge $(BIN)/python bench/knowledge/run.py

seeds: setup    ## every row of the four articles that asked for this, checked; a table and a count
	@$(BIN)/pytest tests/seeds -q --no-header --no-summary --seeds

resume-storm: setup  ## kill -9 at ten drawn points of a run and at every named point of a job; each goes on to the same bytes
	@$(BIN)/pytest tests/trainer/test_resume_storm.py tests/trainer/job/test_job_storm.py -q -s --resume-storm

crash: setup    ## kill -9, power cuts and failing disks at every point, broken registries, a storm; ends with a summary
	@start=$$(date +%s); $(BIN)/pytest tests/crash --ignore tests/crash/test_state_machine.py -q --crash-full --timeout 3600; echo "crash tests took $$(( $$(date +%s) - start )) s"
