"""Checks the Promela models of the protocol with spin, and that broken variants are found.

    python native/model/run.py [--only NAME] [--json FILE]

A correct model must be searched to its end without an error; a broken variant (a macro M01, M02,
... given with -D) must show one, and so must an assertion that stands where a rare path is. Needs
spin and a C compiler, nothing else. docs/MODEL.md says what the models are about, suite.py what is
checked.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from suite import MODELS, PLANTS, REACHES, Check

HERE = Path(__file__).resolve().parent
MEMORY_MB = 2000
DEPTH = 1_000_000
SECONDS = 600  # one search; far more than any needs
COMPILE = ["gcc", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}"]
# Words of the verifier with which a search that is not exhaustive gives itself away.
TRUNCATED = ("Search not completed", "max search depth too small", "reached -DMEMLIM")
ERROR = re.compile(r"^pan:\d+: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What one search found."""

    states: int
    depth: int
    seconds: float
    memory_mb: float
    errors: int
    complete: bool
    what: str  # the first error, "" if none


class ModelError(Exception):
    """A model that cannot be checked at all."""


def run(command: list[str], cwd: Path) -> str:
    """Runs a command to its end; its output, or ModelError."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise ModelError(f"{command[0]} is not installed (`make setup` does that)") from error
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{command[0]} took more than {SECONDS} s") from error
    if done.returncode:
        raise ModelError(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def number(pattern: str, text: str) -> float:
    """The first number that `pattern` finds; ModelError if the verifier said nothing of it."""
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ModelError(f"the verifier's words were not understood:\n{text}")
    return float(found.group(1))


def readable(error: str) -> str:
    """The verifier's words for an error without its place and what macros have grown to."""
    words = re.sub(r" \(at depth \d+\)", "", error)
    return words if len(words) <= 90 else f"{words[:87]}..."


def parse(output: str, seconds: float) -> Result:
    """What the verifier said. It must have looked for assertions and for deadlocks."""
    for line in (r"assertion violations\s+\+", r"invalid end states\s+\+"):
        if not re.search(line, output):
            raise ModelError(f"the verifier did not look for all that it should:\n{output}")
    error = ERROR.search(output)
    return Result(
        states=int(number(r"^\s*([\d.e+]+) states, stored", output)),
        depth=int(number(r"depth reached (\d+)", output)),
        seconds=round(seconds, 2),
        memory_mb=number(r"^\s*([\d.]+)\s+total actual memory usage", output),
        errors=int(number(r"errors: (\d+)", output)),
        complete=not any(words in output for words in TRUNCATED),
        what=readable(error.group(1)) if error else "",
    )


def search(check: Check) -> Result:
    """Generates, compiles and runs the verifier of one check."""
    defines = [f"-D{name}" for name in check.defines]
    with tempfile.TemporaryDirectory(prefix="ftmb-model-") as name:
        directory = Path(name)
        for model in HERE.glob("*.pml"):
            shutil.copy(model, directory)
        start = time.monotonic()
        words = run(["spin", "-a", *defines, f"{check.model}.pml"], directory)
        if "rror:" in words:
            raise ModelError(words)
        # What must fail does so early: compiling it well takes longer than searching.
        optimise = "-O0" if check.must_fail else "-O2"
        run([*COMPILE, optimise, "-o", "pan", "pan.c"], directory)
        output = run(["./pan", f"-m{DEPTH}", "-n", "-w20"], directory)
        return parse(output, time.monotonic() - start)


def verdict(check: Check, result: Result) -> str:
    """ "" if this is what it must be, else what is wrong."""
    if check.must_fail:
        return "" if result.errors else "NOT FOUND"
    if result.errors:
        return f"ERROR: {result.what}"
    return "" if result.complete else "NOT EXHAUSTIVE"


def of_model(check: Check, result: Result) -> dict[str, object]:
    """A correct model's entry in the document."""
    return {
        "name": check.name,
        "what": check.what,
        "workers": check.workers,
        "variables": check.variables,
        "bound": check.bound,
        "properties": list(check.properties),
        "exhaustive": result.complete,
        "states": result.states,
        "depth": result.depth,
        "seconds": result.seconds,
        "memory_mb": result.memory_mb,
        "errors": result.errors,
    }


def of_failing(check: Check, result: Result) -> dict[str, object]:
    """The entry of a broken variant or of a rare path."""
    return {
        "id": check.name,
        "name": check.what,
        "model": check.model,
        "found": result.errors > 0,
        "what": result.what,
        "states": result.states,
        "seconds": result.seconds,
    }


def as_json(results: list[tuple[Check, Result]]) -> dict[str, object]:
    """The results as a document of kind `model`."""
    return {
        "version": 1,
        "kind": "model",
        "models": [of_model(c, r) for c, r in results if c in MODELS],
        "plants": [of_failing(c, r) for c, r in results if c in PLANTS],
        "reached": [of_failing(c, r) for c, r in results if c in REACHES],
    }


def main() -> int:
    """Runs the suite; 0 if everything is as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="a model (join), or a check (order-2, M01); may be repeated",
    )
    args = parser.parse_args()
    every = (*MODELS, *PLANTS, *REACHES)
    for name in args.only or []:
        if not any(name in (c.model, c.name) for c in every):
            parser.error(f"no check is called {name}")
    checks = [c for c in every if not args.only or {c.model, c.name} & set(args.only)]
    print(f"{'check':<24}{'states':>10}{'depth':>8}{'MB':>6}{'s':>7}{'errors':>8}")
    results, bad = [], 0
    for check in checks:
        try:
            result = search(check)
        except ModelError as error:
            print(f"{check.name}: {error}", file=sys.stderr)
            return 1
        results.append((check, result))
        wrong = verdict(check, result)
        bad += bool(wrong)
        print(
            f"{check.name:<24}{result.states:>10}{result.depth:>8}{result.memory_mb:>6.0f}"
            f"{result.seconds:>7.1f}{result.errors:>8}  {wrong or check.what}",
            flush=True,
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")
    seconds = sum(result.seconds for _, result in results)
    print(f"{len(results)} checks, {bad} wrong, {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
