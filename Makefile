# Everything a user or a CI runs. The same targets serve a bare machine and one where ROS 2 is
# sourced: tools/bootstrap.py makes the difference.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
EPISODES ?=
SEED ?=
TASK ?=
CHECKPOINT ?=
OUT ?= out/demo
BAG ?= out/demo/episode_bag
CONFIG ?= config/replay/demo.yaml

in_env := . tools/env.sh &&
# Not the `colcon` of the system, which would run everything with the Python of the system.
colcon := python -m colcon
# Python modules are not listed: --symlink-install runs them from the source tree.
built_from := $(shell find vla_msgs launch config models resource sros2 -type f 2>/dev/null) \
    package.xml setup.py setup.cfg colcon_defaults.yaml
demo_options := $(if $(EPISODES),--episodes $(EPISODES)) \
    $(if $(FLOOR_EPISODES),--floor-episodes $(FLOOR_EPISODES)) $(if $(SEED),--seed $(SEED)) \
    $(if $(TASK),--task '$(TASK)') $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') \
    --out '$(OUT)'

.PHONY: help setup build demo replay faults test unit lint clean always

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16
	@echo 'BAG=folder CONFIG=file.yaml select what make replay reads; CHECKPOINT=folder the policy'
	@echo 'SHORT=1 ONLY="actions processes" SEED=n select what make faults injects'
	@echo 'EPISODES=n FLOOR_EPISODES=n SEED=n TASK="pick red" CHECKPOINT=folder OUT=folder select what make demo runs'

# Runs every time, and writes the stamp only when something changed.
.venv/.ready: always
	@command -v $(PYTHON) >/dev/null || { echo 'set-up: expected Python 3.10 to 3.13 as' \
	    '$(PYTHON), found none; run: sudo apt-get install -y python3' >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py

setup: .venv/.ready  ## create .venv with the pinned requirements

build/.ready: .venv/.ready $(built_from)
	$(in_env) $(colcon) build
	@touch $@

build: build/.ready  ## set up, then build both packages with colcon

# Segments of killed processes would fill the shared memory of a container; those in use stay.
clean_shm := { fastdds shm clean >/dev/null 2>&1 || true; } &&

demo: build  ## run the shipped policy on the simulated arm and report
	$(in_env) $(clean_shm) python -m vla_policy_node.evaluation.demo $(demo_options)

replay: build  ## what the shipped policy would have done on the bag that make demo left
	@test -e '$(BAG)' || { echo 'replay: expected a bag at $(BAG), found none; run: make demo' >&2; exit 1; }
	$(in_env) python -m vla_policy_node.evaluation.replay.cli '$(BAG)' --config '$(CONFIG)' \
	    --checkpoint '$(or $(CHECKPOINT),models/tabletop)' --out out/replay

faults: build  ## inject faults into controller, decoding, loading and the running processes, for hours
	$(in_env) $(clean_shm) python -m faults $(if $(SHORT),--short) $(foreach part,$(ONLY),--only $(part)) \
	    $(if $(SEED),--seed $(SEED)) --out out/faults

test: build  ## run the tests of both packages through colcon
	@rm -rf build/*/test_results build/*/pytest.xml
	$(in_env) $(clean_shm) { $(colcon) test; status=$$?; $(colcon) test-result --verbose && exit $$status; }

unit: build  ## run the fast tests alone
	$(in_env) python -m pytest -q -m 'not slow and not integration'

lint: .venv/.ready  ## ruff and the import contracts
	$(in_env) python -m ruff check . && lint-imports --no-cache

clean:  ## remove what was built; .venv stays
	rm -rf build install log
