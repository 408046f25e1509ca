# `make demo` and `make test` need nothing but Python 3.11+, pip and a C compiler: they make their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -name '*.[ch]' -o -name '*.def') setup.py pyproject.toml

.PHONY: demo test lint sanitize neon bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Rebuilds the extension when a C source has changed.
$(VENV)/.demo: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.bench: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(VENV)/.test: $(SOURCES) | $(BIN)/python
	BNNLAYERS_WERROR=1 $(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/mnist.py

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	find csrc tests/c -name '*.[ch]' | xargs $(BIN)/clang-format --dry-run --Werror

sanitize:
	$(MAKE) -j2 -C tests/c sanitize

# The C checks as an AArch64 machine runs them, emulated; skipped where the tools for it are missing.
AARCH64 ?= aarch64-linux-gnu-gcc
QEMU ?= qemu-aarch64
neon:
	@if command -v $(AARCH64) >/dev/null && command -v $(QEMU) >/dev/null; then \
	  $(MAKE) -j2 -C tests/c check CC=$(AARCH64) RUN=$(QEMU) LDFLAGS=-static BUILD=../../build/neon ROUNDS=40; \
	else echo 'neon: skipped, for want of $(AARCH64) or $(QEMU)'; fi

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/products.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/passes.py

clean:
	rm -rf $(VENV) build *.egg-info bnnlayers/*.so
