"""`ftmb bench`: what the functions cost in one process: times, and instructions where valgrind is.

Runs `bench_functions` and writes what it printed, with the counts, the processor and the
versions, as one JSON file: what is claimed of it holds for the build that it was made with.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftmb.describe import NODE, describe, project_root
from ftmb.environment import cpu_field, versions
from ftmb.errors import MachineError
from ftmb.lock import WAIT_S, machine_lock

PROGRAM = Path("results/build/release/tests/bench_functions")
OUT = Path("results/bench/functions.json")
SKIPPED = "skipped, no valgrind"
# Enough that opening the function, the same in both counts, does not matter: it is subtracted.
COUNTED = (1024, 5120)
TOTAL = re.compile(r"Collected : (\d+)")
SWEEP = "sweep-"


def instructions(program: Path, case: str, mode: str) -> float:
    """Instructions of a packet, by callgrind: what the packets between two counts add."""
    totals = []
    for packets in COUNTED:
        words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program)]
        done = _run([*words, "count", case, mode, str(packets)])
        found = TOTAL.search(done.stderr)
        if not found:
            raise MachineError(f"callgrind did not count {case}: {done.stderr.strip()[-200:]}")
        totals.append(int(found[1]))
    return (totals[1] - totals[0]) / (COUNTED[1] - COUNTED[0])


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MachineError(f"{words[0]} failed: {last}")
    return done


def run(program: Path, piece_ms: int, repetitions: int, count: bool) -> dict[str, Any]:
    """The bench's rows; of the functions, with instructions."""
    if not program.exists():
        raise MachineError(f"{program} is not built: run `make bench`")
    node = program.parents[1] / NODE.name  # of the same build
    made: dict[str, Any] = json.loads(_run([str(program), str(piece_ms), str(repetitions)]).stdout)
    made["cpu"] = cpu_field("model name")
    made["versions"] = versions(describe(node), node).model_dump()
    made["instructions"] = "callgrind" if count and shutil.which("valgrind") else SKIPPED
    for row in made["rows"]:
        if made["instructions"] != SKIPPED and not row["name"].startswith(SWEEP):
            for mode in ("none", "ftmb"):
                row[f"{mode}_instructions"] = instructions(program, row["name"], mode)
    return made


def main(words: Sequence[str]) -> int:
    """Entry of `ftmb bench`."""
    parser = argparse.ArgumentParser(prog="ftmb bench", description=main.__doc__)
    parser.add_argument("--program", type=Path, default=project_root() / PROGRAM)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    parser.add_argument("--piece-ms", type=int, default=10, help="of a measured piece")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--no-count", action="store_true", help="no instructions")
    args = parser.parse_args(words)
    with machine_lock(WAIT_S):
        made = run(args.program, args.piece_ms, args.repetitions, not args.no_count)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(made['rows'])} cases; instructions: {made['instructions']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
