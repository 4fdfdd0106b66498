"""What each fault was to lead to, and whether it did, from the merged events. Pure functions.

Faults that hit while an earlier one is not recovered from are one *incident* with it: what is
guaranteed then is guaranteed of them together. docs/FAULTS.md has the same rules as a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ftmb.events import Event
from ftmb.fault_spec import BACKUP_SILENCE
from ftmb.faults import Fault
from ftmb.recovery import Recovery, outage_ms
from ftmb.spec import TrialSpec

FENCED = 6  # exit code of a process whose view has ended
FOREVER = 1 << 63
NS_PER_MS = 1e6
# Silence that lasts a little longer than the limit need not be noticed: the detector subtracts its
# own stalls.
SURELY = 1.5


@dataclass(frozen=True)
class Outcome:
    """Of one incident. missing: what was to happen and did not, or the other way round."""

    missing: tuple[str, ...]
    recovered_ms: float | None  # to the first new output, or to the logger's return
    protected_again_ms: float | None
    outage_ms: float | None


def incidents(faults: Sequence[Fault]) -> list[list[Fault]]:
    """Injected faults in groups: one that came while all was well begins a new one."""
    groups: list[list[Fault]] = []
    for fault in faults:
        if not fault.happened:
            continue
        if fault.calm or not groups:
            groups.append([])
        groups[-1].append(fault)
    return groups


def outcomes(
    spec: TrialSpec,
    faults: Sequence[Fault],
    events: Sequence[Event],
    gaps: Sequence[Sequence[int]] | None,
) -> list[Outcome]:
    """One for each fault that happened, in their order; those of an incident share it."""
    groups = incidents(faults)
    starts = [group[0].t0_ns or 0 for group in groups]
    result = []
    for group, (begin, until) in zip(groups, itertools.pairwise([*starts, FOREVER]), strict=True):
        window = [event for event in events if begin <= event.t_ns < until]
        result += [_Incident(spec, group, window).judge(gaps, until)] * len(group)
    return result


def failover_times(spec: TrialSpec, faults: Sequence[Fault], events: Sequence[Event]) -> list[int]:
    """When masters were hit, CLOCK_MONOTONIC ns: faults that a failover must, or did, follow."""
    times = []
    for group in incidents(faults):
        incident = _Incident(spec, group, [])
        for fault in group:
            t0_ns, hit = fault.t0_ns or 0, incident.hits_master(fault)
            limit_ns = t0_ns + round(SURELY * (fault.spec.for_s or 0) * 1e9)
            seen = any(e.name == "fenced" and t0_ns <= e.t_ns < limit_ns for e in events)
            if hit or (hit is None and seen):
                times.append(t0_ns)
    return times


def strays(
    spec: TrialSpec, faults: Sequence[Fault], recovery: Sequence[Recovery]
) -> list[Recovery]:
    """Failovers that no fault explains, and that no incident is blamed for: the machine's doing."""
    groups = incidents(faults)
    blamed = []
    for group, following in itertools.zip_longest(groups, groups[1:]):
        if not _Incident(spec, group, []).fails_over():
            until = following[0].t0_ns if following else FOREVER
            blamed.append((group[0].t0_ns or 0, until or FOREVER))
    found = []
    for entry in recovery:
        at = entry.marks_ns.get("fenced", 0)
        if entry.t0_ns is None and not any(begin <= at < until for begin, until in blamed):
            found.append(entry)
    return found


def lasts_longer(fault: Fault, limit_ms: float) -> bool | None:
    """Whether a stop or a cut outlasts a limit; None: it may go either way."""
    if fault.spec.for_s is None:
        return True
    for_ms = fault.spec.for_s * 1000
    if for_ms > SURELY * limit_ms:
        return True
    return False if for_ms < limit_ms / SURELY else None


