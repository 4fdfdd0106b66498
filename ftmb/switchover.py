"""One planned change of master of a site, from the question to the answers. No process is touched.

The output logger decides (native/roles/ol_handover.c); its events tell what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ftmb.door import Request
from ftmb.events import Event

# So long after the replay nothing has come out: nothing flows, and it is over all the same.
QUIET_NS = 500_000_000


@dataclass
class Switchover:
    """Under way, or over once `done`."""

    request: Request
    old: str  # process
    asked_ns: int
    ended_ns: int = 0  # when the old master's view ended
    failure: str = ""
    paused_ns: int = 0
    done: bool = False
    replay: Event | None = None  # the end of the latest since it was asked for

    def take(self, event: Event) -> None:
        """Learn from an event of a process. Those of two processes come in either order."""
        match event.name:
            case "handover_refused" | "handover_given_up":
                self.fail(str(event.fields.get("why", "no reason told")))
            case "recovered" if event.fields.get("what") == "ol" and not self.ended_ns:
                self.fail("the output logger died, the master is the same; ask again")
            case "suspect" if event.fields.get("kind") == "handover":
                self.ended_ns = event.t_ns
            case "replay_done" if event.t_ns >= self.asked_ns:
                self.replay = event
            case "resumed" if self.ended_ns and not self.paused_ns:
                self.paused_ns = event.t_ns - self.ended_ns
        if self.paused_ns and self.replayed_ns:
            self._over()

    @property
    def replayed_ns(self) -> int:
        """When the new master had replayed; 0: not yet. A replay before the end was another's."""
        done = self.replay
        return done.t_ns if done and self.ended_ns and done.t_ns >= self.ended_ns else 0

    def look(self, now_ns: int) -> None:
        """Where nothing flows no output tells of the end."""
        if self.replayed_ns and now_ns - self.replayed_ns > QUIET_NS:
            self._over()

    def fail(self, why: str) -> None:
        """It did not come to it: everything is as it would be without."""
        if not self.done:
            self.done, self.failure = True, why
            self.request.answer(failed=why)
            self.request.end()

    def _over(self) -> None:
        if self.done:
            return
        self.done = True
        replayed = self.replay if self.replayed_ns else None
        self.request.answer(
            switched=True,
            old=self.old,
            prepared_ms=round((self.ended_ns - self.asked_ns) / 1e6, 3),
            paused_ms=round(self.paused_ns / 1e6, 3) if self.paused_ns else None,
            replay_ms=round((replayed.t_ns - self.ended_ns) / 1e6, 3) if replayed else None,
            packets_replayed=replayed.integer("packets") if replayed else 0,
        )

    def protected(self, t_ns: int) -> None:
        """A fresh backup holds the new master's state: the last answer."""
        self._over()
        self.request.answer(protected=True, after_ms=round((t_ns - self.asked_ns) / 1e6, 1))
        self.request.end()


def in_words(name: str, answer: dict[str, object]) -> str:
    """One answer for a person."""
    if "switched" in answer:
        paused = answer["paused_ms"]
        how = f"outputs paused for {paused} ms" if paused is not None else "nothing was flowing"
        return (
            f"{name}: {answer['old']} is replaced; {how} "
            f"({answer['packets_replayed']} packets replayed, prepared in "
            f"{answer['prepared_ms']} ms)"
        )
    after_s = float(str(answer["after_ms"])) / 1000
    return f"{name}: protected again, {after_s:.1f} s after it was asked"


def fresh(request: Request, old: str) -> Switchover:
    """Begun now."""
    return Switchover(request, old, time.monotonic_ns())
