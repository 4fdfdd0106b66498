"""The measured maximum of each network function, from which other trials take their load.

`python -m ftmb.analysis.rates --out rates.json RECORD...` reads throughput records only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def rates(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median throughput under `ftmb` per network function (packets per second).

    Valid records decide; where a function has none, the invalid ones do, and that is said.
    """
    found: dict[str, dict[bool, list[float]]] = {}
    for record in records:
        if record["spec"]["ft"]["mode"] == "ftmb" and record.get("throughput_pps"):
            runs = found.setdefault(record["spec"]["nf"]["name"], {True: [], False: []})
            runs[record.get("valid") is True].append(float(record["throughput_pps"]))
    return {
        name: {
            "maximum_pps": round(statistics.median(runs[True] or runs[False])),
            "runs": len(runs[True] or runs[False]),
            "valid": bool(runs[True]),
        }
        for name, runs in sorted(found.items())
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the rates file."""
    parser = argparse.ArgumentParser(prog="python -m ftmb.analysis.rates")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("records", type=Path, nargs="+")
    args = parser.parse_args(argv)
    try:
        found = rates([json.loads(path.read_text(encoding="utf-8")) for path in args.records])
    except (OSError, json.JSONDecodeError, KeyError) as error:
        print(f"ftmb: throughput record unreadable: {error}", file=sys.stderr)
        return 2
    if not found:
        print("ftmb: no throughput record of mode ftmb delivered a packet", file=sys.stderr)
        return 1
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
