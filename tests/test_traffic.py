"""Traffic profiles, templates made with scapy, and the capture of real traffic."""

from __future__ import annotations

import ipaddress
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftmb import spec, trial
from ftmb.errors import SpecError
from ftmb.traffic import profile
from ftmb.traffic.template import cycle

REAL = profile.PROFILES / "captures" / "real.pcap"


def frames(path: Path) -> Iterator[bytes]:
    """The frames of a little-endian pcap file."""
    data = path.read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1" and data[20:24] == b"\1\0\0\0"
    at = 24
    while at < len(data):
        kept, wire = struct.unpack("<II", data[at + 8 : at + 16])
        assert kept == wire
        yield data[at + 16 : at + 16 + kept]
        at += 16 + kept
    assert at == len(data)


def internet_sum(data: bytes) -> int:
    """0xffff if the checksum within `data` is right."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check_sums(frame: bytes) -> None:
    header = 4 * (frame[14] & 15)
    length = struct.unpack("!H", frame[16:18])[0]
    ip, body = frame[14 : 14 + header], frame[14 + header : 14 + length]
    assert internet_sum(ip) == 0xFFFF
    pseudo = b"" if ip[9] == 1 else ip[12:20] + struct.pack("!HH", ip[9], len(body))
    assert internet_sum(pseudo + body) == 0xFFFF


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_can_be_prepared(name: str, tmp_path: Path) -> None:
    """Sizes and protocols of the template are those of the profile, checksums are right."""
    prepared = profile.prepare(name, tmp_path, 1)
    assert set(prepared) == {"template", "capture", "inside"}
    assert bool(prepared["template"]) != bool(prepared["capture"])
    ipaddress.IPv4Network(prepared["inside"])
    wanted, _ = profile.load(name)
    if isinstance(wanted, profile.Capture):
        assert Path(prepared["capture"]).is_file()
        return
    protocols = {"icmp": 1, "tcp": 6, "udp": 17}
    made = list(frames(Path(prepared["template"])))
    assert [(len(f) + 4, f[23]) for f in made] == [
        (kind.size, protocols[kind.protocol]) for kind in cycle(wanted)
    ]
    for frame in made:
        check_sums(frame)


def test_the_issue_sizes_exist() -> None:
    assert {"udp64", "udp256", "udp512", "udp1500", "imix", "capture"} <= set(profile.names())


def test_imix_is_mixed_in_its_proportion() -> None:
    wanted, _ = profile.load("imix")
    assert isinstance(wanted, profile.Synthetic)
    sizes = [kind.size for kind in cycle(wanted)]
    assert sorted(sizes) == [64] * 7 + [594] * 4 + [1518]
    assert sizes != sorted(sizes)
    assert "xxxx" not in "".join("x" if size == 64 else "." for size in sizes)


def test_a_seed_fixes_the_bytes(tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        out.mkdir()
        made.append(Path(profile.prepare("mixed", out, seed)["template"]).read_bytes())
    assert made[0] == made[1] != made[2]


def test_own_profile_and_own_capture(tmp_path: Path) -> None:
    shutil.copy(REAL, tmp_path / "mine.pcap")
    assert profile.prepare(str(tmp_path / "mine.pcap"), tmp_path, 1) == {
        "template": "",
        "capture": str(tmp_path / "mine.pcap"),
        "inside": "10.0.0.0/8",
    }
    own = tmp_path / "own.yaml"
    own.write_text("kind: capture\nfile: mine.pcap\ninside: 192.168.0.0/16\n")
    prepared = profile.prepare(str(own), tmp_path, 1)
    assert (prepared["capture"], prepared["inside"]) == (
        str(tmp_path / "mine.pcap"),
        "192.168.0.0/16",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: synthetic\npackets: [{protocol: udp, size: 63}]", "at least 64"),
        ("kind: synthetic\npackets: [{protocol: tcp, size: 64}]", "at least 74"),
        ("kind: synthetic\npackets: [{protocol: udp, size: 9000}]", "1518"),
        ("kind: synthetic\npackets: []", "packets"),
        ("kind: synthetic\npackets: [{protocol: udp, size: 64}]\ncolour: 1", "colour"),
        ("kind: capture\nfile: x.pcap\ninside: ten", "inside"),
        ("kind: capture\nfile: nowhere.pcap", "nowhere.pcap"),
        ("kind: [", "not YAML"),
        ("kind: other", "other"),
    ],
)
def test_a_bad_profile_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        profile.prepare(str(path), tmp_path, 1)
    assert says in str(caught.value) and "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="udp64"):
        profile.prepare("udp65", tmp_path, 1)
    with pytest.raises(SpecError, match="no such file"):
        profile.prepare("./missing.pcap", tmp_path, 1)


def test_scapy_is_loaded_only_for_templates() -> None:
    code = "import sys, ftmb.traffic.profile; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_capture_has_nothing_to_fill(tmp_path: Path) -> None:
    tree = {"profile": "capture", "fill": True}
    with pytest.raises(SpecError, match=r"traffic\.fill: the profile capture replays a capture"):
        trial.packets(spec.parse({"traffic": tree}), tmp_path)
    assert trial.packets(spec.parse({"traffic": tree | {"profile": "udp64"}}), tmp_path)["template"]


def test_the_capture_is_what_it_says() -> None:
    """Under 1 MB, private addresses, whole frames, all protocols both ways, right checksums."""
    assert REAL.stat().st_size < 1_000_000
    seen = set()
    inside = ipaddress.IPv4Network("10.0.0.0/8")
    for frame in frames(REAL):
        assert 60 - 18 <= len(frame) <= 1514
        source, destination = (ipaddress.IPv4Address(frame[at : at + 4]) for at in (26, 30))
        assert source.is_private and destination.is_private
        assert (source in inside) != (destination in inside)
        check_sums(frame)
        seen.add((frame[23], source in inside))
    assert seen == {(protocol, way) for protocol in (1, 6, 17) for way in (True, False)}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_capture_can_be_made(tmp_path: Path) -> None:
    """The whole way: namespaces, programs, recording; nothing is left behind."""
    out = tmp_path / "new.pcap"
    command = [sys.executable, "-m", "ftmb.traffic.capture", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    protocols = [frame[23] for frame in frames(out)]
    assert len(protocols) > 300 and {1, 6, 17} == set(protocols)
    for frame in frames(out):
        check_sums(frame)
    assert [path.name for path in tmp_path.iterdir()] == ["new.pcap"]
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert "ftmb-" not in left.stdout


def test_a_capture_into_nowhere_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ftmb.traffic.capture", str(tmp_path / "no" / "x.pcap")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (2, 3) and done.stderr.startswith("ftmb: ")
    assert done.stderr.count("\n") == 1
