#!/bin/bash
# Builds the C data plane into results/build/release; only what changed. Assertions stay on.
step=build
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"

# A build directory that came along with a copied tree would build the tree it was made in.
if ! grep -qsF "\"source\": \"$root/native\"" "$build/meson-info/meson-info.json" \
    || [[ ! -f $build/build.ninja ]]; then
    rm -rf "$build"
    logged meson meson setup "$build" native --buildtype=release -Db_ndebug=false \
        || fail "Meson could not configure the build (results/logs/meson.log)"
fi
ninja -C "$build"
say "ready: $build"
