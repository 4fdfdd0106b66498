"""Tables of the endpoints' view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftmb.analysis import endpoints
from ftmb.analysis.records import Results
from ftmb.report_layout import MISSING, Table, number

COMMAND = "make trials OF=endpoints, as root"


def _table(
    results: Results, title: str, head: tuple[str, ...], row: Callable[[dict[str, Any]], list[str]],
    note: str,
) -> Table:  # fmt: skip
    head = ("run", "arm", "kills", *head)
    rows = [
        [run, endpoints.WORDS[made["spec"]["arm"]], str(len(made["crashes"])), *row(made)]
        for run, made in endpoints.read(results).items()
    ]
    if not rows:
        rows = [[f"not made: {COMMAND}", *[MISSING] * (len(head) - 1)]]
    return Table(head, rows, f"{note} Again: {COMMAND}.", 2, True, title)


def survival(results: Results) -> Table:
    """What lived and what went wrong."""

    def row(made: dict[str, Any]) -> list[str]:
        told = endpoints.connections(made)
        asked = made["asked"]
        wrong = [f"{a['failed']} of {a['count']:,}" if (a := asked.get(kind)) else MISSING
                 for kind in ("pages", "download", "dns", "ssh")]  # fmt: skip
        gap = endpoints.gaps(made)
        longest = max((t["longest_gap_ms"] or 0 for t in told), default=None)
        return [
            f"{endpoints.lost(made)} of {sum(t['at_work'] for t in told):,}",
            *wrong,
            f"{gap.value:,.0f} [{gap.low:,.0f}, {gap.high:,.0f}]" if gap else MISSING,
            number(longest),
        ]

    head = ("connections lost", "pages failed", "downloads failed", "DNS failed", "SSH lines lost",
            "gap, median (ms)", "gap, longest (ms)")  # fmt: skip
    note = (
        "Connections: those at work at the instant of a kill. A gap is the longest time in which a "
        "connection that lives did not come forward, in the window after a kill; they are looked "
        "at every 20 ms. Without a crash the instants are the same, and nobody is killed."
    )
    return _table(results, "What survives", head, row, note)


def congestion(results: Results) -> Table:
    """What TCP did, per kill, in the windows after kills."""
    keys = ("timeouts", "spurious_timeouts", "fast_recoveries", "fast_retransmits", "probes",
            "duplicates_told", "undone", "retransmitted")  # fmt: skip

    def row(made: dict[str, Any]) -> list[str]:
        crashes = made["crashes"]
        counted = [[c["counters"][key] for c in crashes] for key in keys]
        sums = [None if None in counts else sum(counts) for counts in counted]
        return [
            number(endpoints.collapsed(made)),
            number(endpoints.summed(made, "reduced")),
            number(endpoints.summed(made, "threshold_cut")),
            *(number(n) for n in sums),
        ]

    head = ("windows collapsed", "windows below 0.8", "thresholds cut", "timeouts", "spurious",
            "recoveries", "fast retransmits", "loss probes", "duplicates told", "undone",
            "sent again")  # fmt: skip
    note = (
        "Sums over the windows after kills. Collapsed: seen to be, by a timeout. Timeouts "
        "and what follows are the counters of both ends' kernels; a spurious timeout or "
        "retransmission (duplicates told, undone) was of a packet that had only been late."
    )
    return _table(results, "Congestion control", head, row, note)


TABLES: dict[str, Callable[[Results], Table]] = {
    "endpoints_survival": survival,
    "endpoints_congestion": congestion,
}