@dataclass
class _Incident:
    spec: TrialSpec
    faults: list[Fault]
    events: list[Event]

    def _first(self, name: str, after: int, **fields: object) -> Event | None:
        for event in self.events:
            same = all(event.fields.get(key, value) == value for key, value in fields.items())
            if event.name == name and event.t_ns >= after and same:
                return event
        return None

    @property
    def _begin(self) -> int:
        return self.faults[0].t0_ns or 0

    def hits_master(self, fault: Fault) -> bool | None:
        """Whether it must end the view; None: it may."""
        if fault.role == "ctl-master" or (fault.role == "master" and fault.spec.do == "stop"):
            return lasts_longer(fault, self.spec.ft.detect_ms)
        if fault.spec.do == "switchover":
            # What hits beside it may come first; then it is given up.
            return True if len(self.faults) == 1 else None
        return fault.role == "master"

    def _loses_backup(self, fault: Fault) -> bool | None:
        if fault.role == "ctl-backup" or (fault.role == "backup" and fault.spec.do == "stop"):
            return lasts_longer(fault, BACKUP_SILENCE * self.spec.ft.detect_ms)
        return fault.role == "backup"

    def judge(self, gaps: Sequence[Sequence[int]] | None, until: int) -> Outcome:
        """The verdict, and how long what took."""
        missing: list[str] = []
        ends: list[Event | None] = []
        for fault in self.faults:
            missing += self._wanted(fault, ends)
        missing += self._unwanted()
        protected = self._protection(missing)
        recovered = [event.t_ns for event in ends if event]
        return Outcome(
            missing=tuple(missing),
            recovered_ms=self._since(max(recovered, default=None)),
            protected_again_ms=self._since(protected),
            outage_ms=None if gaps is None else outage_ms(gaps, self._begin, until),
        )

    def _since(self, t_ns: int | None) -> float | None:
        return None if t_ns is None else (t_ns - self._begin) / NS_PER_MS

    def _wanted(self, fault: Fault, ends: list[Event | None]) -> list[str]:
        """What this fault was to lead to and did not."""
        missing = []
        t0_ns = fault.t0_ns or 0
        failover = self.hits_master(fault)
        if failover:
            ends.append(self._first("resumed", t0_ns))
            if ends[-1] is None:
                missing.append("no failover reached its first new output (`resumed`)")
        if fault.spec.do == "cut":
            missing += self._mended(fault)
        lost = failover or self._loses_backup(fault)
        if lost and fault.spec.do != "kill":
            missing += self._fenced_out(fault)
        alone = self._loses_backup(fault) and not self.fails_over()
        if alone and self._first("backup_lost", t0_ns, slot=fault.slot) is None:
            missing.append("the lost backup was not noticed (`backup_lost`)")
        if fault.role in ("il", "ol") and fault.spec.do == "kill":
            ends.append(self._first("recovered", t0_ns, what=fault.role))
            if ends[-1] is None:
                missing.append(f"the restarted {fault.role} found no file (`recovered`)")
        return missing

    def fails_over(self) -> bool:
        """Whether the view of this incident may end."""
        return any(self.hits_master(fault) is not False for fault in self.faults)

    def _mended(self, fault: Fault) -> list[str]:
        t0_ns = fault.t0_ns or 0
        cut = self._first("link_cut", t0_ns, link=fault.link)
        mended = self._first("link_restored", t0_ns, link=fault.link)
        missing = [] if cut else [f"{fault.link} was not cut (`link_cut`)"]
        if mended is None and not fault.role.startswith("ctl-"):
            missing.append(f"{fault.link} was not restored (`link_restored`)")
        state = mended if fault.role == "state-backup" else None
        if state is not None and self._first("commit", state.t_ns) is None:
            missing.append("nothing was committed after the state channel was restored")
        return missing

    def _fenced_out(self, fault: Fault) -> list[str]:
        """One that was silent for too long must end when it wakes, and say so."""
        own = [event for event in self.events if event.process == fault.process]
        left = any(e.name == "exit" and e.integer("code", -1) == FENCED for e in own)
        told = any(event.name == "fenced_out" for event in own)
        missing = [] if left else [f"{fault.process} did not end as fenced (exit {FENCED})"]
        return missing + ([] if told else [f"{fault.process} did not say `fenced_out`"])

    def _unwanted(self) -> list[str]:
        """No view ends but by the loss of a master."""
        fenced = self._first("fenced", self._begin)
        if fenced is None or self.fails_over() or "false_suspicion" in self.spec.expect:
            return []
        return ["the view ended although the master was not hit (`fenced`)"]

    def _protection(self, missing: list[str]) -> int | None:
        """When everything was protected again; complaints if it never was."""
        ends: list[int] = []
        for fault in self.faults:
            t0_ns = fault.t0_ns or 0
            if fault.role in ("il", "ol") and fault.spec.do == "kill":
                again = self._first("protected_again", t0_ns, what=fault.role)
                what = f"unprotected: {fault.role} has no end (`protected_again`)"
            elif not fault.spec.protect_again:
                continue
            elif self.hits_master(fault) or self._loses_backup(fault):
                fenced = self._first("fenced", t0_ns)
                again = self._first("protected", fenced.t_ns if fenced else t0_ns)
                what = "no fresh backup made it protected again (`protected`)"
            else:
                continue
            if again is None:
                missing.append(what)
            else:
                ends.append(again.t_ns)
        return max(ends, default=None)
