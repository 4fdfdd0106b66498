"""The arms with kernel NAT: cold, with conntrackd in two orders, with keepalived."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftmb import debian
from ftmb.errors import MachineError, TrialError
from ftmb.peers import configs, places
from ftmb.peers.flows import Relay
from ftmb.peers.spec import SYNCED, Arm, PeersSpec
from ftmb.peers.topology import Topology
from ftmb.testbed.namespaces import Host

START_S = 20.0
MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
NEEDED = {
    "nosync": {"nft": "nftables"},
    "stock": {"nft": "nftables", "conntrackd": "conntrackd"},
    "safe": {"nft": "nftables", "conntrackd": "conntrackd"},
    "keepalived": {"nft": "nftables", "conntrackd": "conntrackd", "keepalived": "keepalived"},
    "ftmb": {},
}


@dataclass(frozen=True)
class Crash:
    """Instants of one crash, CLOCK_MONOTONIC ns."""

    begin_ns: int  # the crash itself is between these two
    end_ns: int
    done_ns: int  # all steps of the takeover are over
    commit_ms: float | None = None
    switch_ms: float | None = None
    entries_failed: int | None = None


def check(spec: PeersSpec) -> None:
    """Raises MachineError if this machine lacks what the arms need."""
    missing = {
        package
        for arm in spec.arms
        for program, package in NEEDED[arm].items()
        if debian.which(program) is None
    }
    if missing:
        raise MachineError(
            f"arms: {', '.join(sorted(missing))} missing; "
            f"`apt-get install {' '.join(sorted(missing))}`, or name fewer arms"
        )
    if set(spec.arms) == {"ftmb"}:
        return
    if not MOST.exists():
        raise MachineError(
            "arms: the kernel's connection tracking is not there; `modprobe nf_conntrack`, or "
            "name fewer arms"
        )
    if int(MOST.read_text(encoding="ascii")) < spec.flows:
        raise MachineError(
            f"table: {spec.flows} mappings, the kernel takes {MOST.read_text().strip()}; "
            f"`sysctl -w net.netfilter.nf_conntrack_max={1 << spec.flows.bit_length()}`"
        )


def wait_until(true: Callable[[], bool], what: str, limit_s: float = START_S) -> None:
    """Raises TrialError if it does not come to that in time."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise TrialError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.02)


