"""The fault schedule: what is to happen when, and what came of it. No process is touched here."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ftmb.events import Event
from ftmb.fault_spec import FaultSpec
from ftmb.spec import TrialSpec

NS = 1_000_000_000
# Repeated faults end this long before the window does, or at two thirds of a short one: the last
# one has to be recovered from while traffic still flows.
RECOVER_S = 2.0


@dataclass
class Fault:
    """One fault, and, once it happened, when and to whom."""

    spec: FaultSpec
    index: int
    at_s: float
    role: str
    t0_ns: int | None = None
    end_ns: int | None = None  # when what was stopped or cut went on
    process: str | None = None
    pid: int | None = None
    slot: int | None = None
    link: str | None = None
    problem: str | None = None
    calm: bool = True  # all was well when it came

    @property
    def happened(self) -> bool:
        """True once it was injected."""
        return self.t0_ns is not None


class Source:
    """One entry of the spec's `faults`: when it is due next, and how often it still is."""

    def __init__(self, spec: FaultSpec, index: int, seed: int, window_s: float) -> None:
        self.spec, self.index = spec, index
        self.left = 1 if spec.repeat is None else spec.repeat.count
        # One generator per fault: adding a fault leaves the others where they were.
        self._random = random.Random(f"{seed}:{index}")
        at_s = spec.at_s
        self._first_s = (
            self._random.uniform(0.1, 0.9) * window_s if at_s == "random" else at_s
        )  # None: a drawn distance into the window, or after an event
        self._distance_ns = self._draw()
        self._last_ns: int | None = None
        self._heard_ns: int | None = None
        self._ready = False  # all was well since the last time
        self._bag: list[str] = []
        last_s = max(window_s - RECOVER_S, window_s * 2 / 3)
        self._latest_ns = round(last_s * NS)

    def _draw(self) -> int:
        if self.spec.repeat is None:
            return 0
        return round(self._random.uniform(*self.spec.repeat.every_s) * NS)

    def hear(self, event: Event, calm_ns: int | None) -> None:
        """An event of the window: the one it waits for, perhaps. Once until all is well again: it
        must not answer what it caused itself."""
        last_ns = self._last_ns or 0
        self._ready |= calm_ns is not None and calm_ns > last_ns
        if event.name != self.spec.after or self.left == 0 or self._heard_ns is not None:
            return
        if last_ns == 0 or (self._ready and event.t_ns >= last_ns + self._distance_ns):
            self._heard_ns = event.t_ns

    def due_ns(self, start_ns: int, calm_ns: int | None) -> int | None:
        """When it is due as things are; None: not now. calm_ns: since when all is protected."""
        if self.left == 0 or (self.spec.waits and calm_ns is None):
            return None
        if self.spec.after is not None:
            heard = self._heard_ns
            return None if heard is None else heard + round(self.spec.delay_ms * 1e6)
        since = max(start_ns, self._last_ns or 0)
        if self.spec.waits:
            since = max(since, calm_ns or 0)
        if self._last_ns is None and self._first_s is not None:
            return max(start_ns + round(self._first_s * NS), since if self.spec.waits else 0)
        due = since + self._distance_ns
        return due if due <= start_ns + self._latest_ns else None

    def take(self, start_ns: int, now_ns: int) -> Fault:
        """It is due now: the fault, its role drawn."""
        if self.left is not None:
            self.left -= 1
        planned = self._last_ns is None and self._first_s is not None
        at_s = self._first_s if planned else (now_ns - start_ns) / NS
        self._last_ns, self._heard_ns, self._distance_ns = now_ns, None, self._draw()
        self._ready = False
        return Fault(self.spec, self.index, at_s or 0.0, self._draw_role())

    def _draw_role(self) -> str:
        """Drawn without putting back, so that a short run has each role about as often."""
        if not self._bag:
            self._bag = [str(role) for role in self.spec.roles]
            self._random.shuffle(self._bag)
        return self._bag.pop()

    def missing(self) -> str | None:
        """In words, when it happened less often than the spec says; None if all is well."""
        if self.spec.repeat is None:
            if self.left == 0:
                return None
            after = self.spec.after
            when = f"after {after}" if after else f"at {self._first_s or 0:.3f} s"
            return f"the fault {when} did not happen: the run ended before"
        if self._last_ns is None:
            return f"the repeated fault {self.index} never happened"
        if self.left:
            return f"the repeated fault {self.index} happened {self.left} times too few"
        return None


@dataclass
class Schedule:
    """All faults of a trial. Silent until the window starts and once it is stopped."""

    sources: list[Source] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)  # those that came due, in their order
    window_start_ns: int | None = None
    stopped: bool = False

    @classmethod
    def of(cls, spec: TrialSpec) -> Schedule:
        """The schedule of a spec, random times drawn."""
        seed, window_s = spec.traffic.seed, spec.duration_s
        return cls([Source(f, i, seed, window_s) for i, f in enumerate(spec.faults)])

    def hear(self, event: Event, calm_ns: int | None = None) -> None:
        """Take note of an event; before the window it means nothing."""
        if self.window_start_ns is not None and not self.stopped:
            for source in self.sources:
                source.hear(event, calm_ns)

    def _next(self, calm_ns: int | None) -> tuple[int, Source] | None:
        if self.window_start_ns is None or self.stopped:
            return None
        due = [(s.due_ns(self.window_start_ns, calm_ns), s) for s in self.sources]
        known = [(when, source) for when, source in due if when is not None]
        return min(known, key=lambda pair: pair[0], default=None)

    def next_due_ns(self, calm_ns: int | None = None) -> int | None:
        """CLOCK_MONOTONIC ns of the next fault as things are; None if there is none."""
        following = self._next(calm_ns)
        return following[0] if following else None

    def due(self, now_ns: int, calm_ns: int | None = None) -> Fault | None:
        """The next fault if its time has come. calm_ns: since when all is protected, or None."""
        following = self._next(calm_ns)
        if following is None or now_ns < following[0]:
            return None
        assert self.window_start_ns is not None
        fault = following[1].take(self.window_start_ns, now_ns)
        fault.calm = calm_ns is not None
        self.faults.append(fault)
        return fault

    @property
    def listens(self) -> bool:
        """Whether a fault waits for some event."""
        return any(source.spec.after is not None for source in self.sources)

    @property
    def happened(self) -> list[Fault]:
        """Those that were injected."""
        return [fault for fault in self.faults if fault.happened]

    def missing(self) -> list[str]:
        """What the spec asked for and the run did not see, in words."""
        problems = [
            f"the fault at {fault.at_s:.3f} s did not happen: {fault.problem}"
            for fault in self.faults
            if fault.problem is not None and fault.spec.repeat is None
        ]
        return problems + [words for s in self.sources if (words := s.missing())]
