# Everything starts here; `make help` lists the words.
# Each virtual environment is built from one lock file (requirements/*.txt), with hashes, and is
# built anew when that file changes. Nothing is written outside this folder but Debian packages,
# and those only by `make packages` (which `make test` calls) as root.

PYTHON ?= python3
XLOUD_IMAGE_STATE ?= ./state
HOST ?= 127.0.0.1
PORT ?= 9292
# libraries of what not everybody has: EXTRAS='cinder messaging'
EXTRAS ?=
# for `make test`: which tests, and any other option of pytest
TESTS ?= tests
PYTEST_ARGS ?=

# pip and uv keep their downloads in this folder as well
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONNOUSERSITE = 1

SOURCES = src tests bench docs
PIP_INSTALL = -m pip install --quiet --require-hashes

.DEFAULT_GOAL := help
.PHONY: help install deployer image run test test-tempest check format docs kolla-keys bench fuzz lock clean packages servers prove-install

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

# Ceph's bindings exist as Debian packages only (python3-rbd, python3-rados), for Debian's Python: where they are installed
# and fit the Python of this environment, two links show them to it, and nothing else of Debian's: $(call bindings,FOLDER)
define bindings
	@$(1)/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"), sysconfig.get_path("purelib"))' | \
	while read -r suffix place; do for name in rados rbd; do \
	if [ -e "$(DEBIAN_PYTHON)/$$name$$suffix" ]; then ln -sfn "$(DEBIAN_PYTHON)/$$name$$suffix" "$$place/$$name$$suffix"; \
	else rm -f "$$place/$$name$$suffix"; fi; done; done
endef
DEBIAN_PYTHON ?= /usr/lib/python3/dist-packages

.venv/.locked: requirements/runtime.txt requirements/build.txt
	$(call environment,.venv,$^)
.venv/.installed: .venv/.locked pyproject.toml
	$(call package,.venv)
.venv-test/.locked: requirements/test.txt requirements/build.txt
	$(call environment,.venv-test,$^)
.venv-test/.installed: .venv-test/.locked pyproject.toml
	$(call package,.venv-test)
.venv-deploy/.locked: requirements/deploy.txt requirements/build.txt
	$(call environment,.venv-deploy,$^)
.venv-deploy/.installed: .venv-deploy/.locked pyproject.toml
	$(call package,.venv-deploy)
.venv-client/.locked: requirements/client.txt
	$(call environment,.venv-client,$^)
.venv-client-2022/.locked: requirements/client-2022.txt
	$(call environment,.venv-client-2022,$^)
.venv-keystone/.locked: requirements/keystone.txt
	$(call environment,.venv-keystone,$^)
.venv-cinder/.locked: requirements/cinder.txt
	$(call environment,.venv-cinder,$^)
.venv-swift/.locked: requirements/swift.txt
	$(call environment,.venv-swift,$^)
.venv-s3/.locked: requirements/s3.txt
	$(call environment,.venv-s3,$^)
.venv-glance/.locked: requirements/peer.txt
	$(call environment,.venv-glance,$^)
.venv-tempest/.locked: requirements/tempest.txt
	$(call environment,.venv-tempest,$^)
.venv-lock/.locked: requirements/lock.txt
	$(call environment,.venv-lock,$^)

# what the cinder store (os-brick and what it stands on) and RabbitMQ (oslo.messaging) need besides; all else is ready
.venv/.extra-cinder .venv/.extra-messaging: .venv/.locked requirements/image.txt
	@.venv/bin/python $(PIP_INSTALL) -r requirements/image.txt
	@touch $@

install: .venv/.installed $(EXTRAS:%=.venv/.extra-%) ## the service, as .venv/bin/xloud-image; EXTRAS='cinder messaging' for that store, for RabbitMQ
	$(call bindings,.venv)
	@echo 'installed: .venv/bin/xloud-image'

run: .venv/.installed ## serve on HOST:PORT (127.0.0.1:9292), state in XLOUD_IMAGE_STATE (./state)
	@XLOUD_IMAGE_STATE='$(XLOUD_IMAGE_STATE)' HOST='$(HOST)' PORT='$(PORT)' exec .venv/bin/xloud-image serve

deployer: .venv-deploy/.installed ## the control host's command, as .venv-deploy/bin/xavs-ansible
	@echo 'installed: .venv-deploy/bin/xavs-ansible'

image: ## the container image, as root; BASE=IMAGE or ROOTFS=DIRECTORY names what it stands on
	@BASE='$(BASE)' ROOTFS='$(ROOTFS)' PYTHON='$(PYTHON)' exec deploy/build-image

