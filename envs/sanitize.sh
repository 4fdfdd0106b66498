#!/bin/bash
# Builds with sanitizers and runs the C tests under them: without DPDK's, which is not instrumented,
# and without processes that are to die, whose death a sanitizer would change.
# Usage: envs/sanitize.sh [asan] [tsan]; words after -- go to `meson test`.
#   asan   addresses and undefined behaviour, in results/build/asan
#   tsan   data races, in results/build/tsan
step=sanitize
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
declare -A sanitizers=([asan]=address,undefined [tsan]=thread)
kinds=()
while (($#)) && [[ $1 != -- ]]; do
    [[ -n ${sanitizers[$1]:-} ]] || fail "there is no sanitizer build '$1'; there are: asan, tsan"
    kinds+=("$1")
    shift
done
shift $(($# > 0))
((${#kinds[@]})) || kinds=(asan tsan)
status=0

export TSAN_OPTIONS="exitcode=66 suppressions=$root/envs/tsan.supp"
for kind in "${kinds[@]}"; do
    build=results/build/$kind
    configure -Db_sanitize="${sanitizers[$kind]}" -Db_lundef=false --buildtype=debugoptimized
    logged "ninja-$kind" ninja -C "$build" \
        || fail "the build $build failed (results/logs/ninja-$kind.log)"
    options=()
    # The arena lies where this one cannot watch; the simulator is one thread with many stacks.
    [[ $kind != tsan ]] || options=(--no-suite arena --no-suite sim)
    # With more random bits in addresses than this the thread sanitizer finds its memory taken.
    if [[ $kind == tsan && $(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0) -gt 28 ]]; then
        options+=(--wrapper "setarch -R")
    fi
    say "C tests under $kind (log: $build/meson-logs/testlog.txt)"
    meson test -C "$build" --no-rebuild --no-suite dpdk --no-suite deaths --print-errorlogs \
        --quiet "${options[@]}" "$@" || status=1
done
exit $status
