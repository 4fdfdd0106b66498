"""Events: what processes say on their stdout, one JSON object a line, and what `ftmb` adds."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Names of what must never happen; each makes the check `loud_failures` fail.
LOUD_FAILURES = (
    "state_lost",
    "divergence",
    "digest_mismatch",
    "hash_mismatch",
    "released_past_cut",
)

# How a line of several events begins (event_routine() in native/io/event.h).
ROUTINE = '{"routine":['


@dataclass(frozen=True)
class Event:
    """One event. `t_ns` is CLOCK_MONOTONIC, the same clock in every process of a machine."""

    t_ns: int
    process: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """The event as it stands in events.jsonl."""
        head = {"t_ns": self.t_ns, "process": self.process, "event": self.name}
        return json.dumps(head | self.fields, separators=(",", ":"))

    def integer(self, key: str, default: int = 0) -> int:
        """A field as an integer; `default` where it is absent."""
        value = self.fields.get(key, default)
        return int(value) if isinstance(value, int | float) else default


def own(name: str, process: str = "ftmb", **fields: Any) -> Event:
    """An event of this program itself, stamped now."""
    return Event(time.monotonic_ns(), process, name, fields)


def parse_line(process: str, line: str) -> Event | None:
    """An event from a line of a process's stdout; None if the line is something else.

    A line of several routine ones becomes one event, `routine`, that `unfolded` takes apart: in the
    measured time that would cost packets that are measured a millisecond."""
    if line.startswith(ROUTINE):
        return own("routine", process, line=line)
    try:
        tree = json.loads(line)
    except json.JSONDecodeError:
        return None
    return _of_tree(process, tree)


def unfolded(event: Event) -> list[Event]:
    """The events that it stands for: those of a `routine`, else itself."""
    if event.name != "routine":
        return [event]
    try:
        trees = json.loads(event.fields["line"])["routine"]
    except json.JSONDecodeError:  # the process was killed while it wrote
        return []
    found = (_of_tree(event.process, tree) for tree in trees)
    return [each for each in found if each is not None]


def _of_tree(process: str, tree: Any) -> Event | None:
    if not isinstance(tree, dict):
        return None
    t_ns, name = tree.pop("t_ns", None), tree.pop("event", None)
    if not isinstance(t_ns, int) or not isinstance(name, str):
        return None
    # The pipe says who it was, not the line: a restarted slot may use its old name.
    tree.pop("process", None)
    return Event(t_ns, process, name, tree)


def write(path: Path, events: list[Event]) -> None:
    """All events in the order of their clock, as JSON lines."""
    with path.open("w", encoding="utf-8") as out:
        for event in sorted(events, key=lambda e: e.t_ns):
            out.write(event.as_json() + "\n")


def read(path: Path) -> list[Event]:
    """Events from a file that `write` made."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        tree = json.loads(line)
        head = (tree.pop("t_ns"), tree.pop("process"), tree.pop("event"))
        events.append(Event(*head, tree))
    return events
