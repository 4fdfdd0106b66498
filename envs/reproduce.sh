#!/bin/bash
# Runs the whole evaluation and says where the report is. Words given are handed to Snakemake.
step=reproduce
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
snakemake --cores all "$@" || fail "the workflow stopped; the failing rule's log is named above." \
    "Mend the cause, then run it again: finished trials are kept"
say "open this page in a browser: $root/results/report.html"
