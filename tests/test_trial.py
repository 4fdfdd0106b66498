"""A whole trial against a stand-in for the data plane: order, faults, deaths, cleaning up."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from conftest import CRASH, FAKE, SPEC, Run, one_line, running

from ftmb import events, filling, fleet, lock, record
from ftmb.errors import MachineError

pytestmark = pytest.mark.usefixtures("alone")


def test_a_normal_run_writes_a_valid_record(run: Run, tmp_path: Path) -> None:
    code, result, err = run(SPEC)
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    assert err == ""
    assert result["packets"]["delivered"] == result["packets"]["outputs_produced"] == 1000
    assert result["throughput_pps"] == pytest.approx(900 / 0.4)
    assert {check["verdict"] for check in result["checks"]} == {"pass"}
    assert result["recovery"] is None
    assert result["spec"]["nf"] == {"name": "monitor", "shared": 1}
    assert result["spec"]["traffic"]["profile"] == "udp64"
    assert result["setup"]["protected_ms"] > 0
    assert result["environment"]["scheduler"] == "other"
    assert result["versions"]["node"] == "fake"
    jsonschema.validate(result, json.loads(record.schema("record")))
    log = events.read(tmp_path / "out" / "events.jsonl")
    assert [e.t_ns for e in log] == sorted(e.t_ns for e in log)
    order = [
        e.name for e in log if e.name in ("protected", "window_start", "window_end", "drained")
    ]
    assert order == ["protected", "window_start", "window_end", "drained"]
    spawned = [e.process for e in log if e.name == "spawn"]
    assert spawned == ["r0", "r1", "loggers"]


FILLED = SPEC | {"traffic": {"flows": 1000, "fill": True, "fill_pps": 10_000}}


def test_the_fill_comes_before_the_warm_up(run: Run, tmp_path: Path) -> None:
    code, result, err = run(FILLED)
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    assert result["fill"] == {"flows": 1000, "delivered": 1000, "took_s": 0.003}
    assert result["state_bytes"] == 1 << 20
    told = [e.name for e in events.read(tmp_path / "out" / "events.jsonl")]
    assert told.index("protected") < told.index("filled") < told.index("window_start")
    _, result, _ = run(SPEC)
    assert result is not None
    assert result["fill"] is None


def test_a_function_without_room_for_the_fill(run: Run) -> None:
    code, result, err = run(FILLED, {"loggers": "no-room"})
    assert code == 4
    assert result is None
    assert "of 1000 flows sent in the fill (traffic.fill) 7 came through" in one_line(err)
    assert "has monitor room for them?" in one_line(err)


def test_what_was_filled_in_is_committed_before_the_warm_up(run: Run, tmp_path: Path) -> None:
    code, _, err = run(FILLED)
    assert code == 0, err
    names = [event.name for event in events.read(tmp_path / "out" / "events.jsonl")]
    between = names[names.index("filled") : names.index("window_start")]
    assert {"snapshot", "commit"} <= set(between)
    code, _, err = run(FILLED, {"r0": "never-prepared"}, "--set", "setup_timeout_s=2")
    assert code == 4
    assert "no snapshot of what was filled in was committed within 2 s" in one_line(err)


def test_a_fill_that_says_nothing_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SILENCE_S", 0.05)
    code, _, err = run(FILLED, None, "--set", "traffic.fill_pps=1000")
    assert code == 4
    assert "the fill told no progress for 0.05 s" in one_line(err)


def test_a_crash_is_survived_and_taken_apart(run: Run) -> None:
    code, result, err = run(CRASH)
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    (fault,) = result["faults"]
    start = result["window"]["start_ns"]
    assert 0.1 <= (fault["t0_ns"] - start) / 1e9 < 0.2
    assert (fault["process"], fault["slot"]) == ("r0", 0)
    (entry,) = result["recovery"]
    phases = ("detect_ms", "fence_ms", "cut_ms", "replay_ms", "resume_ms")
    assert sum(entry[p] for p in phases) == pytest.approx(entry["total_ms"])
    assert entry["detect_ms"] >= 0
    assert entry["packets_replayed"] == 70
    assert entry["outage_ms"] > 0
    assert {c["name"]: c["verdict"] for c in result["checks"]}["outcome"] == "pass"


def test_a_fresh_replica_takes_the_dead_slot(run: Run, tmp_path: Path) -> None:
    run(CRASH)
    log = events.read(tmp_path / "out" / "events.jsonl")
    fresh = json.loads((tmp_path / "out" / "r0-2.json").read_text(encoding="utf-8"))
    assert fresh["slot"] == 0
    resumed = next(e.t_ns for e in log if e.name == "resumed")
    spawn = next(e.t_ns for e in log if e.name == "spawn" and e.process == "r0-2")
    assert spawn > resumed, "starting it must not cost the recovery any time"
    assert any(e.name == "stats" and e.process == "r0-2" for e in log)


def test_no_fresh_replica_if_told_so(run: Run, tmp_path: Path) -> None:
    code, _, _ = run(CRASH, None, "--set", "faults.0.protect_again=false")
    assert code == 0
    log = events.read(tmp_path / "out" / "events.jsonl")
    assert [e.process for e in log if e.name == "spawn"] == ["r0", "r1", "loggers"]


def test_a_failover_that_does_not_end_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "RESUME_S", 0.2)
    code, result, _ = run(CRASH, {"loggers": "no-resume"})
    assert code == 0
    assert result is not None
    assert "a failover did not end" in result["valid"]
    assert {c["name"]: c["verdict"] for c in result["checks"]}["outcome"] == "fail"
    assert result["recovery"][0]["total_ms"] is None


def test_a_second_kill_without_a_master_is_reported_not_done(run: Run) -> None:
    twice = [{"at_s": 0.1}, {"at_s": 0.1}]
    code, result, err = run(SPEC | {"faults": twice})
    assert code == 0
    assert result is not None
    assert "did not happen: no master was alive" in result["valid"]
    assert "not valid" in one_line(err)


def test_an_unexpected_death_invalidates_and_names_the_cause(run: Run) -> None:
    code, result, err = run(SPEC, {"loggers": "die-in-window"})
    assert code == 4
    assert result is not None
    assert "process loggers died that no fault named" in result["valid"]
    assert "exit code 4, protocol" in result["valid"]
    assert "divergence in replay: worker 1" in result["valid"]
    assert result["packets"] is None
    assert {c["name"]: c["verdict"] for c in result["checks"]}["loud_failures"] == "fail"
    assert "divergence in replay: worker 1; see" in one_line(err)


@pytest.mark.parametrize(
    ("misbehave", "code", "words"),
    [
        ({"r0": "bad-setup"}, 3, ["process r0", "no huge pages: run `echo 64"]),
        ({"r1": "segfault"}, 4, ["process r1 died during set-up", "SIGSEGV"]),
    ],
)
def test_a_death_in_set_up_ends_the_trial(
    run: Run, misbehave: dict[str, str], code: int, words: list[str]
) -> None:
    got, result, err = run(SPEC, misbehave)
    assert got == code
    assert result is None
    for word in words:
        assert word in one_line(err)


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        ({"r1": "never-ready"}, "not ready within 1 s (setup_timeout_s): r1"),
        ({"loggers": "never-protected"}, "no base was committed within 1 s"),
    ],
)
def test_waiting_has_an_end(run: Run, misbehave: dict[str, str], words: str) -> None:
    code, result, err = run(SPEC, misbehave, "--set", "setup_timeout_s=1")
    assert code == 4
    assert result is None
    assert words in one_line(err)


def test_a_process_that_ignores_finish_is_ended_and_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "FINISH_S", 0.5)
    code, result, _ = run(SPEC, {"r1": "ignore-finish"})
    assert code == 0
    assert result is not None
    assert "did not stop within 0.5 s of `finish`: r1" in result["valid"]


def test_a_lost_packet_is_a_failed_check_in_a_valid_record(run: Run) -> None:
    code, result, _ = run(SPEC, {"loggers": "lose-one"})
    assert code == 0
    assert result is not None
    assert result["valid"] is True
    assert {c["name"] for c in result["checks"] if c["verdict"] == "fail"} == {"exactly_once"}


def test_strict_ends_with_a_code_of_its_own(run: Run) -> None:
    code, _, err = run(SPEC, {"loggers": "lose-one"}, "--strict")
    assert code == 5
    assert "check exactly_once failed: 1000 outputs, 999 delivered, 1 lost" in one_line(err)
    assert run(SPEC, None, "--strict")[0] == 0


@pytest.mark.parametrize(("kind", "words"), [("no-samples", "no latency"), ("late", "was late")])
def test_a_bad_measurement_is_not_valid(run: Run, kind: str, words: str) -> None:
    code, result, _ = run(SPEC, {"loggers": kind})
    assert code == 0
    assert result is not None
    assert words in result["valid"]


def test_lines_that_are_no_events_are_kept_aside(run: Run, tmp_path: Path) -> None:
    code, result, _ = run(SPEC, {"r0": "chatty"})
    assert code == 0
    assert result is not None
    assert result["valid"] is True
    assert "a library talks" in (tmp_path / "out" / "r0.stdout").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["none", "direct"])
def test_the_modes_without_a_backup(run: Run, mode: str) -> None:
    code, result, err = run(SPEC | {"ft": {"mode": mode}})
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    assert result["snapshot"] is result["log"] is None
    names = {check["name"] for check in result["checks"]}
    assert names == {"loud_failures", "exactly_once", "order", "corrupted", "conservation",
                     "monitor.sums"}  # fmt: skip


def test_the_floor_is_the_generator_alone(run: Run, tmp_path: Path) -> None:
    code, result, err = run(SPEC | {"ft": {"mode": "floor"}})
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    log = events.read(tmp_path / "out" / "events.jsonl")
    assert [e.process for e in log if e.name == "spawn"] == ["traffic"]
    assert result["packets"]["outputs_produced"] == 1000


def test_more_workers_than_the_build_has(run: Run) -> None:
    code, result, err = run(SPEC | {"workers": 9})
    assert (code, result) == (2, None)
    assert "maximum of 8" in one_line(err)


def test_an_unknown_key_starts_nothing(run: Run, tmp_path: Path) -> None:
    code, result, err = run(SPEC | {"wrokers": 2})
    assert (code, result) == (2, None)
    assert "did you mean workers?" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_an_earlier_record_does_not_survive_a_failed_trial(run: Run) -> None:
    assert run(SPEC)[1] is not None
    code, result, _ = run(SPEC, {"r0": "bad-setup"})
    assert (code, result) == (3, None)


def test_a_missing_data_plane_names_the_remedy(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FTMB_NODE", str(tmp_path / "absent"))
    code, _, err = run(SPEC)
    assert code == 3
    assert "make build" in one_line(err)


def test_a_cpu_that_is_not_there(run: Run) -> None:
    there = {"traffic": 0, "il": 0, "ol": 0, "workers": [0, 4095]}
    code, _, err = run(SPEC | {"placement": there})
    assert code == 3
    assert "CPU 4095 is not available" in one_line(err)


def test_a_held_lock_names_its_holder(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711\n")
        other.flush()
        assert lock.holder() == 4711
        code, result, err = run(SPEC)
    assert (code, result) == (3, None)
    assert "another trial is running on this machine (pid 4711" in one_line(err)
    assert lock.holder() is None


def test_a_middlebox_holds_the_lock(alone: None) -> None:
    with lock.machine_lock(0, shared=True), lock.machine_lock(0, shared=True):
        assert lock.holder() == os.getpid()
        with pytest.raises(MachineError, match=f"pid {os.getpid()} holds"), lock.machine_lock(0):
            pass
    assert lock.holder() is None


def test_a_lock_file_of_a_dead_trial_does_not_matter(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711\n")
    assert run(SPEC)[0] == 0


def test_a_left_over_process_is_named_and_not_killed(run: Run, tmp_path: Path) -> None:
    stale = tmp_path / "run" / "ftmb-old"
    stale.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pids = {"ftmb": [2**22 + 1, 1], "r1": [other.pid, lock.start_ticks(other.pid)]}
        (stale / lock.PID_FILE).write_text(json.dumps(pids), encoding="utf-8")
        code, result, err = run(SPEC)
        assert (code, result) == (3, None)
        assert f"left over from an earlier run: r1 (pid {other.pid})" in one_line(err)
        assert f"kill {other.pid}" in err
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()
    assert run(SPEC)[0] == 0, "once it is gone, its directory is cleared away"
    assert not stale.exists()


def test_a_pid_that_was_given_to_another_process_is_no_left_over(run: Run, tmp_path: Path) -> None:
    stale = tmp_path / "run" / "ftmb-old"
    stale.mkdir()
    pids = {"r1": [os.getpid(), (lock.start_ticks(os.getpid()) or 0) + 5]}
    (stale / lock.PID_FILE).write_text(json.dumps(pids), encoding="utf-8")
    assert run(SPEC)[0] == 0
    assert not stale.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    path, out = tmp_path / "spec.yaml", tmp_path / "out"
    path.write_text(json.dumps(SPEC | {"duration_s": 60}), encoding="utf-8")
    # Its own lock constants: the child is a fresh interpreter.
    program = (
        "import sys; from ftmb import cli, lock, trial\n"
        "lock.LONGEST_DIR = 120\n"
        "lock.runtime_bases = lambda: [__import__('pathlib').Path(sys.argv[3])]\n"
        "trial.packets = lambda *_: {'template': '', 'capture': '', 'inside': '10.0.0.0/8'}\n"
        "sys.exit(cli.main(['trial', sys.argv[1], '--out', sys.argv[2]]))\n"
    )
    words = [sys.executable, "-c", program, str(path), str(out), str(tmp_path / "run")]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=FAKE.parents[1])
    deadline = time.monotonic() + 30
    node_count = 3
    while len(running(out)) < node_count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(running(out)) >= node_count
    child.send_signal(number)
    _, err = child.communicate(timeout=20)
    while running(out) and time.monotonic() < deadline:
        time.sleep(0.05)  # after SIGKILL the children see the end of their stdin
    assert not running(out)
    if number != signal.SIGKILL:
        assert child.returncode == 128 + number
        assert "nothing is left running" in one_line(err)
    else:
        assert not lock.left_overs(clean=True)


def test_without_the_engine_a_workflow_leaves_the_trial_out(run: Run) -> None:
    """For a person it is an error; for a workflow a result: the reason is the record."""
    page = SPEC | {"ft": {"snapshot": {"engine": "page"}}}
    code, result, err = run(page)
    assert (code, result) == (3, None)
    assert "page cannot be used here: no PAGEMAP_SCAN" in one_line(err)
    code, result, _ = run(page, None, "--leave-out")
    assert code == 0
    assert result is not None
    assert "no PAGEMAP_SCAN" in result["left_out"]
