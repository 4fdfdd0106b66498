#!/bin/bash
# Runs the C tests, plain and with sanitizers, a short round of the fuzzers, then the Python tests;
# all of them always, so that one failure does not hide another.
#   TESTS="-k name"     words for pytest
step=test
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
mkdir -p results/logs
failed=()

# part NAME COMMAND...: runs one part of the tests; results/logs/test-NAME.log has what it says too.
part() {
    local name=$1
    shift
    "$@" 2>&1 | tee "results/logs/test-$name.log" || failed+=("$name")
}

say "C tests (log: $build/meson-logs/testlog.txt)"
part native meson test -C "$build" --no-rebuild --print-errorlogs --num-processes 1
part sanitizers envs/sanitize.sh
RUNS=20000 JSON=results/fuzz/slice.json part fuzzers envs/fuzz.sh
say "Python tests"
# shellcheck disable=SC2086
part python python -m pytest ${TESTS:-}
((${#failed[@]})) || exit 0

# Whoever looks at the end of a long log only must see what it was.
for name in "${failed[@]}"; do
    log=results/logs/test-$name.log
    printf '\ntest: error: the part %s failed; from %s:\n' "$name" "$log"
    grep -E 'FAIL|TIMEOUT|ERROR|error|violation|not found' "$log" | tail -n 15
    tail -n 15 "$log"
done >&2
exit 1
