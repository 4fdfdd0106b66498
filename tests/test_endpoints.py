"""Real endpoints across a crash: the kernel's words are read right, and judged right."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import namespaces
import pandas as pd
import pytest
import synthetic_endpoints
import yaml
from conftest import FTMB
from pyroute2 import netns

from ftmb import cli, planned, report_endpoints
from ftmb.analysis import claims
from ftmb.analysis import endpoints as analysis
from ftmb.analysis.records import Results
from ftmb.endpoints import (
    client,
    judge,
    programs,
    record,
    run,
    spec,
    tcp,
)
from ftmb.errors import MachineError, SpecError

MS = 1_000_000
BULK: dict[str, Any] = {"workloads": [{"kind": "iperf3", "mbps": 5}]}


# -- what the kernel says ------------------------------------------------------------------------


def test_tcp_info_as_getsockopt_tells_it() -> None:
    """Of a real connection: what was sent is what is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        ours.sendall(b"x" * 5000)
        while len(theirs.recv(5000, socket.MSG_PEEK)) < 5000:
            pass
        told = tcp.parse_info(theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 300))
        port, peer = ours.getsockname()[1], server.getsockname()[1]
        (found,) = (s for s in tcp.Connections().look() if s.sport == peer and s.dport == port)
        ours.close()
        theirs.close()
    assert (told["state"], told["received"], told["retrans"]) == (tcp.ESTABLISHED, 5000, 0)
    assert (found.state, found.received, found.ssthresh) == (1, 5000, judge.NO_THRESHOLD)


def test_tcp_info_field_by_field() -> None:
    info = bytearray(280)
    info[0:2] = bytes([1, tcp.LOSS])
    info[4] = 3  # backoff
    for at, value in ((68, 777), (76, 20), (80, 10), (100, 42)):
        struct.pack_into("=I", info, at, value)
    struct.pack_into("=QQ", info, 120, 1 << 40, 9)
    struct.pack_into("=H", info, 240, 7)
    told = tcp.parse_info(bytes(info))
    assert told == {"state": 1, "ca_state": 4, "backoff": 3, "unacked": 0, "rtt_us": 777,
                    "ssthresh": 20, "cwnd": 10, "retrans": 42, "acked": 1 << 40, "received": 9,
                    "rtos": 7}  # fmt: skip
    assert tcp.parse_info(bytes(info[:232]))["rtos"] == -1  # an older kernel
    with pytest.raises(ValueError, match="100 bytes"):
        tcp.parse_info(bytes(info[:100]))


def test_an_error_of_the_kernel_is_one() -> None:
    answer = tcp.HEADER.pack(20, tcp.NLMSG_ERROR, 0, 1, 0) + struct.pack("=i", -22)
    with pytest.raises(OSError, match="sock_diag"):
        tcp.parse_answer(answer)


COUNTERS = (
    "TcpExt: TCPTimeouts TCPSackRecoveryFail TCPRenoRecoveryFail TCPLossFailures TCPSackFailures "
    "TCPRenoFailures TCPDSACKRecv TCPDSACKOfoRecv TCPSynRetrans TCPSackRecovery\n"
    "TcpExt: 3 4 0 0 0 0 5 1 0 9\n"
)


def test_counters_are_those_with_their_names() -> None:
    told = dict(zip(tcp.COUNTERS, tcp.counters(COUNTERS), strict=True))
    assert (told["timeouts"], told["duplicates_told"], told["syn_retransmits"]) == (7, 6, 0)
    assert told["probes"] is told["fast_recoveries"] is None  # not there, or not all of it
    for wrong in ("A: x\nB: 1\n", "A: x y\nA: 1\n", "A: x\n"):
        with pytest.raises(ValueError):
            tcp.counters(wrong)


# -- judging -------------------------------------------------------------------------------------

KILL = 2_000 * MS
END = 4_000 * MS
LOOKS = pd.DataFrame({"t_ns": [ms * MS for ms in range(0, 5000, 20)]})


