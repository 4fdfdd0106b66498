# Sourced by the scripts of this directory: where the project is, how to say that it cannot go on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
build=results/build/release

say() { printf '%s: %s\n' "${step:-ftmb}" "$*"; }
fail() { printf '%s: error: %s\n' "${step:-ftmb}" "$*" >&2; exit 1; }

# logged NAME COMMAND...: runs a noisy command into results/logs/NAME.log; shows its end on failure.
logged() {
    local log="results/logs/$1.log"
    shift
    mkdir -p results/logs
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 25 "$log" >&2
        return 1
    fi
}
