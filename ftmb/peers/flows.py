"""The traffic: `ftmb-flows` at client and server, the TCP connections beside it, the relay."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftmb.describe import node_path
from ftmb.errors import MachineError, TrialError
from ftmb.peers import places, tcp
from ftmb.peers.judge import ARRIVAL, CLIENT_FLOW, SERVER_FLOW, Seen
from ftmb.peers.spec import PeersSpec
from ftmb.testbed.namespaces import Host

FILL_ROUNDS = 10


def program() -> Path:
    """`ftmb-flows`, which is built beside the data plane. Raises MachineError."""
    path = node_path().parent / "peers" / "ftmb-flows"
    if not path.is_file():
        raise MachineError(f"{path} does not exist: run `make build`")
    return path


def end(process: subprocess.Popen[str], name: str, limit_s: float) -> None:
    """Wait for what was told to end; what does not is killed, and stderr says so."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"ftmb: {name} did not end within {limit_s:g} s and was killed", file=sys.stderr,
              flush=True)  # fmt: skip


class Talker:
    """A program that is told lines and answers with lines."""

    def __init__(self, host: Host, command: Sequence[str | Path], name: str) -> None:
        """Started, and ready."""
        self.name = name
        self._process = host.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.scheduler = self.answer("ready", 20).partition(" ")[2]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def tell(self, line: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer that does not come tells why

    def answer(self, begins: str, limit_s: float) -> str:
        """The next line, which begins so. Raises TrialError."""
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise TrialError(f"{self.name}: no answer `{begins}` within {limit_s:g} s") from None
        if line is None:
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip().splitlines() or ["it said nothing"]
            raise TrialError(f"{self.name} ended: {said[-1]}")
        if not line.startswith(begins):
            raise TrialError(f"{self.name}: `{line}` in the place of `{begins}`")
        return line

    def ask(self, line: str, begins: str, limit_s: float) -> str:
        """Send a command and wait for its answer."""
        self.tell(line)
        return self.answer(begins, limit_s)

    def end(self) -> None:
        """Close its stdin, upon which it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        end(self._process, self.name, 10)


class Relay:
    """A long link between `left` and `right` of a host."""

    def __init__(self, host: Host, delay_ms: float) -> None:
        """Frames pass from now on."""
        words: list[str | Path] = [program(), "relay", "left", "right", str(round(delay_ms * 1000))]
        self._talker = Talker(host, words, "the relay")

    def close(self) -> int | None:
        """Nothing passes any more; how many frames it dropped, None if it does not tell."""
        self._talker.end()
        try:
            return _counts(self._talker.answer("done", 10))["dropped"]
        except TrialError:
            return None  # it is told of where the record is judged


def _counts(line: str) -> dict[str, int]:
    words = line.split()[1:]
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}


class Traffic:
    """Everything that client and server say to one another in one crash."""

    def __init__(self, spec: PeersSpec, client: Host, server: Host, run: Path) -> None:
        """Client and server are ready; nothing was sent."""
        self.spec, self._run = spec, run
        flows = program()
        self._server = Talker(server, [flows, "server", places.SERVER, run], "the server")
        words: list[str | Path] = [flows, "client", "eth0", places.FIRST_FLOW, places.SERVER, run]
        self._client = Talker(client, words, "the client")
        self.scheduler = self._client.scheduler
        self._echo = Talker(server, tcp.command("server", places.SERVER), "the TCP server")
        self._tcp: Talker | None = None
        self._client_host = client

    def fill(self) -> None:
        """One packet of each flow of the table, until each was answered. Raises TrialError."""
        spec = self.spec
        for _ in range(FILL_ROUNDS):
            line = self._client.ask(f"fill {spec.table} {spec.fill_per_s}", "filled",
                                    spec.table / spec.fill_per_s * 3 + 30)  # fmt: skip
            if (missing := _counts("x filled " + line.removeprefix("filled "))["missing"]) == 0:
                return
        raise TrialError(f"{missing} of {spec.table} flows were never answered")

    def start(self) -> int:
        """New flows, known ones, probes and TCP from now on; the instant (ns)."""
        spec = self.spec
        words = tcp.command("client", places.SERVER, str(spec.tcp))
        self._tcp = Talker(self._client_host, words, "the TCP client")
        rates = f"{spec.new_per_s} {spec.known_per_s} {spec.probe_per_s}"
        return int(self._client.ask(f"run {rates}", "running", 20).split()[1])

    def finish(self) -> Seen:
        """Stop the traffic, look at every flow, and hand over what was seen."""
        spec, client, server = self.spec, self._client, self._server
        assert self._tcp is not None
        new = int(client.ask("hold", "held", 20).split()[2])
        server.ask("hold", "held", 20)
        looked = min(spec.table, spec.sweep_most) + new
        limit_s = looked / spec.sweep_per_s * 3 + 60
        server.ask(f"late {spec.table} {spec.stride} {spec.sweep_per_s}", "late", limit_s)
        client.ask(f"again {spec.stride} {spec.sweep_per_s}", "again", limit_s)
        told = json.loads(self._tcp.ask("finish", "{", 60))
        counts = [_counts(talker.ask("quit", "done", 60)) for talker in (server, client)]
        for talker in (server, client, self._tcp, self._echo):
            talker.end()
        return Seen(
            server=self._read("server.flows", SERVER_FLOW),
            client=self._read("client.flows", CLIENT_FLOW),
            arrived=self._read("server.probes", ARRIVAL),
            returned=self._read("client.probes", ARRIVAL),
            astray=self._read("client.astray", ARRIVAL),
            sent=counts[1], got=counts[0], tcp=told,
        )  # fmt: skip

    def _read(self, name: str, kind: np.dtype[np.void]) -> NDArray[np.void]:
        return np.fromfile(self._run / name, dtype=kind)