def _connection(
    port: int, stop_ms: int = 10_000, gap: tuple[int, int] = (0, 0), **late: int
) -> pd.DataFrame:
    """A connection looked at every 20 ms. gap: no progress from, to; stop_ms: it is gone.
    late: columns that are so for 200 ms from 100 ms after the kill."""
    rows = []
    acked = 0
    for ms in range(0, min(stop_ms, 5000), 20):
        acked += 0 if gap[0] <= ms < gap[1] else 1000
        row = {"t_ns": ms * MS, "sport": port, "dport": 5201, "state": 1, "ca_state": 0,
               "backoff": 0, "cwnd": 50, "ssthresh": 40, "unacked": 5, "retrans": 0, "rtos": 0,
               "acked": acked, "received": 0, "rtt_us": 100}  # fmt: skip
        row |= late if 2100 <= ms < 2300 else {}
        if ms >= 2300:
            row |= {k: v for k, v in late.items() if k in ("retrans", "rtos")}
        rows.append(row)
    return pd.DataFrame(rows)


def _judged(*parts: pd.DataFrame) -> record.Connections:
    samples = pd.concat(parts).sort_values("t_ns", kind="stable")
    return judge.connections(samples, KILL, END, judge.last_look(LOOKS, END))


def test_a_crash_that_nobody_notices() -> None:
    told = _judged(_connection(1), _connection(2, gap=(2000, 2060)))
    assert (told.at_work, told.lost, told.collapsed, told.reduced, told.timeouts) == (2, 0, 0, 0, 0)
    assert told.longest_gap_ms == 80.0
    assert told.median_gap_ms == 50.0


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"stop_ms": 2500}, {"lost": 1}),
        ({"gap": (2000, 9000)}, {"lost": 1}),
        ({"rtos": 1}, {"collapsed": 1, "timeouts": 1}),
        ({"ca_state": tcp.LOSS}, {"collapsed": 1, "timeouts": 0}),
        ({"cwnd": 35}, {"reduced": 1, "collapsed": 0}),
        ({"ssthresh": 28}, {"threshold_cut": 1, "collapsed": 0}),
        ({"retrans": 9}, {"retransmitted": 9, "collapsed": 0}),
    ],
)
def test_what_is_planted_is_found(planted: dict[str, Any], expected: dict[str, int]) -> None:
    told = _judged(_connection(1), _connection(2, **planted)).model_dump()
    assert {key: told[key] for key in expected} == expected


def test_one_that_was_idle_or_came_later_is_not_judged() -> None:
    later = _connection(2)
    later = later[later["t_ns"] > KILL]
    assert _judged(_connection(1, gap=(0, 1990)), later, _connection(3)).at_work == 1


def test_all_that_vanish_together_are_lost() -> None:
    told = _judged(_connection(1, stop_ms=2500), _connection(2, stop_ms=2500))
    assert (told.at_work, told.lost) == (2, 2)


def test_a_counter_that_a_kernel_lacks_has_not_grown_by_nothing() -> None:
    table = pd.DataFrame({"t_ns": [0, 10]} | {name: [1, 2] for name in tcp.COUNTERS})
    table["probes"] = float("nan")
    told = judge.deltas(table, 0, 10)
    assert (told["timeouts"], told["probes"]) == (1, None)


def test_counters_between_two_moments() -> None:
    table = pd.DataFrame({"t_ns": [0, 10, 20, 30]} | {name: [1, 2, 4, 8] for name in tcp.COUNTERS})
    assert judge.deltas(table, 10, 20)["timeouts"] == 2
    assert judge.deltas(table, 12, 18)["timeouts"] == 2  # the last before, the first after
    with pytest.raises(ValueError, match="not looked at"):
        judge.deltas(table, 12, 35)


def test_what_was_asked_for_in_a_window_and_outside() -> None:
    noted = pd.DataFrame(
        [(0, 5 * MS, "ok"), (95 * MS, 130 * MS, "ok"), (120 * MS, 999 * MS, "no answer"),
         (500 * MS, 501 * MS, "no answer"), (600 * MS, 602 * MS, "ok")],
        columns=["due_ns", "done_ns", "outcome"],
    )  # fmt: skip
    told = judge.asked(noted, [(100 * MS, 300 * MS)], 1000)
    assert (told.count, told.failed, told.in_windows, told.failed_in_windows) == (5, 2, 2, 1)
    assert told.errors == {"no answer": 2}
    assert told.ms_in_windows is not None and told.ms is not None
    # What went wrong took as long as a client waits, and is not left out of what was slow.
    assert (told.ms_in_windows["100"], told.ms["100"], told.ms["50"]) == (1000.0, 1000.0, 35.0)


