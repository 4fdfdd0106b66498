#!/bin/bash
# Builds the C data plane into results/build/release; only what changed. Assertions stay on.
step=build
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"

configure --buildtype=release
ninja -C "$build"
say "ready: $build"
