"""`ftmb peers`: crash after crash, arm by arm, each in a network of its own."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Protocol

from ftmb.errors import MachineError, TrialError
from ftmb.lock import RuntimeDir, machine_lock, refuse_left_overs
from ftmb.peers import judge, kernel, record, spec
from ftmb.peers.flows import Traffic, program
from ftmb.peers.kernel import Crash, Keepalived, KernelPair
from ftmb.peers.ours import Ours
from ftmb.peers.record import CrashRecord, PeersRecord
from ftmb.peers.spec import Arm, PeersSpec
from ftmb.peers.topology import Topology
from ftmb.record import RECORD_NAME, leave_out, write
from ftmb.signals import held, stoppable
from ftmb.testbed import namespaces


class Box(Protocol):
    """What an arm is: a box that can be crashed, and takes over in its way."""

    def filled(self) -> None:
        """Wait until the table is where the arm keeps its copy."""

    def crash(self) -> Crash:
        """Crash it; returns when the takeover is over."""

    def close(self) -> None:
        """End what ends by itself."""

    def dropped(self) -> dict[str, int | None]:
        """Frames that what stands between its boxes dropped; complete once it is closed."""


def _box(arm: Arm, checked: PeersSpec, topology: Topology, run: Path) -> Box:
    if arm == "ftmb":
        return Ours(checked, topology, run)
    return (Keepalived if arm == "keepalived" else KernelPair)(arm, checked, topology, run)


def _instant(checked: PeersSpec, number: int) -> float:
    """Seconds after the traffic began; the same in all arms."""
    return random.Random(f"{checked.seed} {number}").uniform(*checked.crash_s)


def _judge(
    arm: Arm, checked: PeersSpec, number: int, begun_ns: int, crash: Crash, end_ns: int,
    seen: judge.Seen, relay: dict[str, int | None], scheduler: str, took_s: float,
) -> CrashRecord:  # fmt: skip
    probes = seen.returned[seen.returned["kind"] == judge.PROBE]["at_ns"]
    pushes = seen.returned[seen.returned["kind"] == judge.PUSH]["at_ns"]
    sent = seen.sent["probe"]
    span = (crash.begin_ns, crash.done_ns, end_ns)
    return CrashRecord(
        arm=arm,
        number=number,
        crash_s=_instant(checked, number),
        happened_s=(crash.begin_ns - begun_ns) / 1e9,
        cut_ms=(crash.end_ns - crash.begin_ns) / 1e6,
        takeover_ms=(crash.done_ns - crash.begin_ns) / 1e6,
        commit_ms=crash.commit_ms,
        switch_ms=crash.switch_ms,
        entries_failed=crash.entries_failed,
        outage=judge.stream(probes, *span, sent),
        outage_up=judge.stream(seen.arrived["at_ns"], *span, sent),
        outage_down=judge.stream(pushes, *span, seen.got["push"]),
        mappings=judge.mappings(seen, checked.table, checked.stride, crash.end_ns),
        packets=judge.packets(seen),
        dropped={"client": seen.sent["dropped"], "server": seen.got["dropped"], **relay},
        tcp=record.Tcp(**seen.tcp),
        scheduler=scheduler,
        took_s=took_s,
    )


def one(arm: Arm, checked: PeersSpec, number: int) -> CrashRecord:
    """One crash in a fresh network. Raises FtmbError; nothing is left running."""
    start_s = time.monotonic()
    runtime = RuntimeDir()
    box: Box | None = None
    try:
        with namespaces.network() as net:
            try:
                topology = Topology(net)
                box = _box(arm, checked, topology, runtime.path)
                traffic = Traffic(checked, topology.client, topology.server, runtime.path)
                traffic.fill()
                box.filled()
                begun_ns = traffic.start()
                due_ns = begun_ns + round(_instant(checked, number) * 1e9)
                time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
                crash = box.crash()
                time.sleep(checked.after_s)
                end_ns = time.monotonic_ns()
                seen = traffic.finish()
            finally:
                with held():
                    if box:
                        box.close()
    finally:
        with held():
            runtime.remove()
    took_s = time.monotonic() - start_s
    return _judge(arm, checked, number, begun_ns, crash, end_ns, seen, box.dropped(),
                  traffic.scheduler, took_s)  # fmt: skip


def in_words(crash: CrashRecord) -> str:
    """One crash on a line."""
    m, gap = crash.mappings, crash.outage
    again = f"out for {gap.ms:.1f} ms" if gap.restored else "never back"
    return (
        f"{crash.arm:<10} {crash.number:3d}: {again}, {m.lost} of {m.checked} mappings lost, "
        f"{m.misdelivered} replies astray, TCP {crash.tcp.survived} of {crash.tcp.connections}, "
        f"{crash.took_s:.1f} s"
    )


def summary(result: PeersRecord) -> str:
    """The comparison in a line for each arm."""
    lines = []
    for arm in dict.fromkeys(crash.arm for crash in result.crashes):
        its = [crash for crash in result.crashes if crash.arm == arm]
        gaps = [crash.outage.ms for crash in its if crash.outage.restored]
        middle = f"{statistics.median(gaps):.1f} ms" if gaps else "never back"
        lines.append(
            f"{arm}: {len(its)} crashes, out for {middle} at the median, mappings lost "
            f"{sum(c.mappings.lost for c in its)} of {sum(c.mappings.checked for c in its)}, "
            f"replies astray {sum(c.mappings.misdelivered for c in its)}, TCP "
            f"{sum(c.tcp.survived for c in its)} of {sum(c.tcp.connections for c in its)}"
        )
    if result.valid is not True:
        lines.append(f"not valid: {result.valid}")
    return "\n".join(lines)


def run(checked: PeersSpec, out: Path, lock_wait_s: float, verbose: bool) -> PeersRecord:
    """Run all crashes and write the record. Raises FtmbError."""
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / RECORD_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot write to {out}: {error.strerror}; choose another --out"
        ) from None
    flows = program()
    kernel.check(checked)
    crashes: list[CrashRecord] = []
    with machine_lock(lock_wait_s):
        refuse_left_overs()
        made = record.begin(checked, flows)
        for number in range(checked.crashes):
            # Whoever comes first would else always find the machine as the last arm left it.
            order = random.Random(f"{checked.seed} order {number}").sample(
                checked.arms, len(checked.arms)
            )
            for arm in order:
                try:
                    crashes.append(one(arm, checked, number))
                except TrialError as error:
                    raise TrialError(f"arm {arm}, crash {number}: {error}") from None
                if verbose:
                    print(f"ftmb: {in_words(crashes[-1])}", file=sys.stderr, flush=True)
                made = record.with_crashes(made, checked, list(crashes))
                write(made, out)  # what there is: a long run may be stopped
    return made


def main(words: list[str]) -> int:
    """The command `ftmb peers`."""
    parser = argparse.ArgumentParser(
        prog="ftmb peers", description="Crashes beside conntrackd and keepalived, one record."
    )
    parser.add_argument("spec", type=Path, metavar="SPEC.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        dest="assignments", help="change a key, e.g. crashes=30")  # fmt: skip
    parser.add_argument("--lock-wait", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument("--leave-out", action="store_true", help="where this machine lacks what "
                        "it needs, write the reason as the record; end with 0")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="a line for each crash")
    options = parser.parse_args(words)
    with stoppable():
        checked = spec.load(options.spec, options.assignments)
        try:
            result = run(checked, options.out, options.lock_wait, options.verbose)
        except MachineError as error:
            if not options.leave_out:
                raise
            leave_out(options.out, str(error))
            print(f"{options.out / RECORD_NAME}: left out: {error}")
            return 0
    print(f"{options.out / RECORD_NAME}:\n{summary(result)}")
    return 0