def test_the_timeline_shows_the_gap() -> None:
    line = judge.timeline(_connection(1, gap=(2000, 2100)), [KILL])
    by_ms = dict(zip(line.ms, line.mbps["p50"], strict=True))
    assert by_ms[-100.0] == 0.4  # 1000 bytes in 20 ms
    assert [by_ms[float(ms)] for ms in range(0, 120, 20)] == [0, 0, 0, 0, 0, 0.4]


def test_metrics_subtract_the_control_and_count_every_loss(tmp_path: Path) -> None:
    made = synthetic_endpoints.record("mixed", "ftmb", timeouts=[2] * 30, lost=1, reduced=4)
    made["crashes"][0]["counters"]["syn_retransmits"] = 1  # the same timeout
    made["broken"]["iperf3"], made["asked"]["pages"]["failed"] = 1, 3
    synthetic_endpoints.write(tmp_path, "mixed-ftmb", made)
    control = synthetic_endpoints.record("mixed", "control", timeouts=[0, 1] * 30, reduced=1)
    synthetic_endpoints.write(tmp_path, "mixed-control", control)
    results = Results(tmp_path, [])
    (beyond,) = analysis.endpoints_collapsed(results)
    assert (beyond.value, beyond.n, beyond.label) == (2 - 1 / 2, 30, "mixed-ftmb")
    assert beyond.low is not None and beyond.high is not None
    assert 0.5 < beyond.low < 1.5 < beyond.high < 2.5
    assert "timeouts 60 against 30; windows below 0.8 120 against 60" in beyond.note
    (harmed,) = analysis.endpoints_harmed(results)
    assert harmed.value == 30 + 1 + 3
    synthetic_endpoints.write(tmp_path, "mixed-control", {"left_out": "no root"})
    assert analysis.endpoints_collapsed(results) == []
    control["valid"] = "too few"
    synthetic_endpoints.write(tmp_path, "mixed-ftmb", control)
    assert analysis.endpoints_harmed(results) == []


