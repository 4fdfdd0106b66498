# The project's verbs. Each does all the set-up that it needs; second runs are quick.
#   TIER=full            the long evaluation (make reproduce, make trials)
#   OF="crash latency"   the experiments to run (make trials)
#   TESTS="-k name"      words for pytest (make test)
#   RUNS=20000           executions of each fuzz target (make fuzz)
#   DURATION=3600        seconds of make soak
#   SEEDS=1000000 SEED_BASE=1   schedules to simulate, from which seed on (make sim)
#   FIX=1                repair the formatting (make check)
#   ONLY=M01             one model, or one broken variant (make model)
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build bench test check sim plants sanitize fuzz soak model reproduce trials report clean distclean

help: ## list these targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: ## Debian packages, .venv from the locked requirements
	@envs/setup.sh

build: setup ## the C data plane, in results/build/release
	@envs/build.sh

test: build ## all tests: C, Python, real processes
	@envs/test.sh

sanitize: setup ## the C tests under address, undefined-behaviour and thread sanitizers
	@envs/sanitize.sh

fuzz: setup ## every decoder, RUNS executions each (default 1000000)
	@RUNS=$(RUNS) envs/fuzz.sh

soak: build ## simulator, masters killed again and again, fuzzers: DURATION=seconds
	@DURATION=$(DURATION) envs/soak.sh

check: setup ## format, static analysis, types
	@envs/check.sh

model: setup ## the models of the protocol, with spin: ONLY=name
	@.venv/bin/python native/model/run.py $(if $(ONLY),--only $(ONLY))

bench: build ## what functions and snapshots cost in one process; instructions too, where valgrind is
	@ninja -C $(CURDIR)/results/build/release tests/bench_functions tests/bench_flip tests/bench_cow \
	    tests/bench_replay >/dev/null
	@.venv/bin/ftmb bench
	@cd $(CURDIR)/results/build/release/tests && (./bench_flip 20000 5000 nat 64 && \
	    ./bench_flip 20000 5000 monitor 2) > $(CURDIR)/results/bench/flip.txt
	@$(CURDIR)/results/build/release/tests/bench_cow 20 > $(CURDIR)/results/bench/cow.txt
	@$(CURDIR)/results/build/release/tests/bench_replay > $(CURDIR)/results/bench/replay.txt
	@echo "results/bench: functions.json, flip.txt, cow.txt, replay.txt"
	@envs/verdicts.sh

sim: build ## SEEDS schedules in the simulator (default 100000), on all cores
	@$(CURDIR)/results/build/release/sim/ftmb-sim --jobs $$(nproc) --seeds $(or $(SEEDS),100000) \
	    $(if $(SEED_BASE),--seed-base $(SEED_BASE)) $(if $(JSON),--json $(JSON))

plants: build ## look for every bug planted in the simulator's copy of the code
	@$(CURDIR)/results/build/release/sim/ftmb-sim --plants --seed-base $(or $(SEED_BASE),1) \
	    --limit $(or $(LIMIT),1000000) $(if $(JSON),--json $(JSON))

reproduce: setup ## the whole evaluation: build, trials, results/report.html
	@envs/reproduce.sh $(if $(TIER),--config tier=$(TIER))

trials: setup ## only some trials, and their verdicts: OF="throughput crash"
	@envs/trials.sh $(or $(TIER),quick) $(OF)

report: setup ## the report anew from the records that exist
	@.venv/bin/ftmb report

clean: ## remove everything that was built or measured
	@find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and remove .venv
	@rm -rf .venv
