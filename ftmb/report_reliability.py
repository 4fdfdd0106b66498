"""Tables of the report's section on reliability. What was not made says so, and how to make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftmb.analysis import reliability, stats
from ftmb.analysis.metrics import harmful
from ftmb.analysis.records import Results
from ftmb.report_layout import MISSING, Table, number, summed

NOT_MADE = "not made: {command}"
COMMANDS = {
    "faults": "make trials OF=faults",
    "chaos": "make trials OF=chaos",
    "sim": "make sim",
    "plants": "make plants",
    "model": "make model",
    "fuzz": "make fuzz",
}


def _absent(head: Sequence[str], kind: str, title: str, words: int = 1) -> Table:
    row = [NOT_MADE.format(command=COMMANDS[kind]), *[MISSING] * (len(head) - 1)]
    return Table(head, [row], "", words, title=title)


def _spread(values: pd.Series, form: str = ",.1f") -> str:
    """`median / longest` of milliseconds."""
    known = pd.to_numeric(values).dropna()
    if known.empty:
        return MISSING
    return f"{known.median():{form}} / {known.max():{form}}"


def _share(bound: float) -> str:
    """A bound may only be rounded up."""
    return f"{-(-bound * 1000 // 1) / 10:.1f} %"


def faults(results: Results) -> Table:
    """Each kind of fault: how often, how it ended, what it took, what was lost in flight."""
    table = reliability.incidents(results)
    frame = results.frame.set_index("trial")
    harmed = set(frame[frame.apply(harmful, axis=1)].index)
    rows = []
    for row, words in reliability.ROWS.items():
        part = reliability.of_row(table, row)
        if part.empty:
            rows.append((words, "0", NOT_MADE.format(command=COMMANDS["faults"]), *[MISSING] * 5))
            continue
        good = part["guaranteed"].astype(bool) & ~part["trial"].isin(harmed)
        bound = stats.failure_bound(int((~good).sum()), len(part))
        rows.append(
            (
                words,
                str(len(part)),
                f"{int(good.sum())} of {len(part)}",
                _share(bound),
                _spread(part["recovered_ms"]),
                _spread(part["protected_again_ms"]),
                _spread(part["outage_ms"]),
                _in_flight(frame.loc[sorted(set(part["trial"]))], row),
            )
        )
    head = ("fault", "n", "ended as guaranteed", "others at most", "to new output (ms)",
            "to protection (ms)", "silence at the sink (ms)", "lost in flight")  # fmt: skip
    note = (
        "What is guaranteed of each is in docs/FAULTS.md. Others at most: with 95 %, by the number "
        "of runs alone (for none of n, about 3/n). Times: median / longest. Lost in flight, "
        "packets: frames that met a dead input logger, outputs that a killed output logger had in "
        f"hand. Again: {COMMANDS['faults']}."
    )
    return Table(head, rows, note, 1, True, "Faults")


def _in_flight(trials: pd.DataFrame, row: str) -> str:
    key = {"kill-il": "lost_before_log", "kill-ol": "lost"}.get(row)
    return MISSING if key is None else summed(trials[key])


def chaos(results: Results) -> Table:
    """Kills one after the other, what came of them, and memory."""
    head = ("run", "minutes", "kills", "delivered", "lost", "duplicated", "corrupted",
            "checks failed", "to new output (ms)", "to protection (ms)", "memory")  # fmt: skip
    frame = results.frame
    frame = frame[frame["experiment"] == "chaos"]
    if frame.empty:
        return _absent(head, "chaos", "Chaos")
    table = reliability.incidents(results)
    rows = []
    for _, trial in frame.sort_values("trial").iterrows():
        part = table[table["trial"] == trial["trial"]]
        counts = [number(trial[key]) for key in ("faults", "delivered", "lost", "duplicated",
                                                 "corrupted", "checks_failed")]  # fmt: skip
        minutes = number(trial["duration_s"], ",.1f", 1 / 60)
        times = (_spread(part["recovered_ms"]), _spread(part["protected_again_ms"]))
        rows.append((str(trial["trial"]), minutes, *counts, *times, _memory(results, trial)))
    sums = [summed(frame[key]) for key in ("faults", "delivered", "lost", "duplicated",
                                                 "corrupted", "checks_failed")]  # fmt: skip
    rows.append(("all", number(frame["duration_s"].sum(), ",.1f", 1 / 60), *sums, *[MISSING] * 3))
    note = (
        "Times: median / longest. Memory: whether it stayed flat, judged in runs of a minute or "
        f"more. Again: {COMMANDS['chaos']}."
    )
    return Table(head, rows, note, 1, True, "Chaos")


def _memory(results: Results, trial: pd.Series) -> str:
    checks = results.checks
    found = checks[(checks["trial"] == trial["trial"]) & (checks["check"] == "memory_flat")]
    if found.empty:
        return "too short to judge"
    return "flat" if (found["verdict"] == "pass").all() else "grew"


def simulator(results: Results) -> Table:
    """Schedules simulated, and violations with the seed that shows them."""
    made = results.reliability.get("sim")
    head = ("", "")
    if made is None:
        return _absent(head, "sim", "Simulated schedules", 2)
    first = int(made["seed_base"])
    rows = [
        ("schedules", f"{made['schedules']:,}"),
        ("seeds", f"{first:,} to {first + int(made['schedules']) - 1:,}"),
        ("packets", f"{made['packets']:,}"),
        ("crashes", f"{made['crashes']:,}"),
        ("violations", f"{len(made['violations']):,}"),
        *((f"violation, seed {v['seed']}", str(v["what"])) for v in made["violations"][:20]),
        ("others at most", _per_million(len(made["violations"]), int(made["schedules"]))),
        ("seconds", f"{made['seconds']:,.1f}"),
        *((f"program {name}", _plain(n)) for name, n in made.get("programs", {}).items()),
        *((f"release {name}", _plain(n)) for name, n in made.get("release", {}).items()),
    ]
    command = f"make sim SEEDS={made['schedules']} SEED_BASE={first}"
    note = f"Others at most: with 95 %, by the number of schedules alone. Again: {command}."
    return Table(head, rows, note, 2, title="Simulated schedules")


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _per_million(failures: int, n: int) -> str:
    if n == 0:
        return MISSING
    return f"{stats.failure_bound(failures, n) * 1e6:,.1f} of a million"


def coverage(results: Results) -> Table:
    """How often the simulator came through the paths that are rarely taken."""
    made = results.reliability.get("sim")
    head = ("path", "times")
    title = "Rare paths that the simulator took"
    if made is None:
        return _absent(head, "sim", title)
    rows = [(name.replace("_", " "), f"{n:,}") for name, n in sorted(made["coverage"].items())]
    return Table(head, rows, "A path with 0 was not tested by these seeds.", 1, title=title)


def plants(results: Results) -> Table:
    """Bugs planted in the program, and what found each."""
    made = results.reliability.get("plants")
    head = ("", "planted bug", "comes from", "found by", "what it violated", "schedules")
    title = "Bugs planted in the program"
    if made is None:
        return _absent(head, "plants", title, 5)
    rows = [
        (p["id"], p["name"], p.get("from", ""),
         p["found_by"] if reliability.found(p) else "nothing",
         p.get("what") or MISSING, number(p.get("schedules")))
        for p in made["plants"]
    ]  # fmt: skip
    note = f"Schedules: until it was found. Again: {COMMANDS['plants']}."
    if made.get("left_out"):
        note = (
            f"Not looked for in this tier, as they take thousands of schedules: "
            f"{', '.join(made['left_out'])}. {note}"
        )
    return Table(head, rows, note, 5, True, title)


def models(results: Results) -> Table:
    """What the model checker went through."""
    made = results.reliability.get("model")
    head = ("model", "bound", "properties", "workers", "variables", "states", "depth", "seconds",
            "errors")  # fmt: skip
    title = "Models checked"
    if made is None:
        return _absent(head, "model", title, 3)
    rows = [
        (m["name"], str(m["bound"]), ", ".join(m["properties"]), str(m["workers"]),
         str(m["variables"]), f"{m['states']:,}", f"{m['depth']:,}", f"{m['seconds']:,.1f}",
         str(m["errors"]))
        for m in made["models"]
    ]  # fmt: skip
    note = f"Every state within the bound, each property in each. Again: {COMMANDS['model']}."
    return Table(head, rows, note, 3, True, title)


def model_plants(results: Results) -> Table:
    """Bugs planted in the models."""
    made = results.reliability.get("model")
    head = ("", "planted bug", "found", "states")
    title = "Bugs planted in the models"
    if made is None:
        return _absent(head, "model", title, 3)
    rows = [
        (p["id"], p["name"], "yes" if p["found"] else "no", f"{p['states']:,}")
        for p in made["plants"]
    ]
    return Table(head, rows, f"Again: {COMMANDS['model']}.", 3, title=title)


def fuzzers(results: Results) -> Table:
    """What each fuzzer was fed with, and what it found."""
    made = results.reliability.get("fuzz")
    head = ("decoder", "executions", "seconds", "inputs kept", "branches", "crashes")
    title = "Fuzzers"
    if made is None:
        return _absent(head, "fuzz", title)
    keys = ("executions", "seconds", "corpus", "coverage", "crashes")
    rows = [
        (target["name"], *(number(target[key], ",.1f" if key == "seconds" else ",.0f")
                           for key in keys))
        for target in made["targets"]
    ]  # fmt: skip
    sums = [sum(target[key] for target in made["targets"]) for key in ("executions", "crashes")]
    rows.append(("all", f"{sums[0]:,}", *[MISSING] * 3, f"{sums[1]:,}"))
    note = (
        "With address and undefined-behaviour sanitizers; a fault planted on purpose is found in "
        f"every run. Branches: those reached. Again: {COMMANDS['fuzz']}."
    )
    return Table(head, rows, note, 1, title=title)


TABLES = {
    "faults": faults,
    "chaos": chaos,
    "simulator": simulator,
    "coverage": coverage,
    "plants": plants,
    "models": models,
    "model_plants": model_plants,
    "fuzzers": fuzzers,
}
