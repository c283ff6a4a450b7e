# `make` prints the targets. Everything runs in .venv, which the targets that need it make.

PYTHON ?= python3
# torch goes in first and pinned: an unpinned torch takes the newest build, gigabytes of it.
# Any pip arguments do, for example TORCH='torch==2.13.0 --index-url <an index of CPU builds>'.
TORCH  ?= torch==2.13.0
# Passed on by demo, test and bench: make test ARGS='-k table', make demo ARGS='--steps 100'.
ARGS   ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check

# A stamp says what is installed. torch's stamp carries the request, so that another TORCH reinstalls.
TORCH_STAMP := $(VENV)/.stamp-$(shell printf '%s' '$(TORCH)' | tr -c 'A-Za-z0-9.' '_')
DEMO_STAMP  := $(VENV)/.stamp-demo
DEV_STAMP   := $(VENV)/.stamp-dev
H100_STAMP  := $(VENV)/.stamp-h100
MUTANTS_STAMP := $(VENV)/.stamp-mutants

# The libraries that schedules are compared with, in an environment of their own. Some are installed without their
# dependencies: pip reads those from pyproject.toml's dependency group, one a line.
PEERS_VENV  := .venv-peers
PEERS_PIP   := $(PEERS_VENV)/bin/python -m pip --disable-pip-version-check
PEERS_STAMP := $(PEERS_VENV)/.stamp$(patsubst $(VENV)/.stamp%,%,$(TORCH_STAMP))
PEERS_ALONE := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["peers-alone"])
PEERS_TESTS := tests/recording tests/schedules/test_peers.py tests/schedules/test_installed_peers.py \
	tests/schedules/test_config.py tests/binding/test_filled.py
# Trainers, likewise. Composer wants an older torch and torchtitan older datasets; timm, fastai and Composer want
# torchvision, whose wheels are built for CUDA and import all the same (tests/frameworks/launch.py).
FRAMEWORKS_VENV  := .venv-frameworks
FRAMEWORKS_PIP   := $(FRAMEWORKS_VENV)/bin/python -m pip --disable-pip-version-check
FRAMEWORKS_STAMP := $(FRAMEWORKS_VENV)/.stamp$(patsubst $(VENV)/.stamp%,%,$(TORCH_STAMP))
FRAMEWORKS_ALONE := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["frameworks-alone"])

# What has tensor slots: once more with the driver that a GPU gets, on CPU tensors.
DEVICE_TESTS := tests/engine/test_engine.py tests/compiled tests/binding/test_amp.py tests/binding/test_rewrite.py \
	tests/binding/test_attach.py tests/binding/test_checkpoint.py tests/binding/test_lifecycle_machine.py \
	tests/engine/test_clock.py tests/binding/test_clock.py tests/plan/test_lifecycle_machine.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test fuzz kills test-frameworks test-peers test-torch test-h100-code test-simulated-gpu mutants lint type notebooks docs bench readme bench-graph test-gpu bench-gpu gpu-day wheel ci ci-more format clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_STAMP)  ## Train a small language model under an attached schedule and compare it with LambdaLR
	$(BIN)/python -m tensorsched.demo $(ARGS)

test: $(DEV_STAMP)  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -q --device-driver -k "not machine_would_notice" $(DEVICE_TESTS)

test-frameworks: $(FRAMEWORKS_STAMP)  ## Train in Lightning, the HF Trainer, DeepSpeed, Composer, ... beside their own schedulers
	$(FRAMEWORKS_VENV)/bin/python -m pytest -n 2 --dist loadfile tests/frameworks $(ARGS)

test-torch:  ## Run the tests with another torch, in an environment of its own: make test-torch TORCH=torch==2.11.0
	$(PYTHON) tests/with_torch.py $(TORCH) $(ARGS)

fuzz: $(DEV_STAMP)  ## Fuzz texts, documents, states, calls and command lines for ten minutes (ARGS='--minutes 1')
	$(BIN)/python -m tests.fuzz $(ARGS)

kills: $(DEV_STAMP)  ## Kill training runs at two hundred statements, and resume each from either file and from both
	$(BIN)/python -m pytest -s tests/binding/test_kills.py --kills 200 $(ARGS)

test-peers: $(PEERS_STAMP)  ## Compare with the schedulers, configs and optimizers of sixteen libraries; none may be missing
	NEED_PEERS=1 $(PEERS_VENV)/bin/python -m pytest -n 2 $(PEERS_TESTS) $(ARGS)

test-h100-code: $(H100_STAMP)  ## Look at the code that inductor generates for an H100, on any machine
	$(BIN)/python -m pytest -n 2 tests/without_gpu/test_h100_code.py $(ARGS)

test-simulated-gpu: $(H100_STAMP)  ## Run the tests that need a GPU on a simulated one (needs g++; minutes)
	$(BIN)/python -m pytest -n 2 -p tests.simulated_gpu.plugin tests/gpu $(ARGS)

mutants: $(MUTANTS_STAMP)  ## Change the code by little and see whether a test notices (a sample: half an hour)
	$(BIN)/python tests/mutants.py $(ARGS)

lint: $(DEV_STAMP)  ## Check formatting and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(DEV_STAMP)  ## Rewrite the files in the format that lint asks for
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: $(DEV_STAMP)  ## Check the package's types (mypy, strict)
	$(BIN)/mypy