class Daemon:
    """conntrackd on one box, with files of its own."""

    def __init__(self, host: Host, run: Path, number: int, real_time: bool) -> None:
        """Started."""
        run.mkdir()
        self.host, self.config, self._log = host, run / "conf", run / "log"
        text = configs.conntrackd(run, places.SYNC[number], places.SYNC[1 - number])
        self.config.write_text(text, encoding="utf-8")
        # At SCHED_RR 99 it would starve whatever shares its CPU; without the right it goes on.
        limit = [] if real_time else ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps",
                                      "-sys_nice"]  # fmt: skip
        with (run / "said").open("w") as said:
            self.process = host.start(
                [*limit, debian.path("conntrackd"), "-C", self.config],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        self._said = run / "said"

    def command(self, flag: str) -> str:
        """Have it do something; its answer."""
        return self.host.run([debian.path("conntrackd"), "-C", self.config, flag])

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        def so() -> bool:
            if self.process.poll() is not None:
                said = self._said.read_text().strip().splitlines() or ["it said nothing"]
                raise TrialError(f"conntrackd ended: {said[-1]}")
            return true()

        wait_until(so, what)

    def wait_until_up(self) -> None:
        """Until it listens: what its peer says before that is lost."""
        self._wait((self.config.parent / "control").exists, "conntrackd does not listen")

    def wait_for_peer(self) -> None:
        """Until it has heard of its peer, which was started after it."""
        heard = "resync requested by other node"
        self._wait(lambda: heard in self.log, "conntrackd did not meet its peer")

    def external(self) -> int:
        """How many entries it holds of its peer's."""
        found = re.search(r"cache external:\s+current active connections:\s+(\d+)",
                          self.command("-s"))  # fmt: skip
        return int(found[1]) if found else 0

    def failed(self) -> int:
        """How many entries its commits could not make."""
        return sum(int(n) for n in re.findall(r"(\d+) entries can't be committed", self.log))


class KernelPair:
    """Two boxes with kernel NAT."""

    def __init__(self, arm: Arm, spec: PeersSpec, topology: Topology, run: Path) -> None:
        """Both boxes are there, their daemons have met."""
        self.arm, self.spec, self.topology, self.run = arm, spec, topology, run
        vrrp = arm == "keepalived"
        self.a = topology.box("boxa", True, own_macs=vrrp)
        self.b = topology.box("boxb", vrrp, own_macs=vrrp)
        self.relay: Relay | None = None
        self._dropped: dict[str, int | None] = {}
        self.daemons: list[Daemon] = []
        for number, (host, _) in enumerate((self.a, self.b)):
            topology.kernel_box(host, number, spec.outside, run, vrrp)
        if not vrrp:
            topology.shared_addresses()
        if arm in SYNCED:
            self._start_sync()
        topology.prepare_cut(self.a[1])
        if not vrrp:
            topology.prepare_swap()

    def _start_sync(self) -> None:
        self.topology.state_link(self.a, self.b, self.spec.relay_ms > 0)
        if self.spec.relay_ms:
            far = next(host for host in self.topology.net.hosts if host.name.endswith("-relay"))
            self.relay = Relay(far, self.spec.relay_ms)
        for number, (host, _) in enumerate((self.a, self.b)):
            run = self.run / f"conntrackd{number}"
            self.daemons.append(Daemon(host, run, number, self.spec.real_time))
            self.daemons[-1].wait_until_up()
        self.daemons[0].wait_for_peer()

    def filled(self) -> None:
        """Until the backup has what is there before the traffic begins."""
        if self.daemons:
            table = self.spec.table
            what = f"conntrackd has not brought {table} entries over"
            wait_until(lambda: self.daemons[1].external() >= table, what, 120)

    def crash(self) -> Crash:
        """Cut the master's cables, take over in this arm's order."""
        begin_ns, end_ns = self.topology.cut()
        order = {"nosync": [self._swap], "stock": [self._swap, self._commit],
                 "safe": [self._commit, self._swap]}[self.arm]  # fmt: skip
        took = {step.__name__: step() for step in order}
        done_ns = time.monotonic_ns()
        failed = self.daemons[1].failed() if self.daemons else None
        return Crash(begin_ns, end_ns, done_ns, took.get("_commit"), took.get("_swap"), failed)

    def _swap(self) -> float:
        begin_ns = time.monotonic_ns()
        self.topology.swap(self.a[1], self.b[1])
        return (time.monotonic_ns() - begin_ns) / 1e6

    def _commit(self) -> float:
        begin_ns = time.monotonic_ns()
        self.daemons[1].command("-c")
        return (time.monotonic_ns() - begin_ns) / 1e6

    def close(self) -> None:
        """What ends by itself, before the namespaces go."""
        if self.relay:
            self._dropped["relay"] = self.relay.close()

    def dropped(self) -> dict[str, int | None]:
        """By the relay, where there is one."""
        return self._dropped


class Keepalived(KernelPair):
    """The same, but keepalived finds out by itself, moves the addresses and runs the commit."""

    def __init__(self, arm: Arm, spec: PeersSpec, topology: Topology, run: Path) -> None:
        """Box A is master."""
        super().__init__(arm, spec, topology, run)
        self._told = [run / f"notify{number}" for number in range(2)]
        program = debian.path("conntrackd")
        for number, (host, _) in enumerate((self.a, self.b)):
            script = run / f"master{number}.sh"
            text = configs.script(program, self.daemons[number].config, self._told[number])
            script.write_text(text, encoding="utf-8")
            script.chmod(0o700)
            config = run / f"keepalived{number}.conf"
            text = configs.keepalived(150 - 50 * number, spec.advert_s, script)
            config.write_text(text, encoding="utf-8")
            with (run / f"keepalived{number}.said").open("w") as said:
                host.start(
                    [debian.path("keepalived"), "-n", "-l", "-P", "-f", config,
                     "-p", run / f"k{number}.pid", "-r", run / f"v{number}.pid"],
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                )  # fmt: skip
            if number == 0:
                wait_until(lambda: self._done(0), "keepalived did not make box A the master")

    def _done(self, number: int) -> bool:
        return self._told[number].with_suffix(".done").exists()

    def crash(self) -> Crash:
        """Cut the master's cables and wait for box B."""
        begin_ns, end_ns = self.topology.cut()
        wait_until(lambda: self._done(1), "keepalived did not take over", 120)
        done_ns = time.monotonic_ns()
        commit = [int(self._told[1].with_suffix(f".{end}").read_text()) for end in ("begin", "end")]
        return Crash(begin_ns, end_ns, done_ns, (commit[1] - commit[0]) / 1e6,
                     None, self.daemons[1].failed())  # fmt: skip
