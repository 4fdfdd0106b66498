"""`ftmb peers` without a network: spec, configurations, and the judging of what was seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import synthetic

from ftmb import cli, debian, environment, planned
from ftmb.errors import MachineError, SpecError
from ftmb.peers import configs, flows, judge, kernel, ours, places, record, run, spec
from ftmb.peers.spec import PeersSpec
from ftmb.record import Versions

SCHEMAS = Path(__file__).parents[1] / "ftmb" / "schemas"
CRASH_NS = 1_000


# -- judging --------------------------------------------------------------------------------------


def seen(flows: int, fill: int) -> judge.Seen:
    """So many flows, none of which came to harm: the fill, then new ones, half before the crash."""
    server = np.zeros(flows, judge.SERVER_FLOW)
    client = np.zeros(flows, judge.CLIENT_FLOW)
    server["first_ns"] = np.where(np.arange(flows) < (fill + flows) // 2, CRASH_NS - 1, CRASH_NS)
    for end in ("first", "last"):
        server[f"{end}_address"] = 7
        server[f"{end}_port"] = np.arange(flows)
    server["again"] = client["late"] = 1
    return judge.Seen(
        server=server, client=client, arrived=np.zeros(0, judge.ARRIVAL),
        returned=np.zeros(0, judge.ARRIVAL), astray=np.zeros(0, judge.ARRIVAL),
        sent={}, got={}, tcp={},
    )  # fmt: skip


def test_a_crash_without_harm() -> None:
    found = judge.mappings(seen(30, 10), 10, 1, CRASH_NS)
    assert (found.externalised, found.after, found.checked) == (10, 10, 20)
    harm = found.lost + found.moved + found.unknown + found.unreachable + found.misdelivered
    assert harm == 0


@pytest.mark.parametrize(
    ("flow", "counts"),
    [
        (3, {"lost": 1, "lost_new": 0, "after_changed": 1}),
        (13, {"lost": 1, "lost_new": 1, "after_changed": 1}),
        (25, {"lost": 0, "lost_new": 0, "after_changed": 1}),  # nobody had seen it before
    ],
)
def test_a_planted_lost_mapping_is_found(flow: int, counts: dict[str, int]) -> None:
    made = seen(30, 10)
    made.server["last_port"][flow] += 1
    made.server["changes"][flow] = 1
    found = judge.mappings(made, 10, 1, CRASH_NS).model_dump()
    assert {key: found[key] for key in counts} == counts


def test_another_address_is_another_mapping() -> None:
    made = seen(30, 10)
    made.server["last_address"][13] += 1
    assert judge.mappings(made, 10, 1, CRASH_NS).lost_new == 1


def test_a_mapping_that_came_back_was_moved_and_is_not_lost() -> None:
    made = seen(30, 10)
    made.server["changes"][13] = 2
    found = judge.mappings(made, 10, 1, CRASH_NS)
    assert (found.lost, found.moved) == (0, 1)


def test_a_flow_that_was_not_heard_again_is_neither_kept_nor_lost() -> None:
    made = seen(30, 10)
    made.server["again"][13] = 0
    made.server["last_port"][13] += 1
    found = judge.mappings(made, 10, 1, CRASH_NS)
    assert (found.lost, found.unknown) == (0, 1)


def test_of_the_fill_every_so_manieth_is_looked_at_and_all_new_ones() -> None:
    made = seen(30, 10)
    made.server["last_port"] += 1
    found = judge.mappings(made, 10, 4, CRASH_NS)
    assert (found.checked, found.lost, found.lost_new) == (13, 13, 10)


def test_a_planted_misdelivery_is_found() -> None:
    made = seen(30, 10)
    astray = np.zeros(3, judge.ARRIVAL)
    astray["kind"] = (judge.LATE, judge.LATE, judge.PUSH)
    astray["number"], astray["flow"] = (13, 13, 0), (2, 5, 2)
    made = judge.Seen(**{**made.__dict__, "astray": astray})
    made.client["late"][13] = 0
    found = judge.mappings(made, 10, 1, CRASH_NS)
    assert (found.misdelivered, found.astray, found.unreachable) == (1, 3, 1)


def _at(*ms: float) -> Any:
    return np.array([round(m * 1e6) for m in ms], dtype=np.uint64)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((7, 8, 9, 10, 60, 61, 62), (50.0, True)),  # it begins with the last one before
        ((7, 8, 9, 10, 11, 61, 62), (50.0, True)),
        ((7, 8, 9, 10), (53.0, False)),  # never back
        ((1, 9, 10, 14, 15, 40, 62), (25.0, True)),
    ],
)
def test_the_longest_silence(at: tuple[float, ...], expected: tuple[float, bool]) -> None:
    assert judge.gap(_at(*at), 10_500_000, 20_000_000, 63_000_000) == expected


def test_a_silence_that_begins_long_after_the_takeover_is_somebody_elses() -> None:
    at = _at(9, 12, 13, 30, *range(100, 800, 50), 2000)
    assert judge.gap(at, 10_500_000, 20_000_000, 2_001_000_000) == (70.0, True)


def test_a_stream_that_is_silent_when_it_is_stopped_is_not_back() -> None:
    at = (9, 12, 13, 30, *range(100, 800, 50))
    assert judge.gap(_at(*at), 10_500_000, 20_000_000, 2_001_000_000) == (70.0, False)
    again = _at(*at, 2002)  # the last ones come after the end was told
    assert judge.gap(again, 10_500_000, 20_000_000, 2_001_000_000) == (70.0, True)
    assert judge.gap(_at(), 10_500_000, 20_000_000, 63_000_000) == (52.5, False)


def test_the_floor_is_of_the_second_before() -> None:
    assert judge.floor(_at(1, 500, 900, 1400, 1402, 1407), 1_450_000_000) == 500.0
    assert judge.floor(_at(1), 2_000_000_000) is None


# -- spec -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tabel: 5\n", "tabel: unknown key (did you mean table?)"),
        ("arms: [stok]\n", "arms.0: Input should be"),
        ("arms: [safe, safe]\n", "arms: one is named twice"),
        ("crash_s: [3, 1]\n", "crash_s: 0.5 <= first"),
        ("arms: [ftmb]\nrelay_ms: 5\n", "relay_ms: none of ftmb sends"),
        ("table: 300000\naddresses: 2\n", "addresses: "),
        ("[1]\n", "a spec is a mapping of keys, not a list"),
        ("arms: [safe\n", "not valid YAML"),
    ],
)
def test_a_wrong_spec_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    assert cli.main(["peers", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("ftmb: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_words_of_the_command_line_change_keys(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("table: 1000\n", encoding="utf-8")
    checked = spec.load(path, ["table=2000", "arms=[safe, ftmb]", "crash_s=[1, 1.5]"])
    assert (checked.table, checked.arms, checked.crash_s) == (2000, ["safe", "ftmb"], (1, 1.5))
    with pytest.raises(SpecError, match="write it as key=value"):
        spec.load(path, ["table"])


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_the_runs_of_the_evaluation_are_right(root: Path, tier: str) -> None:
    runs = planned.plan(root / "config" / "peers.yaml", tier)
    assert "arms" in runs
    used = set()
    for each in runs.values():
        checked = spec.load(root / each.spec, each.assignments)
        # What the kernel takes unless it is told otherwise; the largest is left out then.
        assert checked.flows < 262_144 or each is runs["table-300k"]
        used.add(each.spec)
    there = {f"config/peers/{path.name}" for path in (root / "config" / "peers").glob("*.yaml")}
    assert used == there or tier == "quick"


def test_the_instants_are_those_of_every_arm_and_of_no_other_seed() -> None:
    one, two = PeersSpec(seed=1), PeersSpec(seed=2)
    assert run._instant(one, 3) == run._instant(one, 3)
    assert run._instant(one, 3) != run._instant(two, 3) != run._instant(two, 4)


@pytest.mark.parametrize("which", ["peers", "peers-record"])
def test_the_committed_schema_is_the_models(which: Any) -> None:
    committed = (SCHEMAS / f"{which}.schema.json").read_text(encoding="utf-8")
    assert committed == record.schema(which), f"run: ftmb schema {which} > {SCHEMAS.name}/..."
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


# -- the record -----------------------------------------------------------------------------------


def _crash(**changes: Any) -> record.CrashRecord:
    gap = judge.Gap(ms=1, restored=True, lost=0, floor_ms=None)
    made = record.CrashRecord(
        arm="safe", number=0, crash_s=1, happened_s=1, cut_ms=0, takeover_ms=1, commit_ms=None,
        switch_ms=None, entries_failed=None, outage=gap, outage_up=gap, outage_down=gap,
        mappings=judge.mappings(seen(30, 10), 10, 1, CRASH_NS),
        packets=judge.Packets(sent=1, arrived=1, returned=1),
        dropped={"client": 0, "server": 0, "relay": 0},
        tcp=record.Tcp(connections=0, survived=0, reset=0, stall_ms=None), scheduler="fifo",
        took_s=1,
    )  # fmt: skip
    return made.model_copy(update=changes)


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ({"client": 0, "server": 0, "relay": 7}, "arm safe, crash 0: the relay dropped 7"),
        ({"client": 3, "server": 0}, "arm safe, crash 0: the client dropped 3"),
        ({"client": 0, "server": 0, "relay": None}, "the relay did not tell what it dropped"),
    ],
)
def test_what_the_testbed_dropped_spoils_the_record(dropped: dict[str, Any], words: str) -> None:
    checked = PeersSpec(arms=["safe"], crashes=2)
    assert record.validity(checked, [_crash(), _crash()]) is True
    assert words in str(record.validity(checked, [_crash(), _crash(dropped=dropped)]))


def test_a_run_that_was_stopped_leaves_no_valid_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTMB_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(run, "refuse_left_overs", lambda: None)
    monkeypatch.setattr(run, "program", lambda: Path(sys.executable))
    monkeypatch.setattr(kernel, "check", lambda checked: None)
    checked = PeersSpec(arms=["safe", "nosync"], crashes=2)
    monkeypatch.setattr(record, "describe", lambda: None)
    monkeypatch.setattr(record, "node_path", lambda: None)
    versions = Versions.model_validate(synthetic.versions())
    monkeypatch.setattr(environment, "versions", lambda *words: versions)
    left: list[Any] = []

    def one(arm: str, checked: PeersSpec, number: int) -> record.CrashRecord:
        if len(left) == 3:
            raise KeyboardInterrupt
        left.append(arm)
        return _crash(arm=arm, number=number)

    monkeypatch.setattr(run, "one", one)
    with pytest.raises(KeyboardInterrupt):
        run.run(checked, tmp_path, 1, False)
    told = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert (told["valid"], len(told["crashes"])) == ("not finished: 3 of 4 crashes", 3)
    left.clear()
    monkeypatch.setattr(run, "one", lambda arm, checked, number: _crash(arm=arm, number=number))
    assert run.run(checked, tmp_path, 1, False).valid is True


def test_what_does_not_end_is_killed_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], text=True) as it:
        flows.end(it, "the sleeper", 0.01)
        assert it.returncode == -9  # waited for: no zombie is left
    assert capsys.readouterr().err == "ftmb: the sleeper did not end within 0.01 s and was killed\n"


# -- what the machine lacks -----------------------------------------------------------------------


def test_missing_daemons_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "which", lambda name: None if name == "conntrackd" else name)
    with pytest.raises(MachineError, match="conntrackd missing; `apt-get install conntrackd`"):
        kernel.check(PeersSpec(arms=["nosync", "safe", "ftmb"]))
    kernel.check(PeersSpec(arms=["ftmb"]))


def test_a_daemon_beyond_the_users_path_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def which(name: str, path: str | None = None) -> str | None:
        return f"/usr/sbin/{name}" if path else None

    monkeypatch.setattr(shutil, "which", which)
    most = tmp_path / "nf_conntrack_max"
    most.write_text("262144\n")
    monkeypatch.setattr(kernel, "MOST", most)
    kernel.check(PeersSpec(arms=["keepalived"]))
    assert debian.path("conntrackd") == "/usr/sbin/conntrackd"
    most.unlink()
    with pytest.raises(MachineError, match="`modprobe nf_conntrack`, or name fewer arms"):
        kernel.check(PeersSpec(arms=["keepalived"]))


def test_left_out_where_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debian, "which", lambda name: None)
    monkeypatch.setattr(run, "program", lambda: tmp_path)
    path = tmp_path / "spec.yaml"
    path.write_text("arms: [safe]\n", encoding="utf-8")
    words = ["peers", str(path), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 3
    assert cli.main([*words, "--leave-out"]) == 0
    left = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert "conntrackd" in left["left_out"]
    assert "left out: " in capsys.readouterr().out


# -- configurations -------------------------------------------------------------------------------


def test_the_nat_gives_random_ports_of_a_pool() -> None:
    assert "snat ip to 198.18.4.1:20000-60000 fully-random" in configs.nat(1)
    assert "snat ip to 198.18.4.1-198.18.4.3:20000-60000 fully-random" in configs.nat(3)


def test_the_cut_is_one_chain_on_all_cables() -> None:
    text = configs.cut_table(["port1", "port2", "port3"])
    assert text.count("hook ingress") == 1
    assert 'devices = { "port1", "port2", "port3" }' in text


def test_conntrackd_has_files_of_its_own_and_leaves_the_pool_in(tmp_path: Path) -> None:
    text = configs.conntrackd(tmp_path, *places.SYNC)
    assert text.count(str(tmp_path)) == 3
    assert "IPv4_address 192.168.255.1\n    IPv4_Destination_Address 192.168.255.2" in text
    assert places.outside(0) not in text  # else it would not copy a single mapping
    assert text.count("{") == text.count("}")


def test_keepalived_moves_both_sides_together(tmp_path: Path) -> None:
    text = configs.keepalived(150, 0.05, tmp_path / "master.sh")
    assert text.count("advert_int 0.05") == text.count("priority 150") == 2
    assert f"{places.INSIDE}/16 dev inside" in text and f"{places.OUTSIDE}/24 dev outside" in text
    assert text.count("{") == text.count("}")


def test_our_box_has_room_for_all_flows_and_the_same_pool() -> None:
    checked = PeersSpec(table=300_000)
    nf = ours.site(checked)["nf"]
    assert nf["capacity"] >= checked.flows and nf["addresses"] == checked.outside
    assert nf["outside"] == places.outside(0)
