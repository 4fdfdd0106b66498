"""The process of a generator: `python -m ftmb.generators.child SPEC.json`.

It says what ftmb-node says of the role `traffic`: `ready`, `window_start`, `window_end`, `drained`,
`stats`; and hears `start`, `finish`, `exit`. It ends when its stdin does. What keeps it from
starting is one line on stderr and exit code 3.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from ftmb.errors import FtmbError
from ftmb.generators.told import Told

CANNOT_START, FAILED = 3, 5
BEATS_S = 0.25  # between two looks at what was commanded, at most


class Generator(Protocol):
    """What makes traffic and counts what comes of it. Called from one thread."""

    def open(self) -> None:
        """Get hold of everything. Afterwards traffic can start at once. Raises FtmbError."""

    def start(self, t0_ns: int, window_ns: tuple[int, int]) -> None:
        """Send from t0 to the window's end. All are CLOCK_MONOTONIC ns. Raises FtmbError."""

    def step(self, until_ns: int) -> None:
        """Send and receive what there is; return at `until_ns` or before. Raises FtmbError."""

    def complete(self) -> bool:
        """Whether all that was sent has arrived."""

    def last_ns(self) -> int:
        """When something arrived last, CLOCK_MONOTONIC ns; 0: nothing yet."""

    def told(self) -> Told:
        """What is known so far, and the files of the spec written."""

    def close(self) -> None:
        """Give back what was opened. Never raises; may be called at any time."""


def make(tree: dict[str, Any]) -> Generator:
    """The generator that a spec (`ftmb.generators.ground.child_spec`) names."""
    if tree["generator"] == "trex":
        from ftmb.generators.trex import Trex

        return Trex(tree)
    from ftmb.generators.scapy_traffic import ScapyTraffic

    return ScapyTraffic(tree)


class Child:
    """The run of one generator, from `ready` to `exit`."""

    def __init__(self, tree: dict[str, Any], generator: Generator, out: int) -> None:
        """out: the descriptor that events are written to."""
        self._traffic, self._generator, self._out = tree["traffic"], generator, out
        self._words: queue.Queue[str] = queue.Queue()
        self.ready = False

    def say(self, event: str, **fields: Any) -> None:
        """One event."""
        head = {"t_ns": time.monotonic_ns(), "event": event}
        os.write(self._out, json.dumps(head | fields).encode() + b"\n")

    def _hear(self) -> None:
        for line in sys.stdin:
            self._words.put(line.strip())
        os._exit(0)  # whoever started this is gone; sockets and sessions end with the process

    def _wait(self, word: str) -> None:
        """Until it is commanded; meanwhile the generator receives."""
        while True:
            try:
                heard = self._words.get_nowait()
            except queue.Empty:
                self._generator.step(time.monotonic_ns() + round(BEATS_S * 1e9))
                continue
            if heard == word:
                return

    def run(self) -> None:
        """All of it. Raises FtmbError."""
        threading.Thread(target=self._hear, daemon=True).start()
        self._generator.open()
        self.ready = True
        self.say("ready")
        self._wait("start")
        self._drive()
        self._wait("finish")
        self.say("stats", **self._generator.told().fields())
        self._wait("exit")

    def _drive(self) -> None:
        ms = 1_000_000
        t0_ns = time.monotonic_ns()
        begin = t0_ns + self._traffic["warmup_ms"] * ms
        end = begin + self._traffic["duration_ms"] * ms
        self._generator.start(t0_ns, (begin, end))
        self._until(begin)
        self.say("window_start", at_ns=begin)
        self._until(end)
        self.say("window_end", at_ns=end)
        drain_ns = self._traffic["drain_ms"] * ms
        while not self._generator.complete():
            quiet_ns = max(end, self._generator.last_ns()) + drain_ns
            if time.monotonic_ns() >= quiet_ns:
                break
            self._generator.step(quiet_ns)
        self.say("drained", complete=self._generator.complete())

    def _until(self, at_ns: int) -> None:
        while time.monotonic_ns() < at_ns:
            self._generator.step(at_ns)


def main(path: Path) -> int:
    """Run the generator of a spec's file; returns the exit code."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    # Events go where stdout went. Whatever a library prints goes to stderr, and spoils no line.
    out = os.dup(1)
    os.dup2(2, 1)
    generator = make(tree)
    child = Child(tree, generator, out)
    try:
        child.run()
    except FtmbError as error:
        print(f"ftmb: {error}", file=sys.stderr, flush=True)
        return FAILED if child.ready else CANNOT_START
    finally:
        generator.close()
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # threads of a client library would keep it alive
