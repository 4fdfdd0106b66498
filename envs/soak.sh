#!/bin/bash
# The long runs, one after the other, each with a third of the time: the simulator with fresh
# seeds, a trial in which the master is killed again and again, the fuzzers. A failure of one does
# not stop the others.
#   DURATION=SECONDS   for all of it (default 3600)
step=soak
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
duration=${DURATION:-3600}
[[ $duration =~ ^[0-9]+$ ]] && ((duration >= 60)) \
    || fail "DURATION is a number of seconds, at least 60"
third=$((duration / 3))
status=0
mkdir -p results/reliability

say "simulator"
make --no-print-directory sim SEEDS=$((third * 300)) SEED_BASE="$(date +%s)" || status=1

say "chaos: masters killed for $third s (record: results/soak/chaos)"
rm -rf results/soak/chaos
ftmb trial config/examples/chaos.yaml --set "duration_s=$third" --out results/soak/chaos \
    --strict --verbose || status=1

say "fuzzers"
RUNS=$((third * 1000)) envs/fuzz.sh || status=1
((status == 0)) || printf 'soak: error: something failed, see above\n' >&2
exit $status
