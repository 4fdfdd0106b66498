#!/bin/bash
# Runs the trials of the experiments named, and of those that they depend on; then prints the
# verdicts that the records so far allow.
# Usage: envs/trials.sh TIER EXPERIMENT...; DRY=1 only lists the jobs.
step=trials
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
tier=$1
shift
(($#)) || fail "name experiments of config/experiments.yaml: make trials OF=\"throughput crash\""
plan=$(python -m ftmb.experiments list --tier "$tier" | awk '$3 == "s" {print $4}')
targets=(results/plan.json) # says which record belongs to which experiment
for experiment in "$@"; do
    if [[ $experiment == endpoints ]]; then
        for id in $(python -m ftmb.planned config/endpoints.yaml "$tier"); do
            targets+=("results/endpoints/$id/record.json")
        done
        continue
    fi
    if [[ $experiment == peers ]]; then
        for id in $(python -m ftmb.planned config/peers.yaml "$tier"); do
            targets+=("results/peers/$id/record.json")
        done
        continue
    fi
    mapfile -t ids < <(grep -E "^$experiment-" <<<"$plan")
    ((${#ids[@]})) || fail "no experiment '$experiment' in config/experiments.yaml; there are:" \
        "$(cut -d- -f1 <<<"$plan" | sort -u | tr '\n' ' ')"
    for id in "${ids[@]}"; do
        targets+=("results/trials/$id/record.json")
    done
done
snakemake --cores all --config tier="$tier" ${DRY:+--dry-run} -- "${targets[@]}" \
    || fail "the workflow stopped; the failing rule's log is named above"
[[ -z ${DRY:-} ]] || exit 0
envs/verdicts.sh
