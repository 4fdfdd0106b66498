"""Tables of the report on network functions: what each costs, the sweep, how each recovers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ftmb.analysis import costs, stats
from ftmb.analysis.metrics import harmful
from ftmb.analysis.records import Results
from ftmb.report_layout import MISSING, Table, number, summed

COMMAND = "make bench"


def _interval(estimate: stats.Estimate | None, form: str) -> str:
    if estimate is None:
        return MISSING
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def function_costs(results: Results) -> Table:
    """Each function in the bench: PALs, times, instructions."""
    table = costs.rows(results)
    rows: list[Sequence[str]] = []
    for _, row in table[table["reads"].isna()].iterrows():
        counted = [number(row[f"{mode}_instructions"]) for mode in ("none", "ftmb")]
        rows.append(
            (
                str(row["name"]),
                number(row["pals"], ".2f"),
                number(row["pals"], ".1f", costs.PAL_BYTES),
                number(row["none_ns"], ".1f"),
                number(row["ftmb_ns"], ".1f"),
                number(row["ftmb_ns"] - row["none_ns"], ".1f"),
                number(row["spread"], ".0f", 100),
                *counted,
            )
        )
    head = ("function", "accesses a packet", "PAL bytes a packet", "ns, none", "ns, ftmb", "added",
            "spread (%)", "instructions, none", "ftmb")  # fmt: skip
    made = costs.bench(results) or {}
    note = (
        "A packet of 60 bytes of one of 10,000 known flows from inside, from memory: the packet's "
        "making is in both modes. Medians; spread: range of the repetitions of ftmb over their "
        f"median. Instructions: {made.get('instructions', 'not made')}. Again: {COMMAND}, which "
        "writes results/bench/functions.json."
    )
    return Table(head, rows, note, 1, True, "In one process")


def function_sweep(results: Results) -> Table:
    """Lines through the sweep of `monitor`, in one process and through the pipeline."""
    rows = [
        (fit.words, _interval(fit.packet, ".1f"), _interval(fit.pal, ".1f"), str(fit.packet.n))
        for fit in costs.fits(results)
    ]
    note = (
        "What ftmb adds to none: a straight line through 0 to 10 accesses a packet of monitor, 95 "
        f"% intervals from resampling repetitions. Again: {COMMAND}."
    )
    head = ("monitor", "ns a packet", "ns a PAL", "repetitions")
    return Table(head, rows, note, 1, title="Cost of logging in one process")


def function_pipeline(results: Results) -> Table:
    """Throughput of the whole pipeline by accesses, sharing and reads."""
    table = costs.pipeline(results)
    rows: list[Sequence[str]] = []
    for (accesses, sharing, reads), part in table.groupby(["accesses", "sharing", "reads"]):
        share = stats.paired_ratio(list(part["ftmb_pps"]), list(part["none_pps"]))
        added = (1e9 / part["ftmb_pps"] - 1e9 / part["none_pps"]).median()
        medians = [number(part[key].median(), ".2f", 1e-6) for key in ("none_pps", "ftmb_pps")]
        rows.append((str(accesses), str(sharing), str(reads), *medians, _interval(share, ".3f"),
                     number(added, ".0f"), str(len(part))))  # fmt: skip
    head = ("accesses a packet", "workers that share", "reads (%)", "Mpps, none", "Mpps, ftmb",
            "ratio", "ns added a packet", "pairs")  # fmt: skip
    note = (
        "Generator, loggers and two workers, at the maximum; pairs follow one another. "
        'Again: make trials TIER=full OF="sweep".'
    )
    return Table(head, rows, note, 3, True, "Through the pipeline")


def function_crashes(results: Results) -> Table:
    """Crashes of each function, what came of them, and how long they took."""
    frame = results.frame[results.frame["experiment"] == "functions"]
    recoveries = results.recoveries
    rows: list[Sequence[str]] = []
    for function, part in frame.groupby("function") if not frame.empty else []:
        total = pd.to_numeric(recoveries[recoveries["trial"].isin(part["trial"])]["total_ms"])
        bad = int(part.apply(harmful, axis=1).sum())
        keys = ("failovers", "delivered", "lost", "duplicated", "corrupted", "checks_failed")
        counts = [summed(part[key]) for key in keys]
        times = (number(total.median(), ".1f"), number(total.max(), ".1f"))
        rows.append((str(function), *counts, f"{len(part) - bad} of {len(part)}", *times))
    head = ("function", "crashes", "delivered", "lost", "duplicated", "corrupted", "checks failed",
            "trials unharmed", "to new output (ms)", "longest")  # fmt: skip
    note = 'Masters killed one after the other. Again: make trials TIER=full OF="functions".'
    return Table(head, rows, note, 1, True, "Crashes of each function")


TABLES = {
    "function_costs": function_costs,
    "function_sweep": function_sweep,
    "function_pipeline": function_pipeline,
    "function_crashes": function_crashes,
}
