"""Looks at the TCP connections of its network again and again, until it is told to end.

`python -m ftmb.endpoints.sampler CONNECTIONS.csv COUNTERS.csv MILLISECONDS`, in the network's
namespace. Times are CLOCK_MONOTONIC, ns. It says `ready`, and ends in order at SIGTERM.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ftmb.endpoints import tcp
from ftmb.errors import Stopped
from ftmb.signals import stoppable

FILES = tuple(Path("/proc/self/net", name) for name in ("netstat", "snmp"))


def _counters() -> list[int | None]:
    return tcp.counters("".join(path.read_text(encoding="ascii") for path in FILES))


def _sample(samples: TextIO, counters: TextIO, look: Callable[[], list[tcp.Sample]]) -> None:
    now = time.monotonic_ns()
    found = look()
    counters.write(",".join("" if n is None else str(n) for n in (now, *_counters())) + "\n")
    samples.writelines(f"{now},{each.line}\n" for each in found)


def run(samples: Path, counters: Path, period_s: float) -> None:
    """Does not return; ends by Stopped."""
    look = tcp.Connections().look
    gc.disable()  # nothing here is cyclic, and a pause would be a gap
    with samples.open("w", buffering=1 << 16) as one, counters.open("w", buffering=1 << 14) as two:
        one.write(",".join(["t_ns", *tcp.COLUMNS]) + "\n")
        two.write(",".join(["t_ns", *tcp.COUNTERS]) + "\n")
        print("ready", flush=True)
        due = time.monotonic()
        while True:
            _sample(one, two, look)
            due = max(due + period_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    try:
        with stoppable():
            run(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) / 1e3)
    except Stopped as stop:
        sys.exit(0 if stop.signal_number == signal.SIGTERM else 1)
