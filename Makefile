# SPDX-License-Identifier: Apache-2.0
# Every target first makes the checkout ready (tools/install.sh), which costs a moment only when something is missing.
PYTHON := .venv/bin/python
TEST := $(PYTHON) tools/test.py
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test check functional lab lab-extended simulate chaos fabric bench bench-lab bench-scale docs \
	genconfig genman gencompletion genpolicy genstates genverbs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Debian packages that are missing and the virtual environment .venv
	@tools/install.sh

demo: install ## a daemon, a volume, an attachment and a crash, in front of your eyes
	@$(PYTHON) tools/demo.py $(ARGS)

test: install ## every tier that this machine can run, and what it could not
	@$(TEST) $(ARGS)

check: install ## the quick tiers: ruff, mypy, unit, conformance
	@$(TEST) --quick $(ARGS)

functional: install ## the daemon as a process, on every transport and database
	@$(TEST) --tier functional --tier functional-threading --tier postgresql --tier mariadb $(ARGS)

lab: install ## what needs a kernel of its own: tests, the conformance matrix of LVM, figures; in guests, an hour
	@$(TEST) --tier lab-harness --tier lab --tier lab-conformance $(ARGS)
	@$(PYTHON) tools/bench.py --lab

lab-extended: install ## what make lab leaves out for its length
	@$(TEST) --tier lab-extended $(ARGS)

simulate: install ## seeded schedules of the worker with crashes and faults, at length (ARGS="--minutes 60 --systematic")
	@VOLMGR_CONCURRENCY=threading $(PYTHON) -m volmgr.testing.simulation --shrink $(ARGS)
	@VOLMGR_CONCURRENCY=threading $(PYTHON) -m volmgr.testing.simulation --room storpool --shrink $(ARGS)

chaos: install ## kill points of every verb, 1,000 random kills here and 100 in the lab; ARGS=--seed=N
	@nice $(PYTHON) -m volmgr.testing.chaos --points
	@nice $(PYTHON) -m volmgr.testing.chaos --backend sim --kills 300 $(ARGS)
	@nice $(PYTHON) -m volmgr.testing.chaos --backend file --kills 700 $(ARGS)
	@VOLMGR_CHAOS_KILLS=100 nice $(PYTHON) -m volmgr.testing.lab --timeout 3600 -- -q -s tests/lab/inside/test_kills.py

fabric: install ## Fibre Channel, iSER and AoE, in an emulated machine with Debian's kernel
	@$(TEST) --tier fabric --tier fabric-extended $(ARGS)

bench: install ## the benchmarks
	@$(PYTHON) tools/bench.py $(ARGS)

bench-lab: install ## the benchmarks that need a kernel of their own, in guests
	@$(PYTHON) tools/bench.py --lab $(ARGS)

bench-scale: install ## the benchmarks of many volumes and many clients, on RabbitMQ and PostgreSQL
	@$(PYTHON) tools/bench.py --scale $(ARGS)

docs: install ## the documentation, into doc/build/html
	@$(PYTHON) -m sphinx -q -W --keep-going -b html doc/source doc/build/html

genman: install ## the man pages, into doc/man
	@$(PYTHON) -m sphinx -q -W -E --keep-going -b man -d doc/build/doctrees-man doc/source doc/man

gencompletion: install ## the completion for bash, into etc/bash_completion.d
	@.venv/bin/volmgr complete > etc/bash_completion.d/volmgr

genconfig: install ## etc/volmgr/volmgr.conf.sample from the registered options
	@mkdir -p etc/volmgr
	@.venv/bin/oslo-config-generator --config-file tools/config-generator.conf

genpolicy: install ## etc/volmgr/policy.yaml.sample from the rules
	@.venv/bin/oslopolicy-sample-generator --config-file tools/policy-generator.conf

genstates: install ## the diagrams of the state machines, into doc/source/states
	@$(PYTHON) tools/genstates.py

genverbs: install ## the page of verbs and of what drivers can do, doc/source/verbs.rst
	@$(PYTHON) tools/genverbs.py

clean: ## remove what was built; .venv goes too
	rm -rf build doc/build .venv .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	rm -f .coverage .coverage.*
