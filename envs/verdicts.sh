#!/bin/bash
# Prints the verdicts that the records so far allow.
step=verdicts
source "$(dirname "$0")/common.sh"
export PATH="$root/.venv/bin:$PATH"
if ! compgen -G "results/trials/*/record.json" >/dev/null; then
    say "none: there is no record of a trial in results/trials"
    exit 0
fi
ftmb report --step analysis --claims config/claims.yaml
say "from the records in results/trials; all of the values are in results/analysis"
python - <<'END'
import csv

for row in csv.DictReader(open("results/analysis/claims.csv", encoding="utf-8", newline="")):
    known = row["value"] not in ("", "nan")
    measured = f"{row['part']} {float(row['value']):.4g} {row['unit']} ".lstrip() if known else ""
    print(f"{row['id']:<17} {row['verdict']:<16} {measured}{row['reason']}".rstrip())
END
