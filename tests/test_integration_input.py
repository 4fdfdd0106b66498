"""Specs and captures that are wrong, given to real processes: refused in one line, or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import RunFtmb, run_ftmb
from real_trials import KILL, assert_refused, spec

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"traffic": {"rate": 5}}, ["traffic.rate", "unknown key"]),
        ({"colour": "red"}, ["colour", "unknown key"]),
        ({"nf": {"name": "nat", "prots": 1}}, ["nf.prots"]),
        ({"nf": {"name": "router"}}, ["router", "nat"]),
        ({"workers": 1000}, ["workers", "1000"]),
        ({"traffic": {"profile": "no-such"}}, ["no-such"]),
        ({"ft": {"mode": "none"}, "faults": [KILL]}, ["faults"]),
        ({"faults": [dict(KILL, at_s=9)]}, ["at_s"]),
    ],
    ids=["key", "top-key", "nf-key", "nf-name", "workers", "profile", "faults", "time"],
)
def test_bad_spec(trial: RunFtmb, changes: dict[str, Any], words: list[str]) -> None:
    ran = trial(spec(**changes), timeout=30)
    assert ran.code == 2
    assert_refused(ran, *words)
    assert ran.record is None


def test_missing_and_broken_spec_files(node: Path, tmp_path: Path) -> None:
    assert_refused(run_ftmb("trial", tmp_path / "none.yaml", "--out", tmp_path / "o"), "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("nf: {name: nat\n", encoding="utf-8")
    assert_refused(run_ftmb("trial", broken, "--out", tmp_path / "o"), "broken.yaml", "YAML")


def capture(path: Path, frames: list[bytes], cut: int = 0) -> Path:
    """Writes a pcap file with these frames by hand; `cut` bytes are missing at its end."""
    head = bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000")
    body = b"".join(
        b"".join(number.to_bytes(4, "little") for number in (i, 0, len(frame), len(frame))) + frame
        for i, frame in enumerate(frames)
    )
    whole = head + body
    path.write_bytes(whole[: len(whole) - cut])
    return path


def udp_frame(source_port: int) -> bytes:
    """A valid UDP packet of 60 bytes, Ethernet header included."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
        src="10.0.0.5", dst="192.0.2.9"
    )
    return bytes(packet / UDP(sport=source_port, dport=53) / (b"x" * 18))


@pytest.mark.parametrize("cut", [1, 30, 70], ids=["tail", "half a frame", "half a header"])
def test_truncated_capture(trial: RunFtmb, tmp_path: Path, cut: int) -> None:
    path = capture(tmp_path / "cut.pcap", [udp_frame(2000 + i) for i in range(3)], cut=cut)
    ran = trial(spec(traffic={"profile": str(path)}), timeout=60)
    assert_refused(ran, "cut.pcap", "truncated")


@pytest.mark.parametrize("content", [b"", b"no capture", bytes(24)], ids=["empty", "text", "zeros"])
def test_file_that_is_no_capture(trial: RunFtmb, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    assert_refused(trial(spec(traffic={"profile": str(path)}), timeout=60), "bad.pcap")


def test_malformed_frames_have_a_fate(trial: RunFtmb, tmp_path: Path) -> None:
    """Frames of a capture that lie about their lengths, among good ones: left out and counted.

    They could not be told from one another at the sink. What a function does with them is the
    unit tests' matter (native/tests/test_nf_nat.c: any bytes).
    """
    good = udp_frame(2000)
    wrong = bytearray(good)
    wrong[14] = 0x4F  # an IPv4 header of 60 bytes that is not there
    longer = bytearray(good)
    longer[16:18] = (1400).to_bytes(2, "big")  # total length beyond the frame
    frames = [good, bytes(wrong), bytes(longer), good[:20], udp_frame(2001)]
    path = capture(tmp_path / "odd.pcap", frames)
    tree = spec(traffic={"profile": str(path), "new_flows_per_s": 0, "reply_share": 0.0})
    ran = trial(tree | {"faults": [KILL]}, out="trial")
    assert ran.record is not None, ran.err
    counts = ran.record["packets"]
    assert counts["delivered"] > 0
    assert counts["lost"] == 0 and counts["duplicated"] == 0
    assert counts["accepted"] == counts["dropped_by_nf"] + counts["outputs_produced"]
    lines = (tmp_path / "trial" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    (traffic,) = [e for e in map(json.loads, lines) if e.get("role") == "traffic"]
    assert traffic["capture_skipped"] == 3
