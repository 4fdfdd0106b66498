"""Trials whose roles stand on hosts of their own, in network namespaces, and strangers beside them.

So slow that all frames of a run fit the queue of one interface: nothing is lost between generator
and loggers, who have no way to send it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import namespaces as three
import pytest
import yaml
from conftest import FTMB, NODE, SPEC, Run, RunFtmb, one_line, processes_naming
from real_trials import KILL, failed_checks, sound, spec

from ftmb import doctor, node
from ftmb import spec as specs
from ftmb.describe import describe, nf_config
from ftmb.errors import SpecError
from ftmb.testbed import links, netns
from ftmb.testbed.namespaces import NAME, PLACE, Host

ETHER_TYPE = bytes.fromhex("88b5")
CRASH = {"testbed": "netns", "faults": [KILL], "ft": {"detect_ms": 1000},
         "traffic": {"rate_pps": 800, "flows": 100, "new_flows_per_s": 50}}  # fmt: skip
TOGETHER = {"processes": {"traffic": "gen", "il": "loggers", "ol": "loggers"}}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Skips where there are no namespaces; none of this process, or of one that the test started,
    may be left behind. (Others may have testbeds of their own just now.)"""
    if why := three.missing():
        pytest.skip(why)
    makers = [os.getpid()]

    class Maker(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            makers.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Maker)
    yield
    left = [place.name for pid in makers for place in PLACE.glob(f"ftmb-{pid}-*")]
    assert not left, "network namespaces were left behind"


# -- where what stands --------------------------------------------------------------------------


def _plan(tree: dict[str, Any]) -> node.Plan:
    return node.make_plan(specs.parse({"testbed": "netns"} | tree), [0, 1])


def test_hosts_and_the_links_between_them() -> None:
    apart = _plan({})
    assert links.hosts(apart) == ["gen", "il", "ol", "replica-0", "replica-1"]
    assert [(c.a, c.b, c.links) for c in links.cables(apart)] == [
        ("gen", "il", ("traffic-il",)), ("gen", "ol", ("traffic-ol",)),
        ("il", "replica-0", ("il-0",)), ("ol", "replica-0", ("ol-0",)),
        ("il", "replica-1", ("il-1",)), ("ol", "replica-1", ("ol-1",)),
    ]  # fmt: skip
    together = links.cables(_plan(TOGETHER))
    assert [c.links for c in together] == [
        ("traffic-il", "traffic-ol"), ("il-0", "ol-0"), ("il-1", "ol-1"),
    ]  # fmt: skip
    direct = _plan({"ft": {"mode": "direct"}})
    assert [c.links for c in links.cables(direct)] == [("il-0", "ol-0")]
    assert links.cables(_plan({"ft": {"mode": "floor"}})) == []


