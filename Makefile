# Everything a user or a developer does with the checkout. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ROOT := $(CURDIR)
PYTHON := $(ROOT)/.venv/bin/python
# Tools that set-up unpacked instead of installing come last: what the machine has wins.
export PATH := $(ROOT)/.venv/bin:$(PATH):/usr/sbin:/sbin:$(ROOT)/build/tools/usr/bin:$(ROOT)/build/tools/usr/sbin:$(ROOT)/build/tools/bin

.PHONY: help setup run stop test lint format bench docs vm lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: ## install what is missing (as root) and make .venv; starts no service
	@scripts/setup.sh

run: setup ## start a demonstration daemon, run a container in it, show its trace
	@scripts/demo.sh start

stop: ## end the demonstration daemon and remove all of its state
	@scripts/demo.sh stop

test: setup ## lint and the whole test suite (as root; without root, the part that needs none)
	@$(PYTHON) -m pytest $(ARGS)

lint: setup ## ruff, mypy and the import rules
	@ruff check . && ruff format --check . && mypy && lint-imports

format: setup ## let ruff rewrite the code
	@ruff check --fix . && ruff format .

bench: setup ## dockerd and longshored side by side, medians and ratios
	@$(PYTHON) bench/run.py $(ARGS)

docs: setup ## regenerate the documents that are made from the code
	@$(PYTHON) scripts/compatibility.py docs/compatibility.md

vm: setup ## run ARGS (the tests by default) in a Debian in QEMU with cgroup v2, AppArmor, CRIU, NFS, XFS
	@scripts/vm.sh run $(or $(ARGS),python -m pytest)

lock: setup ## resolve the dependencies anew into requirements*.lock
	@scripts/lock.sh

clean: ## remove what set-up and the tools made inside the checkout
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
