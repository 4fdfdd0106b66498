"""The processes of a middlebox at work, by the events that they would send."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from ftmb import events, fleet, lock, node, site, spec, trial
from ftmb.describe import Description
from ftmb.door import Request
from ftmb.errors import MachineError
from ftmb.events import Event
from ftmb.lock import RuntimeDir
from ftmb.process import NodeProcess, State
from ftmb.site_fleet import Site

LATER_NS = 1 << 62  # after whatever was stamped here


class Still(NodeProcess):
    """One that was not started. `pid`: this process's own, for it must be one."""

    def __init__(
        self, program: Path, spec: Path, name: str, out: Path, inbox: Queue[Event],
        prefix: Sequence[str] = (), cut_off: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.name, self.pid, self.state = name, os.getpid(), State.STARTING
        self.stderr_path, self._stdout_path = out / f"{name}.stderr", out / f"{name}.stdout"
        self._spec_path = spec
        self.exit_code: int | None = None
        self.paused = self.outdated = False
        self.told: list[str] = []
        self.stderr_path.write_text("")
        self._stdout_path.write_text("not an event\n")

    def command(self, verb: str) -> None:
        self.told.append(verb)

    def close(self) -> None:
        pass


def prepared(**more: Any) -> trial.Prepared:
    tree = {"nf": {"name": "nat"}, "interfaces": {"inside": "a", "outside": "b"}} | more
    given = spec.parse(tree)
    nothing = Description.__new__(Description)  # the program is not asked
    return trial.Prepared(given, {"name": "nat"}, Path("ftmb-node"), nothing, node.make_plan(given))


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose processes run, and are protected."""
    monkeypatch.setattr(fleet, "NodeProcess", Still)
    runtime, made = RuntimeDir(), prepared()
    found = Site(site._status("edge", made.spec), made, tmp_path, runtime)
    try:
        found.start()
        found.status.starting = False
        found.schedule.window_start_ns = 1
        for name in list(found.processes):
            found._handle(events.own("ready", name))
        yield found
    finally:
        found.close()
        runtime.remove()


def ask(up: Site) -> Request:
    request = Request("switchover")
    up._handle(events.own("request", request=request))
    return request


def why_not(request: Request) -> str:
    request.end()  # whether or not it is answered
    return "; ".join(str(each.get("failed")) for each in request.answers())


def told(up: Site, name: str) -> list[str]:
    process = up.processes[name]
    assert isinstance(process, Still)
    return [verb for verb in process.told if verb != "telemetry"]


def test_a_switchover_ends_with_the_death_of_the_output_logger(up: Site) -> None:
    first = ask(up)
    assert told(up, "loggers") == ["switchover"]
    up._handle(events.own("exit", "loggers", code=-9))
    assert list(up.roster.loggers.values()) == ["loggers-2"] * 2
    up._handle(events.own("recovered", "loggers-2", what="ol", view=1))
    assert "the output logger died" in why_not(first)
    assert up._watch.counts.switchovers_failed == 1 and not up.processes["r0"].outdated
    assert "not ready" in why_not(ask(up))
    up._handle(events.own("ready", "loggers-2"))
    ask(up)
    assert told(up, "loggers-2") == ["switchover"]


def test_who_is_replaced_leaves_nothing_behind(up: Site, tmp_path: Path) -> None:
    def of(name: str) -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.stem == name}

    assert of("r1") == {"r1.json", "r1.stderr", "r1.stdout"}
    up._handle(Event(LATER_NS, "loggers", "heir_wanted", {"slots": [1]}))
    up._handle(events.own("exit", "r1", code=-9))
    assert up.roster.slots == ["r0", "r1-2"]
    assert "r1" not in up.processes and of("r1") == set() and of("r1-2") and of("r0")
    named = (up._path.parent / lock.PID_FILE).read_text(encoding="utf-8")
    assert '"r1"' not in named and '"r1-2"' in named and '"r0"' in named


def test_what_cannot_begin_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    class Noted(RuntimeDir):
        def __init__(self) -> None:
            super().__init__()
            made.append(self.path)

    monkeypatch.setattr(site, "RuntimeDir", Noted)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = prepared(metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(MachineError, match=r"cannot listen at 127\.0\.0\.1"):
            site._run(site._status("edge", given.spec), given, tmp_path)
    (directory,) = made
    assert not directory.exists()