@pytest.mark.parametrize(
    ("tree", "word"),
    [
        ({"testbed": "moon"}, "testbed"),
        ({"testbed": "netns", "expect": ["poison"]}, "poison"),
        ({"testbed": "netns", "interfaces": {"inside": "a", "outside": "b"}}, "interfaces"),
    ],
)
def test_what_a_testbed_cannot_do_is_refused(tree: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        specs.parse(tree)


# -- node specs ---------------------------------------------------------------------------------


def _node_spec(tmp_path: Path, **hosts: Any) -> Path:
    """The node spec of a replica, with a section `hosts` as the testbed makes it, but for that."""
    checked = specs.parse({"testbed": "netns"})
    plan = node.make_plan(checked, [0, 1])
    nf = nf_config(describe(NODE), "nat", {})
    tree = node.replica_spec("r0", 0, checked, plan, nf, tmp_path, tmp_path)
    tree["lcores"] = [{"cpu": 0, "roles": ["worker:0", "worker:1"]}]
    tree["hosts"] = {
        "token": str(tmp_path / "token"),
        "trial": "0123456789ab",
        "control": {f"state-{slot}": f"tcp:10.97.0.{slot}:7001" for slot in (1, 2)},
        "trunks": [],
    } | hosts
    return node.write_spec(tree, tmp_path)


CONTROL = {"ol": "tcp:127.0.0.1:7", "state-0": "tcp:127.0.0.1:8", "state-1": "tcp:127.0.0.1:9"}
MAC = "02:00:00:00:00:01"


def _trunk(**changes: Any) -> dict[str, Any]:
    return {"interface": "d0", "driver": "af_packet", "links": {"il-0": MAC}} | changes


@pytest.mark.parametrize(
    ("hosts", "code", "word"),
    [
        ({}, 2, "control.ol"),
        ({"control": CONTROL | {"ol": "tcp:0.0.0.0:7"}}, 2, "control.ol"),
        ({"control": CONTROL | {"state-1": "unix:/x"}}, 2, "control.state-1"),
        ({"control": CONTROL | {"state-2": "tcp:127.0.0.1:9"}}, 2, "unknown key"),
        ({"control": CONTROL, "trial": "0123456789aB"}, 2, "hosts.trial"),
        ({"control": CONTROL, "trunks": [_trunk(driver="pcap")]}, 2, "trunks.driver"),
        ({"control": CONTROL, "trunks": [_trunk(links={"il-2": MAC})]}, 2, "does not exist"),
        ({"control": CONTROL, "trunks": [_trunk(links={"il-0": MAC[:-1]})]}, 2, "il-0"),
        ({"control": CONTROL, "trunks": [_trunk()] * 9}, 2, "at most 8"),
        ({"control": CONTROL}, 3, "token"),
    ],
)
def test_bad_node_specs_are_refused(
    node: Path, tmp_path: Path, hosts: dict[str, Any], code: int, word: str
) -> None:
    path = _node_spec(tmp_path, **hosts)
    done = subprocess.run([node, path], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert word in line


# -- trials -------------------------------------------------------------------------------------


class Strangers(threading.Thread):
    """As long as a trial lasts: frames to the input logger that are none of its, and connections
    to the output logger without the token."""

    def __init__(self, out: Path, trial: subprocess.Popen[str], seed: int) -> None:
        super().__init__()
        self._out, self._trial, self._random = out, trial, random.Random(seed)
        self.frames = self.knocks = 0

    def run(self) -> None:
        spec_path, place = self._out / "ol.json", PLACE / f"ftmb-{self._trial.pid}-gen"
        while self._trial.poll() is None and not spec_path.exists():
            threading.Event().wait(0.01)
        if self._trial.poll() is None:
            host = Host(place.name, place)
            try:
                host.inside(self._disturb)
            finally:
                host.close()

    def _disturb(self) -> None:
        gen = json.loads((self._out / "gen.json").read_text(encoding="utf-8"))["hosts"]
        mac = bytes.fromhex(gen["trunks"][0]["links"]["traffic-il"].replace(":", ""))
        _, address, port = gen["control"]["ol"].split(":")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((gen["trunks"][0]["interface"], 0))
            while self._trial.poll() is None and self.frames < 10_000:
                # The network goes away under us when the trial is over.
                with contextlib.suppress(OSError):
                    raw.send(self._frame(mac, bytes.fromhex(gen["trial"]), raw.getsockname()[4]))
                    self.frames += 1
                with contextlib.suppress(OSError):
                    self._knock(address, int(port))
                threading.Event().wait(0.01)

    def _frame(self, to: bytes, trial: bytes, own: bytes) -> bytes:
        """Nearly one of a role's: one thing about it is wrong, or all of it."""
        draw = self._random
        body = draw.randbytes(draw.randrange(200))
        wrong = draw.randrange(5)
        sender = draw.randbytes(6) if wrong == 0 else own
        kind = draw.randbytes(2) if wrong == 1 else ETHER_TYPE
        length = len(body) + 1 if wrong == 2 else len(body)
        link, queue = (1, 0x80) if wrong == 3 else (9, 0)
        head = to + sender + kind + struct.pack("<HBB", length, link, queue) + trial
        return draw.randbytes(60) if wrong == 4 else head + body

    def _knock(self, address: str, port: int) -> None:
        with socket.create_connection((address, port), 0.2) as stranger:
            stranger.send(self._random.randbytes(1 + self._random.randrange(80)))
            self.knocks += 1


def test_a_host_crashes_among_strangers(clean: None, node: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"strangers of seed {seed}")
    path, out = tmp_path / "spec.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(spec(**CRASH)), encoding="utf-8")
    with subprocess.Popen([FTMB, "trial", path, "--out", out], stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, text=True) as trial:  # fmt: skip
        strangers = Strangers(out, trial, seed)
        strangers.start()
        err = trial.communicate(timeout=120)[1]
        strangers.join()
    assert trial.returncode == 0, err
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert failed_checks(record) == []
    (recovery,) = record["recovery"]
    assert recovery["detect_kind"] == "silence"  # a dead host says nothing
    assert recovery["protected_again_ms"] is not None
    trunks = {s["process"]: s for s in record["stats"] if s["role"] == "trunks"}
    assert trunks["il"]["interfaces"]["data0"]["strange"] > 0 < strangers.frames
    assert trunks["ol"]["control_refused"] > 0 < strangers.knocks
    data0 = trunks["gen"]["interfaces"]["data0"]
    assert data0["sent"] + data0["lost_out"] == record["packets"]["offered"]
    assert not processes_naming(str(out))


def test_loggers_share_a_host_and_two_links_a_cable(clean: None, trial: RunFtmb) -> None:
    record = sound(trial, spec(**CRASH, **TOGETHER))
    assert len(record["recovery"]) == 1
    assert set(record["packets"]) >= {"lost"}
    trunks = {s["process"]: s["interfaces"] for s in record["stats"] if s["role"] == "trunks"}
    assert set(trunks["loggers"]) == {"data0", "data1", "data2"}


def test_without_root_one_line_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, record, err = run(SPEC | {"testbed": "netns"})
    assert (code, record) == (3, None)
    assert "run as root" in one_line(err)
    (found,) = [finding for finding in doctor.examine() if finding.name == "testbed netns"]
    assert (found.status, "only root" in found.found) == ("note", True)


def test_the_doctor_makes_hosts_and_takes_them_away(clean: None) -> None:
    (found,) = [finding for finding in doctor.examine() if finding.name == "testbed netns"]
    assert found.status == "ok", found


def test_names_of_hosts_are_names_of_namespaces() -> None:
    plan = _plan({"processes": {"traffic": "a_b", "il": "il_1", "ol": "ol"}})
    assert all(NAME.fullmatch(f"ftmb-1-{netns.namespace_name(h)}") for h in links.hosts(plan))
