"""Trials with real processes: undisturbed, with the master killed, with bounds reached.

They prove function, not speed: loads are small, windows short. What each trial must show is in its
record; how the record is computed has unit tests of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import FTMB, NODE, ROOT, RunFtmb, gone, processes_naming
from real_trials import KILL, assert_exactly_once, failed_checks, sound, spec

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("nf", ["nat", "monitor"])
@pytest.mark.parametrize("mode", ["direct", "none", "ftmb"])
def test_undisturbed(trial: RunFtmb, nf: str, mode: str) -> None:
    record = sound(trial, spec(nf={"name": nf}, ft={"mode": mode}))
    assert_exactly_once(record)
    assert record["recovery"] is None
    assert record["latency_ns"]["count"] > 10_000
    assert record["packets"]["refused_before_log"] == 0
    if mode == "ftmb":
        assert record["snapshot"]["committed"] >= 3
        assert record["log"]["pals"] > 0
    else:
        assert record["snapshot"] is None


@pytest.mark.parametrize(
    ("nf", "ft"),
    [
        ("nat", {"snapshot": {"period_ms": 20}}),
        ("nat", {"snapshot": {"engine": "stop-copy", "period_ms": 100}}),
        ("nat", {"snapshot": {"engine": "fork"}}),
        ("monitor", {"snapshot": {"period_ms": 5}}),
        ("monitor", {"snapshot": {"engine": "page", "period_ms": 50}}),
        ("nat", {"reads": "locked", "pal_batch": False}),
        ("nat", {"release": "exact"}),
        ("monitor", {"snapshot": {"engine": "none"}}),
        ("monitor-pthread", {"snapshot": {"period_ms": 5}, "release": "exact"}),
        ("nat-pthread", {"snapshot": {"period_ms": 20}}),
    ],
    ids=[
        *("cow-20", "stop-copy", "fork", "cow-5", "page", "paper", "exact", "no-snapshots"),
        *("injected", "injected-nat"),
    ],
)
def test_master_killed(trial: RunFtmb, nf: str, ft: dict[str, Any]) -> None:
    record = sound(trial, spec(nf={"name": nf}, ft=ft, faults=[KILL]))
    assert_exactly_once(record)
    assert {"exactly_once", "equal_replay", "conservation", "outcome"} <= {
        check["name"] for check in record["checks"]
    }
    (recovery,) = record["recovery"]
    assert recovery["view"] is not None
    steps = [recovery[f"{step}_ms"] for step in ("detect", "fence", "cut", "replay", "resume")]
    assert all(step is not None and step >= 0 for step in steps), recovery
    assert recovery["total_ms"] == pytest.approx(sum(steps), abs=0.01)
    if record["spec"]["ft"]["snapshot"]["engine"] == "none":  # else a commit may just have come
        assert recovery["packets_replayed"] > 1000
    # The sink saw what the steps tell: a time in which nothing came out.
    assert recovery["outage_ms"] > 0


def test_alone_after_a_crash_full_logs_do_not_stop_traffic(trial: RunFtmb) -> None:
    """No backup is left, so nothing can be committed: logs that serve nobody are forgotten."""
    # 50,000 packets a second, a PAL or more each: these logs would be full after 0.7 s.
    tree = spec(
        duration_s=3.0,
        log={"input_mb": 2, "pals": 1 << 20, "outputs": 16384},
        faults=[dict(KILL, protect_again=False)],
    )
    record = sound(trial, tree)
    assert_exactly_once(record)
    assert record["recovery"][0]["protected_again_ms"] is None
    assert record["packets"]["refused_before_log"] == 0


def test_killed_twice(trial: RunFtmb) -> None:
    """The fresh backup that was started after the first crash survives the second."""
    # Between them a fresh process has to start and to receive a base.
    faults = [dict(KILL, at_s=0.4), dict(KILL, at_s=3.0)]
    record = sound(trial, spec(duration_s=3.5, faults=faults))
    assert_exactly_once(record)
    assert len(record["recovery"]) == 2
    assert record["recovery"][0]["protected_again_ms"] is not None
    views = [recovery["view"] for recovery in record["recovery"]]
    assert views[1] > views[0]


def test_links_that_lie_while_the_master_is_killed(trial: RunFtmb) -> None:
    lie = {"drop": 0.03, "repeat": 0.03, "reorder": 0.03, "delay": 0.01, "delay_us": 300}
    links = {"il": lie | {"garble": 0.03}, "ol": lie | {"garble": 0.03}, "state": lie}
    record = sound(trial, spec(links=links, faults=[KILL]))
    assert_exactly_once(record)
    by_process = {s["process"]: s["links"] for s in record["stats"] if s["role"] == "links"}
    (master,) = (s for s in record["stats"] if s.get("condition") == "active")
    slot = master["slot"]
    # Both ends of the last master's links received, and disturbed, much.
    for process, link in (("loggers", f"ol-{slot}"), (master["process"], f"il-{slot}")):
        counts = by_process[process][link]
        for what in ("dropped", "repeated", "reordered", "delayed", "garbled"):
            assert counts[f"fault_{what}"] > 0
    bad = [s["dropped_bad"] + s["dropped_old_view"] for s in record["stats"] if s["role"] == "ol"]
    assert bad[0] > 0


def test_random_crash_time_is_seeded(trial: RunFtmb) -> None:
    tree = spec(faults=[dict(KILL, at_s="random")])
    first = sound(trial, tree)["faults"][0]["at_s"]
    assert sound(trial, tree)["faults"][0]["at_s"] == first
    assert sound(trial, tree, "traffic.seed=8")["faults"][0]["at_s"] != first


def test_imix_under_a_crash(trial: RunFtmb) -> None:
    record = sound(trial, spec(traffic={"profile": "imix", "rate_pps": 20_000}, faults=[KILL]))
    assert_exactly_once(record)


def test_more_workers_than_cores(trial: RunFtmb) -> None:
    record = sound(trial, spec(workers=4, traffic={"rate_pps": 20_000}, faults=[KILL]))
    assert_exactly_once(record)


def test_full_log_refuses_and_loses_nothing(trial: RunFtmb) -> None:
    """Without snapshots the log fills: input is refused before it is logged, and counted."""
    tree = spec(
        ft={"snapshot": {"engine": "none"}}, log={"pals": 16384, "outputs": 16384}, faults=[]
    )
    ran = trial(tree)
    assert ran.record is not None, ran.err
    counts = ran.record["packets"]
    assert counts["refused_before_log"] > 0
    assert counts["accepted"] + counts["refused_before_log"] <= counts["offered"]
    assert [counts[k] for k in ("lost", "duplicated", "corrupted")] == [0, 0, 0]
    assert ran.record["log"]["full_events"] > 0
    log = ran.record["log"]
    assert log["output_log_peak_bytes"] <= log["output_log_capacity_bytes"]
    assert log["input_log_peak_bytes"] <= log["input_log_capacity_bytes"]


def test_exhausted_ports_drop_new_flows_and_count(trial: RunFtmb) -> None:
    """More flows than mappings: the NAT drops those and counts, FTMB loses nothing."""
    tree = spec(
        nf={"name": "nat", "addresses": 1, "capacity": 1000},
        traffic={"flows": 5_000, "new_flows_per_s": 0, "reply_share": 0.0},
        faults=[KILL],
    )
    record = sound(trial, tree)
    assert_exactly_once(record)
    assert record["nf"]["mappings"] <= record["nf"]["capacity"]
    assert 0 < record["nf"]["dropped_no_port"] <= record["packets"]["dropped_by_nf"]


def test_examples(trial: RunFtmb, root: Path) -> None:
    """The specs that the README names, at a fraction of their length."""
    for path in sorted((root / "config" / "examples").glob("*.yaml")):
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        tree |= {"duration_s": 0.8, "warmup_s": 0.2, "drain_s": 0.7}
        tree["faults"] = [dict(fault, at_s=0.4) for fault in tree.get("faults", [])]
        ran = trial(tree, out=path.stem)
        assert ran.record is not None, ran.err
        assert failed_checks(ran.record) == []


@contextlib.contextmanager
def running_trial(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long trial that has begun to move packets; gone afterwards, whatever the test does."""
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(spec(duration_s=60)), encoding="utf-8")
    child = subprocess.Popen(
        [FTMB, "trial", path, "--out", tmp_path / "long"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while len(children(child.pid)) < 3 and time.monotonic() < deadline:
            assert child.poll() is None, child.communicate()[1]
            time.sleep(0.05)
        assert len(children(child.pid)) >= 3
        time.sleep(2)
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=20)


def children(parent: int) -> list[int]:
    """The data-plane processes that `parent` started."""
    found = []
    for pid in processes_naming(str(NODE)):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(pid)
    return sorted(found)


def test_processes_that_share_cores_have_no_large_pages(trial: RunFtmb, tmp_path: Path) -> None:
    """A kernel thread that makes some may hold their memory maps for seconds."""
    sound(trial, spec(idle="yield"))
    lines = (tmp_path / "trial" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    ready = [event for event in map(json.loads, lines) if event["event"] == "ready"]
    assert ready and not any(event["large_pages"] for event in ready)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user(trial: RunFtmb, tmp_path: Path, number: int) -> None:
    with running_trial(tmp_path) as child:
        child.send_signal(number)
        _, err = child.communicate(timeout=20)
        assert child.returncode not in (0, None)
        assert "Traceback" not in err
        assert gone(str(NODE)) == {}


def test_trial_killed_leaves_nothing_and_the_next_one_runs(trial: RunFtmb, tmp_path: Path) -> None:
    """SIGKILL of `ftmb` itself, which can clean up nothing: its processes end by themselves."""
    with running_trial(tmp_path) as child:
        child.kill()
        child.wait(timeout=10)
        assert gone(str(NODE)) == {}
    assert_exactly_once(sound(trial, spec()))


def test_death_that_no_fault_named(trial: RunFtmb, tmp_path: Path) -> None:
    """A process that dies by itself is never taken for an injected fault."""
    with running_trial(tmp_path) as child:
        os.kill(children(child.pid)[0], signal.SIGKILL)
        _, err = child.communicate(timeout=90)
        assert child.returncode not in (0, None)
        assert "Traceback" not in err
        assert err.strip()
        assert gone(str(NODE)) == {}
