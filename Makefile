# Every target sets up what it needs. PYTHON=python3.13 chooses the interpreter of .venv; a .venv of another interpreter is
# made again. Without PYTHON, .venv stays as it is.
#
# pytest sets warnings and asyncio's debug mode (pyproject.toml, tests/conftest.py), so that plain `pytest` does the same as
# `make test`.

# A stamp of another interpreter is not valid.
ifneq ($(origin PYTHON),undefined)
$(shell .ci/setup --is-made-with '$(PYTHON)' || rm -f .venv/.stamp)
endif
PYTHON ?= python3
# The tests' own runners read PYTHON too, and need the one in .venv: the first in their PATH.
unexport PYTHON
PY := .venv/bin/python
STAMP := .venv/.stamp
# tests/conftest.py sets the number of workers, and which tests one worker runs.
PARALLEL := -n auto

# Where this is set, each of the thousand programs that the suite starts compiles all of fullsend again. Empty is off.
export PYTHONDONTWRITEBYTECODE :=

COVERAGE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint types suite bench test-slow test-browser test-debian12 test-debian13 test-python314 test-zfs \
	test-zfs-old test-merge-old test-s3 \
	test-power-cut power-cut deb test-deb man clean

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 23

setup: $(STAMP) ## make .venv, with fullsend (editable) and all that the other targets need

$(STAMP): pyproject.toml .ci/setup
	PYTHON=$(PYTHON) .ci/setup
	@touch $@

demo: $(STAMP) ## the main job on this machine, without ZFS: pair, push, verify, restore, compare
	PATH="$(CURDIR)/.venv/bin:$$PATH" tests/end_to_end/demo

test: lint types suite ## lint, types, and the test suite; COVERAGE=branches takes half as long again, COVERAGE=lines does not

lint: $(STAMP) ## ruff: rules and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: $(STAMP) ## mypy, strict
	$(PY) -m mypy

# Coverage is reported, and compared with its floor, only if the tests themselves passed. Lines alone cost little from
# Python 3.12 on (sys.monitoring), and are more of the whole than lines and branches are.
ifeq ($(COVERAGE),lines)
suite: export COVERAGE_CORE = sysmon
endif
suite: $(STAMP)
ifeq ($(COVERAGE),)
	$(PY) -m pytest -m "not slow and not browser" $(PARALLEL)
else
	$(PY) -m coverage erase
	$(PY) -m coverage run $(if $(filter branches,$(COVERAGE)),--branch) -m pytest -m "not slow and not browser" $(PARALLEL)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report $(if $(filter lines,$(COVERAGE)),--fail-under=96.5)
endif

# pytest exits 5 where it finds no test. Where no test is marked slow, that is correct, and a line says so.
test-slow: $(STAMP) ## the tests that take long
	@if grep -rqs --include='*.py' 'pytest\.mark\.slow' tests; then \
		set -x; $(PY) -m pytest -m slow --durations=30 --durations-min=10 $(PARALLEL); \
	else \
		echo "test-slow: no test is marked slow, so none was run"; \
	fi

# FULLSEND_SCREENSHOTS names a folder for what the browser shows.
test-browser: $(STAMP) ## the report in a real browser: Debian's chromium, which it installs (needs root), and axe-core
	.ci/setup-browser
	FULLSEND_TEST_BROWSER=required $(PY) -m pytest -m browser tests/browser

# TARGET=test-slow, for example, makes another target in each of these roots.
test-debian12: ## `make test` with Debian 12's Python (3.11), in a separate root (needs root)
	.ci/test-in-debian 3.11 bookworm

test-debian13: ## the same with Debian 13's (3.13)
	.ci/test-in-debian 3.13 trixie

test-python314: ## the same with Python 3.14, of the next Debian
	.ci/test-in-debian 3.14 forky sid

test-zfs: $(STAMP) ## the tests against real ZFS, in a virtual machine
	PATH="$(CURDIR)/.venv/bin:$$PATH" tests/zfs/run

zfs-guest: ## build the virtual machine for them (needs root)
	tests/zfs/vm/build

test-s3: $(STAMP) ## the store in a bucket against a real Ceph, which it starts (needs root)
	PATH="$(CURDIR)/.venv/bin:$$PATH" tests/s3/run

# These depend most on the version of OpenZFS: tokens, the streams that they give, and what is in the records of streams.
test-zfs-old: $(STAMP) ## those of them that resume, merge, or read files out of streams, against OpenZFS 2.1
	FULLSEND_ZFS_VM=1 FULLSEND_ZFS_PART=old FULLSEND_ZFSVM_SUITE=bookworm FULLSEND_ZFSVM_ZFS_SUITE=bookworm \
		PATH="$(CURDIR)/.venv/bin:$$PATH" tests/zfs/run

# What CI has time for of that, in a guest whose one processor is emulated.
test-merge-old: $(STAMP) ## merges of random changes alone, against OpenZFS 2.1, with shorter chains
	FULLSEND_ZFS_VM=1 FULLSEND_ZFS_PART=merges FULLSEND_ZFSVM_SUITE=bookworm FULLSEND_ZFSVM_ZFS_SUITE=bookworm \
		PATH="$(CURDIR)/.venv/bin:$$PATH" tests/zfs/run -k test_merge --snapshots 4

test-power-cut: $(STAMP) ## cut a virtual machine's power during pushes, twice: what was acknowledged must be there
	PATH="$(CURDIR)/.venv/bin:$$PATH" tests/powercut/run --rounds 2

# SEED=N repeats the random choices of an earlier run. BREAK=sync: the run must detect a daemon that syncs nothing.
ROUNDS ?= 30
power-cut: $(STAMP) ## the same for half an hour: ROUNDS=30, SEED=N, BREAK=sync|data|folders
	PATH="$(CURDIR)/.venv/bin:$$PATH" tests/powercut/run --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(BREAK),--break $(BREAK))

deb: ## build a package for this machine's Debian or Ubuntu: build/fullsend_VERSION_ARCH.deb
	systemd/package/build

test-deb: ## build the package; install, use, remove and purge it in a clean Debian root (needs root)
	tests/packaging/run

man: $(STAMP) ## write man pages and completions from the programs' own options
	$(PY) docs/generate.py

bench: $(STAMP) ## the benchmarks behind the numbers in the README
	$(PY) bench/run.py

clean: ## remove .venv and all that the tools left
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
