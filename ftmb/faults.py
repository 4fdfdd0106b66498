"""The fault schedule: what is killed when, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ftmb.spec import FaultSpec, TrialSpec


@dataclass
class Fault:
    """One fault of the spec, and, once it happened, when and to whom."""

    spec: FaultSpec
    at_s: float
    t0_ns: int | None = None
    process: str | None = None
    pid: int | None = None
    slot: int | None = None
    problem: str | None = None

    @property
    def happened(self) -> bool:
        """True once it was injected."""
        return self.t0_ns is not None


@dataclass
class Schedule:
    """All faults in the order of their times. Silent until the window starts."""

    faults: list[Fault] = field(default_factory=list)
    window_start_ns: int | None = None

    @classmethod
    def of(cls, spec: TrialSpec) -> Schedule:
        """The schedule of a spec, random times drawn."""
        pairs = zip(spec.faults, spec.fault_times_s(), strict=True)
        return cls(sorted((Fault(s, t) for s, t in pairs), key=lambda f: f.at_s))

    def _next(self) -> Fault | None:
        return next((f for f in self.faults if not f.happened and f.problem is None), None)

    def next_due_ns(self) -> int | None:
        """CLOCK_MONOTONIC ns of the next fault; None if none is left or the clock stands still."""
        fault = self._next()
        if fault is None or self.window_start_ns is None:
            return None
        return self.window_start_ns + round(fault.at_s * 1e9)

    def due(self, now_ns: int) -> Fault | None:
        """The next fault if its time has come."""
        when = self.next_due_ns()
        return self._next() if when is not None and now_ns >= when else None
