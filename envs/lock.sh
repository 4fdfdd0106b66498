#!/bin/bash
# Writes envs/requirements.txt anew from envs/requirements.in. Needs `uv`; set UV to use one that is
# not on the path. Run it, then `make setup`, then `make test`, and commit both files together.
set -euo pipefail
cd "$(dirname "$0")"
exec "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-emit-index-url --no-emit-find-links \
    --custom-compile-command envs/lock.sh "$@" requirements.in -o requirements.txt
