"""Generators outside of the data plane: what is asked of them, packets, what they tell; scapy."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import namespaces
import pytest
from conftest import SPEC, Ran, Run, RunFtmb, one_line
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ftmb import checks, measure, node, report, spec
from ftmb import trial as trials
from ftmb.analysis import histogram, metrics, records
from ftmb.errors import SpecError
from ftmb.generators import flows
from ftmb.generators.ground import child_spec
from ftmb.generators.told import Latencies, Told, longest
from ftmb.report_layout import MISSING, summed
from ftmb.testbed import external

SCAPY = {"generator": "scapy", "rate_pps": 400, "flows": 16}
TREX = {"generator": "trex", "trex": {"server": "192.0.2.9"}, "rate_pps": 50_000}
BETWEEN = {"inside": "eth1", "outside": "eth2"}


# -- what may be asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traffic", "more", "words"),
    [
        ({"generator": "scapy"}, {}, r"rate_pps at most 2000, not 200000; flows at most 1024"),
        (SCAPY | {"rate_pps": "max"}, {}, "it needs a rate_pps, not max; or take native"),
        (SCAPY | {"zipf": 1.0, "samples": True}, {}, "it knows no zipf, samples"),
        (SCAPY | {"fill": True, "new_flows_per_s": 1}, {}, "it knows no fill, new_flows_per_s"),
        (SCAPY, {"ft": {"mode": "direct"}}, "ft.mode ftmb or none, not direct"),
        (SCAPY, {"testbed": "netns"}, "testbed local, not netns"),
        (SCAPY, {"interfaces": BETWEEN}, "take interfaces out"),
        (SCAPY, {"faults": [{"do": "kill", "role": "il", "at_s": 1}]}, "no faults of theirs"),
        (SCAPY, {"processes": {"traffic": "a", "il": "b", "ol": "b"}}, "processes auto"),
        (TREX | {"trex": {}}, {"interfaces": BETWEEN}, "missing: traffic.trex.server"),
        (TREX, {}, r"missing: interfaces: \{inside: IF"),
        (TREX | {"reply_share": 0.5}, {"interfaces": BETWEEN}, "it knows no reply_share"),
        (TREX | {"rate_pps": 900}, {"interfaces": BETWEEN}, "at most 64, not 10000"),
        (TREX | {"trex": {"ports": [1, 1]}}, {}, "two different ports"),
        (TREX | {"trex": {"sever": "a"}}, {}, "did you mean server"),
        ({"generator": "moongen"}, {}, "'native', 'scapy' or 'trex', not 'moongen'"),
    ],
)
def test_what_a_generator_cannot_do_is_named_with_what_can(
    traffic: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        spec.parse({"traffic": traffic, **more})


def test_a_capture_is_for_the_native_generator(tmp_path: Path) -> None:
    given = spec.parse({"traffic": SCAPY | {"profile": "capture"}})
    with pytest.raises(SpecError, match="scapy cannot replay the capture of capture"):
        trials.packets(given, tmp_path)


def test_the_loggers_share_the_process_that_opens_the_interfaces(tmp_path: Path) -> None:
    given = spec.parse({"traffic": SCAPY})
    plan = node.make_plan(given, [0, 1])
    assert plan.processes == {"traffic": "scapy", "il": "loggers", "ol": "loggers"}
    paths = (tmp_path, tmp_path)
    child = node.logger_spec("scapy", "scapy", given, plan, {}, *paths, {"rate_pps": 400})
    assert child == child_spec(given, {"rate_pps": 400})
    loggers = node.logger_spec("loggers", "loggers", given, plan, {}, *paths, {})
    assert loggers["interfaces"] == {"inside": "inside", "outside": "outside"}
    assert "traffic" not in loggers
    there = external.AtInterfaces(plan, None)  # type: ignore[arg-type]
    there._prefix = ["enter"]
    assert there.settle(loggers, "loggers") == ["enter"]
    assert there.settle(child, "scapy") == ["enter", sys.executable, "-m"]
    replica = node.replica_spec("r0", 0, given, plan, {}, *paths)
    assert there.settle(replica, "replica-0") == ()


# -- packets -----------------------------------------------------------------------------------


def _templates() -> dict[int, bytes]:
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    head /= IP(src="10.0.0.1", dst="192.0.2.1", id=0)
    kinds = {
        flows.UDP: UDP(sport=1024, dport=53),
        flows.TCP: TCP(sport=1024, dport=80, flags="PA"),
        flows.ICMP: ICMP(type="echo-request", id=1024, seq=1),
    }
    return {which: bytes(head / kind / Raw(b"x" * 41)) for which, kind in kinds.items()}


@pytest.mark.parametrize("protocol", [flows.UDP, flows.TCP, flows.ICMP])
def test_packets_are_those_of_the_flow_with_checksums_that_scapy_agrees_with(
    protocol: int,
) -> None:
    packets = flows.Packets(seed=7)
    made = flows.make_flows(3, "10.0.0.0/8", [_templates()[protocol]])
    flow = made[2]
    for number in range(2):
        frame = packets.outbound(flow, 5_000_000 + number)
        again = Ether(frame)
        for layer in (IP, UDP, TCP, ICMP):
            if layer in again:
                del again[layer].chksum
        assert bytes(again) == frame
        assert again[IP].src == "10.0.0.1"
        found = packets.read(frame + b"\0" * 3)  # as short frames are padded on a wire
        assert found is not None
        assert (found.flow, found.number, found.intended_ns) == (2, number, 5_000_000 + number)
        assert found.source == (flow.address, flow.port) and not found.answer
        assert flow.carried(found.payload) and len(found.payload) == 25
        assert not flow.carried(found.payload + b"y")
        if protocol == flows.TCP:
            assert (again[TCP].flags == "S") == (number == 0)
    flow.outside = (bytes([203, 0, 113, 1]), b"\x27\x10")
    answer = packets.answer(flow, 9)
    back = Ether(answer)
    assert (back[IP].src, back[IP].dst) == ("192.0.2.1", "203.0.113.1")
    found = packets.read(answer)
    assert found is not None and found.answer and found.destination == flow.outside


def test_no_damaged_or_foreign_frame_is_taken_for_one_of_ours() -> None:
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    print(f"seed {seed}")
    packets, (flow,) = flows.Packets(1), flows.make_flows(1, "10.0.0.0/8", [*_templates().values()])
    for _ in range(2000):
        frame = bytearray(packets.outbound(flow, draw.randrange(1 << 40)))
        at = draw.randrange(flows.ETHERNET, len(frame))
        frame[at] ^= 1 << draw.randrange(8)
        assert packets.read(bytes(frame)) is None, f"bit of byte {at}, seed {seed}"
        assert packets.read(draw.randbytes(draw.randrange(80))) is None
    assert flows.Packets(2).read(packets.outbound(flow, 1)) is None


def test_numbers_tell_duplicates_and_order() -> None:
    numbers = flows.Numbers()
    arrived = [0, 1, 3, 2, 3, 1, 5]
    told = [numbers.take(number) for number in arrived]
    assert [fresh for fresh, _ in told] == [True, True, True, True, False, False, True]
    assert [late for _, late in told] == [False, False, False, True, False, False, False]
    assert (numbers.below, numbers.beyond) == (4, {5})


# -- what is told ------------------------------------------------------------------------------


def test_latencies_are_in_the_data_planes_buckets(tmp_path: Path) -> None:
    made = Latencies()
    for value in (0, 2047, 2048, 2049, 1_000_001, 999_999_999):
        made.add(value)
    assert set(made.buckets) >= {(0, 0), (2047, 2047), (2048, 2049)}
    for low, high in made.buckets:
        assert high - low < max(1, low / 1000)
    told = made.summary()
    assert (told["count"], told["p50"], told["max"]) == (6, 2049, 999_999_999)
    assert told["p9999"] == 999_999_999
    made.write(tmp_path / "histogram.json")
    read = histogram.read(tmp_path / "histogram.json")
    assert read.total == 6
    assert Latencies().summary() == {"count": 0}
    assert longest([(5, 1), (1, 9), (3, 4)]) == [[1, 9], [3, 4], [5, 1]]


ACTIVE = {"role": "replica", "condition": "active", "inputs": 10, "outputs": 10}
ACTIVE |= {"dropped_by_nf": 0, "nf_checks": []}


def _judged(told: Told) -> tuple[Any, dict[str, str], bool | str]:
    given = spec.parse({"traffic": TREX, "interfaces": BETWEEN, "ft": {"mode": "none"}})
    stats = measure.Stats(told.fields(), None, None, [ACTIVE])
    counts, latency = measure.packets(given, stats), measure.latency(given, stats)
    found = checks.checks(given, stats, counts, None, None, [], [], [])
    valid = checks.validity(given, stats, counts, latency, [], [], {})
    return counts, {check.name: check.verdict for check in found}, valid


def test_what_was_not_measured_is_null_and_judged_by_nobody() -> None:
    counts, found, valid = _judged(Told(10, 10, 10, 8, 8, 10**9))
    assert (counts.lost, counts.duplicated, counts.reordered, counts.corrupted) == (
        0, None, None, None,
    )  # fmt: skip
    assert found == {"loud_failures": "pass", "nothing_lost": "pass", "conservation": "pass"}
    assert valid is True
    counts, found, _ = _judged(Told(10, 10, None, 8, None, 10**9))
    assert counts.lost is None and counts.delivered is None
    assert "nothing_lost" not in found and "exactly_once" not in found
    _, found, _ = _judged(Told(10, 10, 9, 8, 8, 10**9))
    assert found["nothing_lost"] == "fail"
    bad = {"sent": 5, "lost": 0, "duplicated": 1, "reordered": 0}
    _, found, _ = _judged(Told(10, 10, 10, 8, 8, 10**9, sample=bad))
    assert found["sample"] == "fail"


def test_records_without_a_generators_figure_hold_no_zero(tmp_path: Path) -> None:
    counts = dict.fromkeys(("delivered", "lost", "lost_in_hand"), 0)
    tree = {"valid": True, "packets": counts | {"duplicated": None, "reordered": None}}
    place = tmp_path / "trials" / "crash-0"
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(tree))
    results = records.load(tmp_path)
    frame = results.frame
    assert not any("generator" in line for line in report.warnings(results))
    results.trials[0].record["spec"] = {"traffic": {"generator": "trex"}}
    said = "The generator trex measured 1 of 1 records; what it does not measure is a dash"
    assert any(line.startswith(said) for line in report.warnings(results))
    assert frame["duplicated"].isna().all() and (frame["lost"] == 0).all()
    assert not metrics.harmful(frame.iloc[0])
    assert summed(frame["duplicated"]) == MISSING and summed(frame["lost"]) == "0"


# -- the child ---------------------------------------------------------------------------------


def ended(tree: dict[str, Any], tmp_path: Path) -> tuple[int, str]:
    """Exit code and last words of a child that ends by itself, while its stdin is open."""
    path = tmp_path / "child.json"
    path.write_text(json.dumps(tree))
    words = [sys.executable, "-m", "ftmb.generators.child", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            child.wait(60)
            assert child.stderr is not None
            return child.returncode, child.stderr.read().strip().splitlines()[-1]
        finally:
            child.kill()


def test_a_child_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    given = spec.parse({"traffic": SCAPY})
    template = tmp_path / "template.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    frame = _templates()[flows.UDP]
    template.write_bytes(head + struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    traffic = {"rate_pps": 400, "flows": 2, "seed": 1, "inside": "10.0.0.0/8"}
    tree = child_spec(given, traffic | {"template": str(template)})
    tree["interfaces"] = {"inside": "ftmbnone0", "outside": "ftmbnone1"}
    code, said = ended(tree, tmp_path)
    assert code == 3
    assert said.startswith("ftmb: scapy cannot open the interface ftmbnone0")


# -- scapy at work -----------------------------------------------------------------------------

TRIAL = SPEC | {"warmup_s": 0.2, "duration_s": 1.5, "drain_s": 2, "setup_timeout_s": 60}
NO_MASTER = [{"do": "kill", "role": "master", "at_s": 0.5}]


@pytest.fixture
def rooted() -> None:
    """Where no namespaces can be made, the reason."""
    if why := namespaces.missing():
        pytest.skip(why)


@pytest.mark.slow
def test_scapy_and_native_find_the_same_of_a_crash(trial: RunFtmb, rooted: None) -> None:
    """The NAT's master dies under each of them, at the same low rate."""
    base = TRIAL | {"nf": {"name": "nat"}, "faults": NO_MASTER, "ft": {"detect_ms": 3000}}
    traffic = {"rate_pps": 400, "flows": 16, "reply_share": 0.3, "profile": "mixed"}
    ran: dict[str, Ran] = {
        name: trial(base | {"traffic": traffic | {"generator": name}}, out=name)
        for name in ("native", "scapy")
    }
    for name, each in ran.items():
        assert each.code == 0, each.err
        assert each.record is not None
        failed = [c for c in each.record["checks"] if c["verdict"] != "pass"]
        assert not failed, f"{name}: {failed}"
        packets = each.record["packets"]
        keys = ("lost", "duplicated", "reordered", "corrupted")
        assert [packets[key] for key in keys] == [0, 0, 0, 0], name
        # Not how many: the kernel may drop what a crowded machine leaves at the interfaces.
        assert packets["delivered"] == packets["outputs_produced"] > 0
        assert each.record["recovery"][0]["packets_replayed"] is not None
        assert each.record["spec"]["traffic"]["generator"] == name
        names = {check["name"] for check in each.record["checks"]}
        assert names >= {"exactly_once", "order", "corrupted", "conservation", "outcome"}
        assert names >= {"nat.mapping_changed", "nat.mapping_shared", "equal_replay"}
    left = [name for name in os.listdir("/run/netns") if "-trial" in name]
    mine = [name for name in left if not Path(f"/proc/{name.split('-')[1]}").exists()]
    assert not mine, "a namespace was left behind"


def test_without_root_scapy_says_what_it_needs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, record, err = run(SPEC | {"traffic": SCAPY})
    assert (code, record) == (3, None)
    assert "only root can make; run as root, or take native" in one_line(err)
