"""What a site knows of its processes for its metrics: asked once a second, answered when they can.

The question is a line on a process's standard input, and its main thread answers, which does
nothing else; whoever has not answered (it is stopped, say) is not asked again before it does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from ftmb import __version__, metrics
from ftmb.events import Event
from ftmb.process import NodeProcess
from ftmb.spec import TrialSpec

EVERY_NS = 1_000_000_000


class Watch:
    """Fed with events by the main thread; `text` may be read by any."""

    def __init__(self, site: str, spec: TrialSpec) -> None:
        assert spec.interfaces is not None
        self.counts = metrics.Counts()
        self.text = ""
        self._site, self._since = site, time.time()
        self._period_s = spec.ft.snapshot.period_ms / 1000
        self._info = {
            "function": spec.nf.name,
            "inside": spec.interfaces.inside,
            "outside": spec.interfaces.outside,
            "version": __version__,
        }
        self._told: dict[str, metrics.Told] = {"il": {}, "ol": {}}
        self._master: tuple[str, metrics.Told] = ("", {})
        self._told_at: dict[str, float] = {}  # by logger's role, or replica's process
        self._asked_ns = 0
        self._unanswered: set[str] = set()
        self._replay_ns = 0

    def ask(self, processes: Iterable[NodeProcess], now_ns: int) -> None:
        """Once a second, of those that can hear it."""
        if now_ns - self._asked_ns < EVERY_NS:
            return
        self._asked_ns = now_ns
        for process in processes:
            if process.working and process.name not in self._unanswered:
                self._unanswered.add(process.name)
                process.command("telemetry")

    def take(self, event: Event) -> None:
        """An answer, or something that is counted."""
        match event.name:
            case "telemetry":
                self._unanswered.discard(event.process)
                role = str(event.fields.get("role"))
                self._told_at[role if role in self._told else event.process] = time.time()
                if role in self._told:
                    self._told[role] = event.fields
                elif event.fields.get("active"):
                    self._master = (event.process, event.fields)
            case "spawn":
                self.counts.started[event.process] = time.time()
                place, dash, _ = event.process.rpartition("-")
                if dash:  # r0-2 is the second in the place r0
                    self.counts.restarts[place] += 1
                else:
                    self.counts.restarts[event.process] = 0
            case "exit":
                self.counts.started.pop(event.process, None)
                self._unanswered.discard(event.process)
                self._told_at.pop(event.process, None)
            case "replay_start" if event.integer("view") > 1:  # the first master has none
                self._replay_ns = event.t_ns
            case "replay_done" if self._replay_ns:
                self.counts.replays.add((event.t_ns - self._replay_ns) / 1e9)
                self._replay_ns = 0

    def publish(self, master: str, protected: bool, view: int) -> None:
        """Make the text anew. What the last master told is not told for the next."""
        told: Mapping[str, object] = self._master[1] if self._master[0] == master else {}
        when = [self._told_at[who] for who in ("il", "ol", master) if who in self._told_at]
        known = metrics.Known(
            site=self._site,
            info=self._info,
            since=self._since,
            protected=protected,
            view=view,
            period_s=self._period_s,
            counts=self.counts,
            il=self._told["il"],
            ol=self._told["ol"],
            master=told,
            told_at=min(when, default=0.0),
            ol_told_at=self._told_at.get("ol", 0.0),
        )
        self.text = metrics.text(known)
