# Everything starts here; `make help` lists the words.
# Each virtual environment is built from one lock file (requirements/*.txt), with hashes, and is
# built anew when that file changes. Nothing is written outside this folder but Debian packages,
# and those only by `make packages` (which `make test` calls) as root.

PYTHON ?= python3
XLOUD_IMAGE_STATE ?= ./state
HOST ?= 127.0.0.1
PORT ?= 9292
# for `make test`: which tests, and any other option of pytest
TESTS ?= tests
PYTEST_ARGS ?=

# pip and uv keep their downloads in this folder as well
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONNOUSERSITE = 1

SOURCES = src tests bench
PIP_INSTALL = -m pip install --quiet --require-hashes

.DEFAULT_GOAL := help
.PHONY: help install run test check format bench lock clean packages servers prove-install

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

# a new environment from a lock file: $(call environment,FOLDER,LOCK FILES)
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; \
	this is " + sys.version.split()[0] + ": name another with PYTHON=…")'
	@echo "building $(1)"
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python $(PIP_INSTALL) $(foreach lock,$(2),-r $(lock))
	@touch $@
endef

# our own package, as a link to src; its build needs no download
define package
	@$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@
endef

.venv/.locked: requirements/runtime.txt requirements/build.txt
	$(call environment,.venv,$^)
.venv/.installed: .venv/.locked pyproject.toml
	$(call package,.venv)
.venv-test/.locked: requirements/test.txt requirements/build.txt
	$(call environment,.venv-test,$^)
.venv-test/.installed: .venv-test/.locked pyproject.toml
	$(call package,.venv-test)
.venv-client/.locked: requirements/client.txt
	$(call environment,.venv-client,$^)
.venv-keystone/.locked: requirements/keystone.txt
	$(call environment,.venv-keystone,$^)
.venv-lock/.locked: requirements/lock.txt
	$(call environment,.venv-lock,$^)

install: .venv/.installed ## the service, as .venv/bin/xloud-image
	@echo 'installed: .venv/bin/xloud-image'

run: .venv/.installed ## serve on HOST:PORT (127.0.0.1:9292), state in XLOUD_IMAGE_STATE (./state)
	@XLOUD_IMAGE_STATE='$(XLOUD_IMAGE_STATE)' HOST='$(HOST)' PORT='$(PORT)' exec .venv/bin/xloud-image serve

packages: # the Debian packages of the tests (as root; otherwise says which are missing)
	@tests/install/packages

servers: packages .venv-client/.locked .venv-keystone/.locked # what the tests start besides the service

test: .venv/.installed .venv-test/.installed servers ## every test, against real servers
	@exec .venv-test/bin/python -m pytest $(PYTEST_ARGS) $(TESTS)

check: .venv-test/.installed ## format, lint, types, import directions
	.venv-test/bin/ruff format --check $(SOURCES)
	.venv-test/bin/ruff check $(SOURCES)
	.venv-test/bin/mypy
	.venv-test/bin/python -m pytest -q tests/test_layers.py

format: .venv-test/.installed # rewrites the sources as `make check` wants them
	.venv-test/bin/ruff format $(SOURCES)
	.venv-test/bin/ruff check --fix $(SOURCES)

bench: .venv/.installed .venv-test/.installed servers ## speed and size, beside the peer in the same run
	@exec .venv-test/bin/python -m bench $(BENCH_ARGS)

prove-install: ## `make install` and `make run` in a bare Debian 12 (as root)
	@exec tests/install/prove

# UPGRADE=--upgrade takes the newest of everything; without it a pin stays as long as it fits
COMPILE = TMPDIR=$(CURDIR)/.cache .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

lock: .venv-lock/.locked ## write requirements/*.txt anew from pyproject.toml and requirements/*.in
	@mkdir -p .cache
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra test -c requirements/runtime.txt -o requirements/test.txt
	$(foreach name,build client keystone lock,$(COMPILE) requirements/$(name).in -o requirements/$(name).txt &&) true

clean: ## remove what was built or left by tests; the state stays
	rm -rf .venv .venv-* .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis .test-state build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
