"""A started ftmb-node: its states, its events, its end.

A process is in one state at a time. Only `kill` (a fault) and `stop` (our own clean-up) end it by
intention; every other end is unexpected unless `finish` was sent and it ended with code 0, or a
fault made it one of the past, and it ended because it was fenced.
"""

from __future__ import annotations

import enum
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ftmb import events
from ftmb.errors import FtmbError, MachineError, SpecError, TrialError
from ftmb.events import Event

# ftmb-node's exit codes, for people.
EXIT_MEANING = {
    2: "bad node spec",
    3: "cannot set up",
    4: "protocol: divergence or state lost",
    5: "peer gone or no progress",
    6: "fenced",
}
FENCED = 6


class State(enum.Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    FINISHING = "finishing"
    EXITED = "exited"
    KILLED = "killed"  # by a fault
    STOPPED = "stopped"  # by our own clean-up


ALLOWED = {
    State.STARTING: {State.READY, State.EXITED, State.KILLED, State.STOPPED, State.FINISHING},
    State.READY: {State.RUNNING, State.FINISHING, State.EXITED, State.KILLED, State.STOPPED},
    State.RUNNING: {State.FINISHING, State.EXITED, State.KILLED, State.STOPPED},
    State.FINISHING: {State.EXITED, State.STOPPED},
    State.EXITED: set(),
    State.KILLED: set(),
    State.STOPPED: set(),
}
ENDED = (State.EXITED, State.KILLED, State.STOPPED)


class NodeProcess:
    """One ftmb-node. Construct it on the main thread: the child dies with the thread that made it
    (PR_SET_PDEATHSIG), so a helper thread would take it along."""

    def __init__(
        self, program: Path, spec: Path, name: str, out: Path, inbox: queue.Queue[Event],
        prefix: Sequence[str] = (), cut_off: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Start it. Events, and at its end one `exit` {code}, go to `inbox`. Raises MachineError.

        `out`: where <name>.stderr, and <name>.stdout for lines that are no events, are written.
        prefix: words that start the program where it is to stand. cut_off: what happens to its
        host right before a fault kills it.
        """
        self.name = name
        self.stderr_path = out / f"{name}.stderr"
        self._stdout_path = out / f"{name}.stdout"
        self._spec_path = spec
        self._inbox, self._cut_off = inbox, cut_off
        self.state = State.STARTING
        self.exit_code: int | None = None
        self.paused = False
        self.outdated = False  # its view may end while it lives: then it is right to end, fenced
        self.started_ns = time.monotonic_ns()
        try:
            with self.stderr_path.open("wb") as stderr:
                self._child = subprocess.Popen(
                    [*prefix, str(program), str(spec)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    process_group=0,  # a terminal's Ctrl-C is ours to handle, not the child's
                )
        except OSError as error:
            raise MachineError(f"cannot start {program}: {error.strerror}") from None
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._read, name=f"read-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for raw in self._child.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            event = events.parse_line(self.name, line)
            if event is not None:
                self._inbox.put(event)
            elif line:
                with self._stdout_path.open("a", encoding="utf-8") as other:
                    other.write(line + "\n")
        # WNOWAIT leaves the child to be reaped by `close`: until then its pid cannot be given to
        # a stranger, so a signal sent by pid can only ever reach this child.
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert status is not None
        code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
        self._inbox.put(events.own("exit", self.name, code=code))

    def become(self, state: State) -> None:
        """Change the state; a change that makes no sense is a bug of ours, found here."""
        assert state in ALLOWED[self.state], f"{self.name}: {self.state.value} to {state.value}"
        self.state = state

    @property
    def ended(self) -> bool:
        """True once the process is known to be gone."""
        return self.state in ENDED and self.exit_code is not None

    @property
    def listens(self) -> bool:
        """True while it runs and reads commands: not while it still waits for its peers."""
        return not self.ended and self.state is not State.STARTING

    def command(self, verb: str) -> None:
        """Write a command line. A process that just died cannot read it: its exit event tells."""
        assert self._child.stdin is not None
        if verb == "finish":
            self.become(State.FINISHING)
        try:
            self._child.stdin.write(verb.encode() + b"\n")
            self._child.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def kill(self) -> int:
        """A fault: SIGKILL to this process alone, or the crash of the host that it has to itself.
        Returns the CLOCK_MONOTONIC ns just before."""
        self.become(State.KILLED)
        t0_ns = time.monotonic_ns()
        self._cut_off()
        os.kill(self.pid, signal.SIGKILL)
        return t0_ns

    def pause(self) -> int:
        """A fault: SIGSTOP to this process alone. Returns the CLOCK_MONOTONIC ns just before."""
        self.paused = True
        t0_ns = time.monotonic_ns()
        os.kill(self.pid, signal.SIGSTOP)
        return t0_ns

    def go_on(self) -> None:
        """The end of a pause. One that ended meanwhile is not reaped yet, so the pid is its own."""
        self.paused = False
        if self._child.returncode is None:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def working(self) -> bool:
        """True while it runs, neither paused nor about to end."""
        return self.state is State.RUNNING and not self.paused

    def note_exit(self, code: int) -> bool:
        """Take note of an `exit` event. True if the end was expected."""
        self.exit_code = code
        if self.state in (State.KILLED, State.STOPPED):
            return True
        expected = self.state is State.FINISHING and code == 0
        expected |= self.outdated and code == FENCED
        self.become(State.EXITED)
        return expected

    def last_words(self) -> str:
        """The last line of stderr, or how it ended if it said nothing."""
        try:
            text = self.stderr_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        own_lines = [line for line in lines if line.startswith(("ftmb-node:", "ftmb:"))]
        if lines:
            return (own_lines or lines)[-1].removeprefix("ftmb-node: ").removeprefix("ftmb: ")
        return "it said nothing on stderr"

    def how_it_ended(self) -> str:
        """The exit in words: `exit code 4 (protocol: ...)` or `signal SIGSEGV`."""
        code = self.exit_code
        if code is None:
            return "still running"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        meaning = EXIT_MEANING.get(code)
        return f"exit code {code}" + (f", {meaning}" if meaning else "")

    def close(self) -> None:
        """Make sure that it and what it forked are gone, and reap it. Safe to call twice."""
        if self._child.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            if self.state not in ENDED:
                self.become(State.STOPPED)
            self._reader.join(timeout=10)
            self.exit_code = self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

    def bury(self) -> None:
        """Close it, and take away what is kept of it."""
        self.close()
        for path in (self._spec_path, self.stderr_path, self._stdout_path):
            path.unlink(missing_ok=True)


class Died(Exception):  # noqa: N818
    """A process ended that neither a fault nor `finish` ended."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        super().__init__(
            f"process {process.name} died that no fault named "
            f"({process.how_it_ended()}): {process.last_words()}"
        )

    def during_setup(self) -> FtmbError:
        """The same as the reason why a trial cannot begin."""
        process = self.process
        kinds: dict[int | None, type[FtmbError]] = {2: SpecError, 3: MachineError}
        kind = kinds.get(process.exit_code, TrialError)
        if kind is TrialError:
            return TrialError(
                f"process {process.name} died during set-up ({process.how_it_ended()}): "
                f"{process.last_words()}; see {process.stderr_path}"
            )
        return kind(f"process {process.name}: {process.last_words()}")
