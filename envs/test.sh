#!/bin/bash
# Runs the C tests, plain and with sanitizers, a short round of the fuzzers, then the Python tests;
# all of them always, so that one failure does not hide another.
#   TESTS="-k name"     words for pytest
step=test
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
status=0
say "C tests (log: $build/meson-logs/testlog.txt)"
meson test -C "$build" --no-rebuild --print-errorlogs --num-processes 1 || status=1
envs/sanitize.sh || status=1
RUNS=20000 JSON=results/fuzz/slice.json envs/fuzz.sh || status=1
say "Python tests"
# shellcheck disable=SC2086
python -m pytest ${TESTS:-} || status=1
((status == 0)) || printf 'test: error: tests failed, see above\n' >&2
exit $status