packages: # the Debian packages of the tests (as root; otherwise says which are missing)
	@tests/install/packages

# the vCenter simulator, compiled by Debian's Go; where that is missing its tests are
.cache/vcsim/.built: tests/servers/vcsim/main.go | packages
	@$(PYTHON) -m tests.servers.vsphere && touch $@ || true

servers: packages .venv-client/.locked .venv-client-2022/.locked .venv-deploy/.installed .venv-keystone/.locked .venv-swift/.locked .venv-s3/.locked .venv-cinder/.locked .venv-glance/.locked .cache/vcsim/.built # what the tests start besides the service

ready: .venv/.installed .venv/.extra-cinder .venv-test/.installed servers # what `make test` needs; side by side with -j
	$(call bindings,.venv)
	$(call bindings,.venv-test)

test: ## every test, against real servers
	@$(MAKE) --no-print-directory -j4 ready
	@if [ '$(TESTS)' = tests ]; then exec tests/run $(PYTEST_ARGS); \
	else exec .venv-test/bin/python -m pytest $(PYTEST_ARGS) $(TESTS); fi

# TEMPEST_ARGS='--only REGEX' runs a part; the counts and what was left out, and why, stand at the end
TEMPEST_ARGS ?=
test-tempest: .venv/.installed .venv-test/.installed .venv-tempest/.locked servers ## OpenStack's own tests of the Image API
	@exec .venv-test/bin/python -m tests.tempest $(TEMPEST_ARGS)

check: .venv-test/.installed ## format, lint, types, dead code, import directions
	.venv-test/bin/ruff format --check $(SOURCES)
	.venv-test/bin/ruff check $(SOURCES)
	.venv-test/bin/mypy
	.venv-test/bin/vulture
	.venv-test/bin/python -m pytest -q tests/test_layers.py

format: .venv-test/.installed # rewrites the sources as `make check` wants them
	.venv-test/bin/ruff format $(SOURCES)
	.venv-test/bin/ruff check --fix $(SOURCES)

docs: .venv-test/.installed ## the tables of keys in docs/operating, from the options' definitions
	@.venv-test/bin/python docs/tables.py

# the names that a whole cloud's globals may have, from the last wheel of each of these releases (see the script)
KOLLA = 10 11 12 13 14 15 16 17 18 19 20 21 22
kolla-keys: .venv/.installed # src/xavs/kolla.json anew
	@mkdir -p .cache/kolla && rm -f .cache/kolla/*
	@for number in $(KOLLA); do .venv/bin/python -m pip download --quiet --no-deps --only-binary :all: --dest .cache/kolla \
	"kolla-ansible>=$$number,<$$((number + 1))" || exit 1; done
	@.venv/bin/python deploy/kolla_keys.py .cache/kolla/*.whl > .cache/kolla/json
	@mv .cache/kolla/json src/xavs/kolla.json

bench: .venv/.installed .venv-test/.installed servers ## speed and size, beside the peer in the same run
	$(call bindings,.venv)
	$(call bindings,.venv-test)
	@exec .venv-test/bin/python -m bench $(BENCH_ARGS)

# FUZZ_ARGS='100000 --seed N' repeats a run
FUZZ_ARGS ?=
fuzz: .venv-test/.installed packages ## disk images by chance: none that is taken may lead qemu to another file
	@exec .venv-test/bin/python -m tests.formats.fuzz $(FUZZ_ARGS)

prove-install: ## `make install` and `make run` in a bare Debian 12 (as root)
	@exec tests/install/prove

# UPGRADE=--upgrade takes the newest of everything; without it a pin stays as long as it fits
COMPILE = TMPDIR=$(CURDIR)/.cache .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

# the extras that the container image holds: whatever a configuration can ask for, and the words of people
IN_IMAGE = cinder client messaging vmware

lock: .venv-lock/.locked ## write requirements/*.txt anew from pyproject.toml and requirements/*.in
	@mkdir -p .cache
	$(COMPILE) pyproject.toml --extra client --extra vmware -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra test -c requirements/runtime.txt -o requirements/test.txt
	$(COMPILE) pyproject.toml --extra deploy -c requirements/runtime.txt -o requirements/deploy.txt
	$(COMPILE) pyproject.toml $(addprefix --extra ,$(IN_IMAGE)) -c requirements/runtime.txt -o requirements/image.txt
	$(foreach name,build client client-2022 keystone cinder swift s3 peer tempest lock,$(COMPILE) requirements/$(name).in -o requirements/$(name).txt &&) true

clean: ## remove what was built or left by tests; the state stays
	rm -rf .venv .venv-* .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .schemathesis .test-state build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
