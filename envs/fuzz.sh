#!/bin/bash
# Fuzzes every decoder, with address and undefined-behaviour sanitizers: RUNS executions each, from
# the inputs in native/fuzz/corpus and those that earlier runs added in results/fuzz/corpus. Then
# shows that it can fail: a fault planted in delta_check() must be found.
#   RUNS=N         executions of each target (default 1000000)
#   TARGETS="a b"  only these targets
#   JSON=FILE      where the counts go (default results/reliability/fuzz.json)
# An input that crashes a target is kept; run
# results/build/fuzz/fuzz/fuzz_TARGET INPUT to see it again.
step=fuzz
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
build=results/build/fuzz
runs=${RUNS:-1000000}
all=(flow frames logs delta standby transfer control spec capture nat nat-pthread monitor ratelimit
    firewall lb wanopt ids)
read -ra targets <<<"${TARGETS:-${all[*]}}"
found=results/fuzz
json=${JSON:-results/reliability/fuzz.json}
mkdir -p "$found" "${json%/*}"

CC=clang configure -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    --buildtype=debugoptimized
logged ninja-fuzz ninja -C "$build" fuzzers \
    || fail "the fuzz targets could not be built (results/logs/ninja-fuzz.log)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

# fuzz PROGRAM NAME RUNS: fuzzes from the corpus of NAME; what it says is in results/logs. The value
# profile lets it find sizes that are wrong by one.
fuzz() {
    mkdir -p "$found/corpus/$1"
    "$build/fuzz/fuzz_$1" -runs="$3" -use_value_profile=1 -print_final_stats=1 -timeout=10 \
        -artifact_prefix="$found/$1-" "$found/corpus/$1" "native/fuzz/corpus/$2" \
        >"results/logs/fuzz-$1.log" 2>&1 </dev/null
}

status=0 lines=()
for target in "${targets[@]}"; do
    log=results/logs/fuzz-$target.log
    crashes=0 began=$(date +%s.%N)
    fuzz "$target" "$target" "$runs" || crashes=1
    seconds=$(awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN {printf "%.1f", b - a}')
    executed=$(awk '/stat::number_of_executed_units/ {print $2}' "$log")
    covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | cut -d' ' -f2 || true)
    corpus=$(find "$found/corpus/$target" "native/fuzz/corpus/$target" -type f | wc -l)
    say "$target: ${executed:-0} executions in $seconds s, ${covered:-0} branches," \
        "$corpus inputs, $crashes crashes"
    numbers="\"executions\": ${executed:-0}, \"seconds\": $seconds, \"crashes\": $crashes"
    lines+=("{\"name\": \"$target\", $numbers, \"corpus\": $corpus, \"coverage\": ${covered:-0}}")
    if ((crashes)); then
        status=1
        grep -E 'ERROR|SUMMARY|runtime error|does not hold|CHECK|invariant|Test unit' "$log" >&2 \
            || tail "$log" >&2
    fi
done
(IFS=,; printf '{"version": 1, "kind": "fuzz", "targets": [%s]}\n' "${lines[*]}") >"$json"

# It takes a million or two; the limit is far above that, so that luck does not decide. Its own
# inputs are of no use to anybody.
rm -rf "$found/corpus/planted"
if fuzz planted delta 40000000; then
    fail "the planted fault was not found (results/logs/fuzz-planted.log)"
fi
grep -q 'heap-buffer-overflow' results/logs/fuzz-planted.log \
    || fail "the planted target failed otherwise (results/logs/fuzz-planted.log)"
rm -rf "$found/corpus/planted" "$found"/planted-*
say "the planted fault was found"
exit $status
