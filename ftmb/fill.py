"""The fill of a trial: the first packet of each flow, before the warm-up, until all are known."""

from __future__ import annotations

import time
from collections.abc import Callable

from ftmb.events import Event
from ftmb.progress import TrialProgress
from ftmb.spec import TrialSpec

# A fill tells its progress once a second. A machine on which the generator cannot for so long is
# of no use for the rest.
SILENCE_S = 30.0
# What the input logger does while a log is full: a flow of the fill must not be refused.
WAIT = "wait"
Pump = Callable[[Callable[[], bool], float], bool]


class Fill:
    """Takes the fill's events; waits for its end."""

    def __init__(self, spec: TrialSpec, progress: TrialProgress) -> None:
        self._spec, self._progress = spec, progress
        self._told = 0  # how often it told its progress
        self._last: Event | None = None

    def take(self, event: Event) -> None:
        """One of `filling`, `filled`."""
        self._told += 1
        self._progress.filling(event.integer("delivered"), event.integer("flows"))
        if event.name == "filled":
            self._last = event

    def run(self, pump: Pump, start: Callable[[], None], tell: Callable[[str], None]) -> str | None:
        """Start the traffic; wait until all flows are known. Returns why they are not, in words.

        tell: what the input logger is to do while a log is full.
        """
        if not self._spec.traffic.fill:
            start()
            return None
        tell(WAIT)
        start()
        wrong = self._wait(pump)
        tell(WAIT if self._spec.traffic.rate_pps == "max" else "refuse")
        return wrong

    def _wait(self, pump: Pump) -> str | None:
        self._progress.stage(f"filling in {self._spec.traffic.flows} flows")
        while self._last is None:
            if not self._more(pump, self._told):
                return f"the fill told no progress for {SILENCE_S:g} s"
        if self._last.fields.get("complete"):
            return None
        return (
            f"of {self._last.integer('sent')} flows sent in the fill (traffic.fill) "
            f"{self._last.integer('delivered')} came through, then nothing for "
            f"{5 * self._spec.drain_s:g} s (5 x drain_s); has {self._spec.nf.name} room for them?"
        )

    def _more(self, pump: Pump, told: int) -> bool:
        """Wait until it told its progress more than `told` times."""
        return pump(lambda: self._told > told, time.monotonic() + SILENCE_S)
