# Each command builds the environment it needs: a Python with venv and pip is all there has to be.

PYTHON ?= python3
python := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# An environment is a folder. Its stamp is written last, so one that is half built, or built by
# another Python, is built anew.
tensorflow := .venv/python-$(python)
jax := .venv-jax/python-$(python)
torch := .venv-torch/python-$(python)
oldest := .venv-oldest/python-$(python)
environments := $(tensorflow) $(jax) $(torch) $(oldest)

# What is in it: extras of setup.py, at the versions of a file of pins. The oldest is as bare as
# where somebody only trains: the comparison is tested on three backends beside it.
$(tensorflow): extras := tensorflow,agents,compare,test
$(tensorflow): pins := .ci/constraints/tensorflow-py$(subst .,,$(python)).txt
$(jax): extras := jax,compare,test,dev
$(jax): pins := .ci/constraints/jax.txt
$(torch): extras := torch,compare,test,bench
$(torch): pins := .ci/constraints/torch.txt
$(oldest): extras := tensorflow,test
$(oldest): pins := .ci/constraints/oldest.txt

# What `make constraints` does not take the newest of.
$(torch): chosen := torch==2.13.0
$(oldest): chosen := keras==3.11.0 tensorflow==2.19.0 tensorboardX==2.6

# Side by side; what the tests of a file share is made once. Four hold some GiB of memory.
in_parallel := -n auto --maxprocesses 4 --dist loadfile

# What runs inside the training step.
on_gpu := $(addprefix tests/test_,gpu.py device_rule.py greedy_optimizer.py \
	greedy_optimizer_own_step.py greedy_optimizer_saved.py)

ifneq ($(python),3.11)
$(tensorflow): extras := tensorflow,compare,test
without_agents := @echo "Python $(python): left out is what needs TF-Agents, which stops at Python 3.11."
endif

.PHONY: help environments demo test test-jax test-torch test-oldest test-gpu lint docs-test \
	wheel-test bench constraints clean

help:  ## say what there is
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' Makefile | expand -t 20

environments: $(environments)  ## build what the others need, with --jobs side by side

demo: $(tensorflow)  ## train on handwritten digits under four schedules
	$(without_agents)
	KERAS_BACKEND=tensorflow .venv/bin/python examples/digits.py

test: $(tensorflow)  ## run the tests on TensorFlow
	$(without_agents)
	KERAS_BACKEND=tensorflow .venv/bin/pytest $(in_parallel)

test-jax: $(jax)  ## run the tests on JAX, where there is no TensorFlow
	KERAS_BACKEND=jax .venv-jax/bin/pytest $(in_parallel)

test-torch: $(torch)  ## run the tests on PyTorch, where there is no TensorFlow
	KERAS_BACKEND=torch .venv-torch/bin/pytest $(in_parallel)

test-oldest: $(oldest)  ## run the tests on the oldest Keras
	KERAS_BACKEND=tensorflow .venv-oldest/bin/pytest $(in_parallel)

# The pinned environments are for machines without a GPU, so this one is the caller's.
test-gpu: export PYTHONPATH := $(CURDIR):$(PYTHONPATH)
test-gpu:  ## test and measure on a GPU, on each backend that PYTHON has
	@set -e; for backend in tensorflow jax torch; do \
		$(PYTHON) -c "import $$backend" 2>/dev/null || continue; \
		echo "On the GPU, $$backend:"; \
		KERAS_BACKEND=$$backend $(PYTHON) -m pytest -rs -m "gpu or not gpu" $(on_gpu); \
	done
	$(PYTHON) tests/benchmarks/bench.py --gpu

lint: $(jax)  ## check style and types
	.venv-jax/bin/ruff check .
	.venv-jax/bin/ruff format --check .
	.venv-jax/bin/mypy

docs-test: $(jax)  ## run the examples in the docstrings
	KERAS_BACKEND=jax .venv-jax/bin/pytest --doctest-modules keras_greedylr

wheel-test: $(tensorflow)  ## build the wheel and check what is in it
	.venv/bin/python .ci/check_wheel.py

# The other backends are measured where their environments have been built.
bench: $(tensorflow)  ## measure what it all costs; writes tests/benchmarks/report.md
	$(without_agents)
	.venv/bin/python tests/benchmarks/bench.py

constraints:  ## pin the newest versions that go together, for this Python
	$(MAKE) --always-make resolve=yes $(if $(filter 3.11,$(python)),$(environments),$(tensorflow))

clean:  ## remove environments, caches and outputs
	rm -rf .venv .venv-* build dist out logs *.egg-info
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

ifeq ($(filter $(python),3.11 3.12 3.13),)

$(environments):
	@echo "keras-greedylr needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11 ..." >&2
	@false

else ifdef resolve

$(environments):
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --editable '.[$(extras)]' $(chosen)
	@# A local version, as in 2.13.0+cpu, is not to be had everywhere.
	echo "# Resolved on Python $(python). To pin anew: make constraints PYTHON=python$(python)" >$(pins)
	$(@D)/bin/pip freeze --all --exclude-editable | sed -e '/^pip==/d' -e 's/+.*//' >>$(pins)
	touch $@

else

.SECONDEXPANSION:
$(environments): setup.py $$(pins)
	@echo "Building $(@D) at the versions of $(pins); the first time takes minutes."
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@# By variable, for the option --constraint does not reach the tools that build from source.
	@# Not compiled: Python does that with what is imported, and most never is.
	@PIP_CONSTRAINT=$(pins) PIP_BUILD_CONSTRAINT=$(pins) PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(@D)/bin/pip install --quiet --quiet --no-compile --editable '.[$(extras)]'
	@touch $@

endif
