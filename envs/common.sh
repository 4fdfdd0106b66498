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

# configure OPTION...: makes $build a build directory with these Meson options, if it is none yet.
# One that came along with a copied tree would build the tree it was made in: it is made anew.
configure() {
    if ! grep -qsF "\"source\": \"$root/native\"" "$build/meson-info/meson-info.json" \
        || [[ ! -f $build/build.ninja ]]; then
        rm -rf "$build"
        logged meson meson setup "$build" native -Db_ndebug=false "$@" \
            || fail "Meson could not configure $build (results/logs/meson.log)"
    fi
}
