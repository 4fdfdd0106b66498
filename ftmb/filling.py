"""The fill: before the warm-up the function is given all its flows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ftmb.events import Event

if TYPE_CHECKING:
    from ftmb.fleet import Fleet

# The generator tells its progress once a second. A machine on which it cannot for so long is of no
# use for the rest.
SILENCE_S = 30.0
# After so long without a packet that comes through the generator gives up. Long, since the logs are
# full while a backup receives all of a large state; half a minute was seen on a crowded machine.
GIVE_UP_S = 60


def begin(fleet: Fleet) -> None:
    """Before `start`: input waits while a log is full, for no flow of the fill may be refused."""
    _tell_il(fleet, "wait")


def wait(fleet: Fleet) -> str | None:
    """Wait until all flows are known, and backups have them; then the warm-up begins. Returns why
    they are not, in words."""
    spec = fleet.spec
    fleet.progress.stage(f"filling in {spec.traffic.flows} flows")
    while "filled" not in fleet.seen:
        if not _tells(fleet, len(_told(fleet))):
            return f"the fill told no progress for {SILENCE_S:g} s"
        last = _told(fleet)[-1]
        if spec.ft.snapshot.engine == "none":  # else the logs would only grow
            _ask_for_snapshot(fleet)
        fleet.progress.filling(last.integer("delivered"), spec.traffic.flows)
    if not last.fields.get("complete"):
        return (
            f"of {last.integer('sent')} flows sent in the fill (traffic.fill) "
            f"{last.integer('delivered')} came through, then nothing for "
            f"{GIVE_UP_S} s; has {spec.nf.name} room for them?"
        )
    if spec.ft.mode == "ftmb" and not _covered(fleet, last.t_ns):
        return f"no snapshot of what was filled in was committed within {spec.setup_timeout_s:g} s"
    _tell_il(fleet, "wait" if spec.traffic.rate_pps == "max" else "refuse")
    fleet.processes[fleet.plan.traffic_name].command("run")
    return None


def _ask_for_snapshot(fleet: Fleet) -> None:
    if fleet.spec.ft.mode == "ftmb":
        fleet.processes[fleet.roster.slots[fleet.roster.master_slot]].command("snapshot")


def _covered(fleet: Fleet, since_ns: int) -> bool:
    """Wait until a snapshot that was begun since then is committed: until then the rest of the fill
    is on its way to the backups, and would be measured with what follows."""
    _ask_for_snapshot(fleet)
    deadline = time.monotonic() + fleet.spec.setup_timeout_s
    return fleet.pump(lambda: _committed_since(fleet.events, since_ns), deadline)


def _committed_since(events: list[Event], since_ns: int) -> bool:
    epochs = [
        e.integer("epoch")
        for e in reversed(events)
        if e.name == "snapshot" and e.t_ns - e.integer("copy_ns") >= since_ns
    ]
    first = min(epochs, default=None)
    return first is not None and any(
        e.name == "commit" and e.t_ns >= since_ns and e.integer("epoch") >= first for e in events
    )


def _told(fleet: Fleet) -> list[Event]:
    return [event for event in fleet.events if event.name in ("filling", "filled")]


def _tells(fleet: Fleet, times: int) -> bool:
    """Wait until the fill told its progress more than so many times."""
    return fleet.pump(lambda: len(_told(fleet)) > times, time.monotonic() + SILENCE_S)


def _tell_il(fleet: Fleet, verb: str) -> None:
    if "il" in fleet.roster.loggers:
        fleet.processes[fleet.roster.loggers["il"]].command(verb)