notebooks: $(DEV_STAMP)  ## Execute every notebook and compare with its stored outputs (ARGS=--write stores them)
	$(BIN)/python tests/run_notebooks.py $(ARGS)

# pdoc documents the names that a module has, and some of ours are there when they are first asked for.
docs: $(DEV_STAMP)  ## Write the API pages from the docstrings, to build/docs
	$(BIN)/python -c 'from tensorsched import *; from pdoc.__main__ import cli; cli()' --docformat google --output-directory build/docs tensorsched tensorsched.integrations.ignite '!tensorsched.demo'

bench: $(DEV_STAMP)  ## Time schedules and optimizer steps beside those of torch and other libraries
	$(BIN)/python tests/benchmarks/bench.py $(ARGS)

bench-graph: $(DEV_STAMP)  ## Time compiled optimizer steps with and without schedules (with inductor: half an hour)
	$(BIN)/python tests/benchmarks/one_graph.py $(ARGS)

# On a GPU machine: with the torch that it has, and pytest and hypothesis beside it.
test-gpu:  ## Run the tests that need a GPU, with the python3 and torch at hand (or PYTHON=...), not .venv
	PYTHONPATH=. $(PYTHON) -m pytest tests/gpu $(ARGS)

gpu-day:  ## All that a GPU is for, meant for ten minutes: tests, then benchmarks; with the python3 at hand
	PYTHONPATH=. $(PYTHON) tests/benchmarks/gpu.py --tests $(ARGS)
	PYTHONPATH=. $(PYTHON) tests/benchmarks/readme.py

bench-gpu:  ## Time schedules on a GPU, with the python3 at hand; writes tests/benchmarks/results/<gpu-name>.json
	PYTHONPATH=. $(PYTHON) tests/benchmarks/gpu.py $(ARGS)

readme: $(DEV_STAMP)  ## Write the figures and the picture of README, from the numbers that `make bench ARGS=--out` wrote
	$(BIN)/python tests/benchmarks/readme.py
	$(BIN)/python tests/benchmarks/readme_picture.py

wheel: $(DEV_STAMP)  ## Build the wheel, install it into a venv of its own and use it from elsewhere
	$(BIN)/python tests/check_wheel.py

# What needs more than `dev`: gigabytes of other libraries, Triton, g++. CI runs it, and where that cannot be had says so;
# a test that fails there is a failure.
ci-more:
	@if $(MAKE) $(H100_STAMP) && command -v g++ > /dev/null; then $(MAKE) test-h100-code test-simulated-gpu; \
		else echo "LEFT OUT: test-h100-code and test-simulated-gpu, for want of Triton or g++"; fi
	@if $(MAKE) $(PEERS_STAMP); then $(MAKE) test-peers; \
		else echo "LEFT OUT: test-peers, whose libraries could not be installed"; fi
	@if $(MAKE) $(FRAMEWORKS_STAMP); then $(MAKE) test-frameworks; \
		else echo "LEFT OUT: test-frameworks, whose libraries could not be installed"; fi

ci:  ## All of it, tests first
	$(MAKE) test
	$(MAKE) lint
	$(MAKE) type
	$(MAKE) notebooks
	$(MAKE) docs
	$(MAKE) wheel
	$(MAKE) ci-more

clean:  ## Remove .venv, builds and caches
	rm -rf $(VENV) .venv-torch $(PEERS_VENV) $(FRAMEWORKS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv makes: where it is, the environment is whole.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(TORCH_STAMP): | $(BIN)/pip
	rm -f $(VENV)/.stamp-*
	$(PIP) install $(TORCH)
	touch $@

$(DEMO_STAMP): pyproject.toml $(TORCH_STAMP)
	$(PIP) install --quiet --editable '.[demo]'
	touch $@

$(PEERS_STAMP): pyproject.toml
	$(PYTHON) -m venv $(PEERS_VENV)
	rm -f $(PEERS_VENV)/.stamp*
	$(PEERS_PIP) install $(TORCH)
	$(PEERS_PIP) install --quiet --editable '.[peers]'
	$(PEERS_PIP) install --quiet --no-deps $$($(PEERS_VENV)/bin/python -c '$(PEERS_ALONE)')
	touch $@

$(H100_STAMP): pyproject.toml $(DEV_STAMP)
	$(PIP) install --quiet --editable '.[h100]'
	touch $@

$(MUTANTS_STAMP): pyproject.toml $(H100_STAMP)
	$(PIP) install --quiet --editable '.[mutants]'
	touch $@

$(DEV_STAMP): pyproject.toml $(TORCH_STAMP)
	$(PIP) install --quiet --editable '.[dev]'
	touch $@

$(FRAMEWORKS_STAMP): pyproject.toml
	test -x $(FRAMEWORKS_VENV)/bin/pip || $(PYTHON) -m venv $(FRAMEWORKS_VENV)
	rm -f $(FRAMEWORKS_VENV)/.stamp-*
	$(FRAMEWORKS_PIP) install --quiet $(TORCH)
	$(FRAMEWORKS_PIP) install --quiet --editable '.[frameworks]'
	$(FRAMEWORKS_PIP) install --quiet --no-deps $$($(FRAMEWORKS_VENV)/bin/python -c '$(FRAMEWORKS_ALONE)')
	touch $@
