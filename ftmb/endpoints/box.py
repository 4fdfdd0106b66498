"""The middlebox between the ends: `ftmb up` as a child, killed and brought back as the arm says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ftmb import site
from ftmb.describe import project_root
from ftmb.endpoints.spec import EndpointsSpec
from ftmb.errors import TrialError
from ftmb.signals import held
from ftmb.testbed.namespaces import Host

UP_S = 60.0
POLL_S = 0.005
# A master that a crowded machine holds up is not meant here; one that dies is seen at once.
DETECT = "ft.detect_ms=3000"


class Box:
    """One middlebox on the host `box`. Close it."""

    def __init__(self, host: Host, spec: EndpointsSpec, out: Path) -> None:
        """out: where it keeps what its processes say. Nothing is started yet."""
        self.arm, self._host, self._out = spec.arm, host, out
        self.name = f"ends{os.getpid()}"
        mode = ["ft.mode=none"] if spec.arm == "cold" else []
        file = project_root() / "config" / "sites" / f"{spec.function}.yaml"
        changes = [word for key in (DETECT, *mode, *spec.set) for word in ("--set", key)]
        self._command = [sys.executable, "-m", "ftmb", "up", str(file), "--name", self.name,
                         *changes, "--out", str(out)]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None
        self._killed: set[int] = set()

    def start(self) -> None:
        """Start it, and return at once."""
        self._out.mkdir(parents=True, exist_ok=True)
        # The run holds the lock that keeps trials away, so this middlebox has one of its own.
        environment = {**os.environ, "FTMB_LOCK": str(self._out / "lock")}
        with (self._out / "said").open("a", encoding="utf-8") as said:
            self._process = self._host.start(
                self._command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
            )

    def status(self) -> site.Status | None:
        """As `ftmb status` tells it; None before it has begun."""
        return next((each for each in site.sites() if each.name == self.name), None)

    @property
    def ready(self) -> bool:
        """It forwards, and the arm's crash may come: with `ftmb`, a backup stands by."""
        now = self.status()
        if now is None or now.starting:
            return False
        if self.arm == "cold":
            return True
        return now.protected and not self._killed & set(now.processes.values())

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Until it is ready. Raises TrialError with what it said if it ends, or takes too long."""
        assert self._process is not None
        deadline = time.monotonic() + UP_S
        while not self.ready:
            if self._process.poll() is not None:
                raise TrialError(f"the middlebox ended: {self._last_words()}; see {self._out}")
            if time.monotonic() > deadline:
                raise TrialError(f"the middlebox is not ready after {UP_S:g} s; see {self._out}")
            meanwhile()
            time.sleep(POLL_S)

    def kill(self) -> int:
        """Kill the master, with SIGKILL; returns when (CLOCK_MONOTONIC, ns). Control: nobody is.

        cold: the rest of it goes too, and a fresh one is started in the same moment."""
        now = self.status()
        if now is None:
            raise TrialError(f"there is no middlebox to kill; see {self._out}")
        pid = now.processes[now.master]
        t_ns = time.monotonic_ns()
        if self.arm == "control":
            return t_ns
        _kill(pid)
        self._killed.add(pid)
        if self.arm == "cold":
            self._end(now.processes.values())
            self.start()
        return t_ns

    @property
    def failovers(self) -> int:
        """How often a backup took over. Raises TrialError if the middlebox does not tell."""
        now = self.status()
        if now is None:
            raise TrialError(f"the middlebox is gone, and what it counted; see {self._out}")
        return now.failovers

    def _end(self, pids: Iterable[int]) -> None:
        assert self._process is not None
        self._process.kill()
        for pid in pids:
            _kill(pid)
        self._process.wait()

    def _last_words(self) -> str:
        lines = (self._out / "said").read_text(encoding="utf-8").strip().splitlines()
        return lines[-1].removeprefix("ftmb: ") if lines else "nothing was said"

    def close(self) -> None:
        """End it in order, so that it leaves nothing behind."""
        if self._process is None or self._process.poll() is not None:
            return
        with held():
            self._process.terminate()
            try:
                self._process.wait(UP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its processes end with their host
                self._process.wait()
                told = f"the middlebox did not end within {UP_S:g} s and was killed"
                print(f"ftmb: {told}; see {self._out}", file=sys.stderr, flush=True)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
