"""`ftmb peers` with real daemons: one small crash of each kind of arm, and the long link alone."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import namespaces
import pytest

from ftmb import cli
from ftmb.errors import MachineError
from ftmb.peers import kernel
from ftmb.peers.flows import Relay
from ftmb.peers.spec import PeersSpec
from ftmb.testbed.namespaces import network

SMALL = """
table: 300
new_per_s: 300
known_per_s: 300
crash_s: [0.5, 0.5]
after_s: 0.5
"""


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Where the user may make no networks: the reason."""
    if why := namespaces.missing():
        pytest.skip(why)


def crashed(tmp_path: Path, arm: str, *words: str) -> dict[str, Any]:
    """The only crash of a record."""
    try:
        kernel.check(PeersSpec.model_validate({"arms": [arm]}))
    except MachineError as error:
        pytest.skip(str(error))
    path = tmp_path / "spec.yaml"
    path.write_text(SMALL + f"arms: [{arm}]\n", encoding="utf-8")
    sets = [word for value in words for word in ("--set", value)]
    assert cli.main(["peers", str(path), "--out", str(tmp_path), *sets]) == 0
    (crash,) = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["crashes"]
    assert crash["mappings"]["checked"] >= 300 and crash["packets"]["arrived"] > 0
    found: dict[str, Any] = crash
    return found


@pytest.mark.timeout(300)
def test_ftmb_keeps_every_mapping_and_every_connection(node: Path, tmp_path: Path) -> None:
    crash = crashed(tmp_path, "ftmb", "tcp=8")
    mappings = crash["mappings"]
    assert (mappings["lost"], mappings["astray"], mappings["after_changed"]) == (0, 0, 0)
    assert crash["tcp"]["survived"] == 8
    assert crash["outage"]["restored"] and crash["outage_down"]["restored"]


@pytest.mark.timeout(300)
def test_a_cold_backup_has_no_mapping(node: Path, tmp_path: Path) -> None:
    crash = crashed(tmp_path, "nosync", "tcp=0")
    mappings = crash["mappings"]
    # A port is the same by chance once in 40,001 flows.
    assert mappings["lost"] >= 0.9 * (mappings["checked"] - mappings["unknown"]) > 0
    assert crash["outage"]["restored"] and not crash["outage_down"]["restored"]
    assert crash["commit_ms"] is None


@pytest.mark.timeout(300)
def test_conntrackd_brings_mappings_over_a_long_link(node: Path, tmp_path: Path) -> None:
    crash = crashed(tmp_path, "safe", "tcp=4", "relay_ms=5")
    mappings = crash["mappings"]
    assert mappings["lost"] < 0.5 * mappings["checked"]
    assert crash["tcp"]["survived"] == 4
    assert crash["dropped"]["relay"] is not None
    assert crash["commit_ms"] > 0 and crash["outage_down"]["restored"]
    assert crash["outage"]["ms"] >= crash["commit_ms"]


@pytest.mark.timeout(300)
def test_keepalived_finds_out_and_takes_over(node: Path, tmp_path: Path) -> None:
    crash = crashed(tmp_path, "keepalived", "tcp=4", "advert_s=0.2")
    assert crash["outage"]["ms"] > 2 * 200  # three adverts, less what had passed of the first
    assert crash["commit_ms"] > 0 and crash["outage"]["restored"]
    assert crash["mappings"]["lost"] < 0.5 * crash["mappings"]["checked"]


def test_frames_leave_the_long_link_in_order_and_late(node: Path) -> None:
    delay_ms = 20
    with network() as net:
        a, middle, b = net.host("a"), net.host("relay"), net.host("b")
        net.cable(a, "wire", middle, "left")
        net.cable(b, "wire", middle, "right")
        for host, other, number in ((a, b, 1), (b, a, 2)):
            host.address("wire", f"192.0.2.{number}/24")
            host.neighbour("wire", f"192.0.2.{3 - number}", other.mac("wire"))
        relay = Relay(middle, delay_ms)
        ends = [host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                for host in (a, b)]  # fmt: skip
        ends[1].bind(("192.0.2.2", 7))
        ends[1].settimeout(20)
        sent = []
        for number in range(200):
            sent.append(time.monotonic())
            ends[0].sendto(number.to_bytes(4, "big"), ("192.0.2.2", 7))
        for number in range(200):
            data, _ = ends[1].recvfrom(16)
            assert int.from_bytes(data, "big") == number
            assert time.monotonic() - sent[number] >= delay_ms / 1000
        for end in ends:
            end.close()
        assert relay.close() is not None  # it tells what it dropped