def test_a_kernel_that_does_not_count_timeouts_judges_nothing(tmp_path: Path) -> None:
    made = synthetic_endpoints.record("bulk", "ftmb", timeouts=[None] * 30)
    synthetic_endpoints.write(tmp_path, "bulk-ftmb", made)
    synthetic_endpoints.write(
        tmp_path, "bulk-control", synthetic_endpoints.record("bulk", "control")
    )
    assert analysis.endpoints_collapsed(Results(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("ours", "without", "verdict"),
    [
        ([0] * 100, [0] * 100, claims.HOLDS),
        ([1] * 100, [0] * 100, claims.FAILS),
        ([3] * 100, [3] * 100, claims.OPEN),  # so much by itself, that nothing can be told
        ([30] + [0] * 99, [0] * 100, claims.OPEN),  # thirty at once are one event
        ([0] * 99, [0] * 99, claims.OPEN),
    ],
)
def test_the_verdict_is_that_of_the_whole_interval(
    tmp_path: Path, root: Path, ours: list[int], without: list[int], verdict: str
) -> None:
    for kind in ("bulk", "mixed", "firewall"):
        for arm, counts in (("ftmb", ours), ("control", without)):
            made = synthetic_endpoints.record(kind, arm, timeouts=counts)
            synthetic_endpoints.write(tmp_path, f"{kind}-{arm}", made)
    (claim,) = (c for c in claims.load(root / "config" / "claims.yaml")
                if c.id == "endpoints-congestion")  # fmt: skip
    assert claims.judge(claim, Results(tmp_path, [])).verdict == verdict


def test_the_tables_say_what_went_wrong(tmp_path: Path) -> None:
    results = Results(tmp_path, [])
    assert "not made: make trials OF=endpoints" in report_endpoints.survival(results).rows[0][0]
    made = synthetic_endpoints.record("mixed", "ftmb", lost=1)
    made["asked"]["pages"]["failed"] = 7
    synthetic_endpoints.write(tmp_path, "mixed-ftmb", made)
    (row,) = report_endpoints.survival(results).rows
    assert list(row[:5]) == ["mixed-ftmb", "FTMB", "30", "30 of 960", "7 of 1,000"]


# -- specs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, "workloads"),
        ({"workloads": []}, "workloads"),
        (BULK | {"arm": "warm"}, "arm"),
        (BULK | {"kils": 3}, "kils: unknown key"),
        (BULK | {"kills": 11, "every_s": 6}, "gives up when more than 10"),
        (BULK | {"judge_s": 8}, "the next kill comes before"),
        (BULK | {"kills": 1000, "every_s": 60}, "more than 3600 s"),
        ({"workloads": [{"kind": "ftp"}]}, "workloads.0"),
        ({"workloads": [{"kind": "iperf3", "connections": 0}]}, "connections"),
        ({"workloads": [{"kind": "dns"}, {"kind": "dns"}]}, "each kind once"),
    ],
)
def test_a_wrong_spec_is_one_line(tmp_path: Path, tree: dict[str, Any], words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(SpecError, match=words) as told:
        spec.load(path, [])
    assert "\n" not in str(told.value)


def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, root: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *words, **options: None)
    with pytest.raises(MachineError, match="no iperf3 here; `apt-get install iperf3`"):
        spec.require(spec.EndpointsSpec.model_validate(BULK))
    words = ["endpoints", str(root / "config" / "endpoints" / "mixed.yaml"), "--out"]
    assert cli.main([*words, str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "apt-get install dnsmasq-base nginx-light" in said
    assert cli.main([*words, str(tmp_path / "out"), "--leave-out"]) == 0
    assert "left_out" in (tmp_path / "out" / "record.json").read_text()


def test_every_planned_run_has_a_spec_that_is_right(root: Path) -> None:
    for tier in ("quick", "full"):
        runs = planned.plan(root / "config" / "endpoints.yaml", tier)
        checked = {name: spec.load(root / p.spec, p.assignments) for name, p in runs.items()}
        assert all(name.endswith(wanted.arm) for name, wanted in checked.items())
    assert {"bulk-ftmb", "bulk-control", "bulk-cold", "mixed-ftmb"} <= set(checked)
    for name in ("bulk", "mixed", "firewall"):
        ours, without = checked[f"{name}-ftmb"], checked[f"{name}-control"]
        assert ours.kills == 100
        assert ours.model_copy(update={"arm": "control"}) == without  # nothing else differs


def test_kills_come_at_seeded_instants_one_in_each_stretch() -> None:
    wanted = spec.EndpointsSpec.model_validate(BULK | {"kills": 50, "every_s": 7, "seed": 7})
    at = run.instants(wanted)
    assert at == run.instants(wanted) != run.instants(wanted.model_copy(update={"seed": 8}))
    assert [int(t // 7) for t in at] == list(range(50))


def test_a_question_is_a_dns_message() -> None:
    asked = client.question(0x1234, "www.example.test")
    assert asked == bytes.fromhex("123401000001000000000000") + b"\3www\7example\4test\0\0\1\0\1"


# -- the whole -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_master_is_killed_under_iperf3_and_dns(tmp_path: Path, root: Path, node: Path) -> None:
    """Real programs, a real kill, a record. How long it takes is not judged here."""
    if why := namespaces.missing():
        pytest.skip(why)
    if absent := programs.missing(["iperf3", "dns"]):
        pytest.skip(f"not installed: {', '.join(package for _, package in absent)}")
    file = tmp_path / "spec.yaml"
    loads = [{"kind": "iperf3", "mbps": 4}, {"kind": "dns", "per_s": 20}]
    file.write_text(yaml.safe_dump({"workloads": loads, "kills": 1, "every_s": 1.5, "judge_s": 1,
                                    "warmup_s": 1}))  # fmt: skip
    words = [FTMB, "endpoints", file, "--out", tmp_path / "out"]
    before = set(netns.listnetns())
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "1 kills" in done.stdout
    made = record.read(tmp_path / "out" / "record.json")
    assert made.failovers >= 1 and made.broken == {"iperf3": 0, "dns": 0}
    assert made.crashes[0].ready_again_ms is not None and made.crashes[0].counters["sent"] > 0
    assert made.asked["dns"].count > made.asked["dns"].failed
    assert (tmp_path / "out" / "client.connections.csv.gz").is_file()
    assert {name for name in netns.listnetns() if name not in before} == set()
