"""Every kind of fault in whole trials, against a stand-in for the data plane: who is hit, what is
started anew, what the record says of it. What the data plane itself does is tested with the real
one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import CRASH, SPEC, Run, one_line

from ftmb import events

ROWS: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    # name: faults (and other keys), processes started in all, events that must be seen
    "kill backup": ({"faults": [{"role": "backup", "at_s": 0.1}]},
                    ["r0", "r1", "loggers", "r1-2"], {"backup_lost", "protected"}),
    "stop backup": ({"faults": [{"do": "stop", "role": "backup", "at_s": 0.1, "for_s": 0.3}],
                     "ft": {"detect_ms": 20}},
                    ["r0", "r1", "loggers", "r1-2"], {"backup_lost", "fenced_out", "fault_end"}),
    "stop backup for a moment": ({"faults": [{"do": "stop", "role": "backup", "at_s": 0.1,
                                              "for_s": 0.05}]},
                                 ["r0", "r1", "loggers"], {"fault_end"}),
    "stop master": ({"faults": [{"do": "stop", "role": "master", "at_s": 0.1, "for_s": 0.3}],
                     "ft": {"detect_ms": 20}},
                    ["r0", "r1", "loggers", "r0-2"], {"resumed", "fenced_out", "fault_end"}),
    "stop master for good": ({"faults": [{"do": "stop", "role": "master", "at_s": 0.1,
                                          "for_s": None}], "ft": {"detect_ms": 20}},
                             ["r0", "r1", "loggers", "r0-2"], {"resumed", "fenced_out"}),
    "kill il": ({"faults": [{"role": "il", "at_s": 0.1}]},
                ["r0", "r1", "gen", "il", "ol", "il-2"], {"recovered", "protected_again"}),
    "kill ol": ({"faults": [{"role": "ol", "at_s": 0.1}]},
                ["r0", "r1", "gen", "il", "ol", "ol-2"], {"recovered", "protected_again"}),
    "stop il": ({"faults": [{"do": "stop", "role": "il", "at_s": 0.1, "for_s": 0.1}]},
                ["r0", "r1", "gen", "il", "ol"], {"fault_end"}),
    "stop ol": ({"faults": [{"do": "stop", "role": "ol", "at_s": 0.1, "for_s": 0.1}]},
                ["r0", "r1", "gen", "il", "ol"], {"fault_end"}),
    "cut il link": ({"faults": [{"do": "cut", "role": "il-master", "at_s": 0.1, "for_s": 0.1}]},
                    ["r0", "r1", "loggers"], {"link_cut", "link_restored"}),
    "cut ol link": ({"faults": [{"do": "cut", "role": "ol-backup", "at_s": 0.1, "for_s": 0.1}]},
                    ["r0", "r1", "loggers"], {"link_cut", "link_restored"}),
    "cut ctl link": ({"faults": [{"do": "cut", "role": "ctl-master", "at_s": 0.1, "for_s": 0.3}],
                      "ft": {"detect_ms": 20}},
                     ["r0", "r1", "loggers", "r0-2"], {"link_cut", "resumed", "fenced_out"}),
    "second crash": ({"faults": [{"at_s": 0.1}, {"after": "replay_start"}]},
                     ["r0", "r1", "loggers", "r1-2", "r0-2"], {"heir_wanted", "resumed"}),
    "second crash, two backups": ({"faults": [{"at_s": 0.1}, {"after": "replay_start"}],
                                   "backups": 2},
                                  ["r0", "r1", "r2", "loggers", "r0-2", "r1-2"], {"resumed"}),
    "crash while receiving": ({"faults": [{"role": "backup", "at_s": 0.1},
                                          {"role": "backup", "after": "receiving"}],
                               "drain_s": 2},
                              ["r0", "r1", "loggers", "r1-2", "r1-3"], {"backup_lost"}),
    "crash once protected": ({"faults": [{"at_s": 0.1}, {"after": "protected"}],
                              "drain_s": 2},
                             ["r0", "r1", "loggers", "r0-2", "r1-2"], {"resumed"}),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_fault(run: Run, tmp_path: Path, row: str) -> None:
    changes, started, expected = ROWS[row]
    code, result, err = run(SPEC | changes)
    assert code == 0, err
    assert result is not None
    assert [fault["missing"] for fault in result["faults"]] == [[] for _ in changes["faults"]]
    assert all(fault["guaranteed"] for fault in result["faults"])
    verdicts = {check["name"]: check["verdict"] for check in result["checks"]}
    assert verdicts["outcome"] == "pass"
    assert result["valid"] is True
    log = events.read(tmp_path / "out" / "events.jsonl")
    spawned = [e.process for e in log if e.name == "spawn"]
    if row == "second crash, two backups":  # nobody waits for either: whichever ends first
        spawned.sort(key=started.index)
    assert spawned == started
    assert expected <= {e.name for e in log}


def test_faults_of_one_recovery_are_one_incident(run: Run) -> None:
    changes = {"faults": [{"at_s": 0.1}, {"after": "replay_start"}]}
    _, result, _ = run(SPEC | changes)
    assert result is not None
    assert [fault["incident"] for fault in result["faults"]] == [0, 0]
    one, two = result["faults"]
    assert one["recovered_ms"] == two["recovered_ms"] > (two["t0_ns"] - one["t0_ns"]) / 1e6


def test_chaos_kills_again_and_again(run: Run, tmp_path: Path) -> None:
    fault = {"role": ["master", "backup", "il", "ol"], "repeat": {"every_s": [0, 0.05]}}
    code, result, err = run(
        SPEC | {"faults": [fault], "duration_s": 6, "traffic": {"seed": 3}}, None, "--verbose"
    )
    assert code == 0
    assert result is not None
    assert result["valid"] is True
    assert len(result["faults"]) >= 5
    assert [f["incident"] for f in result["faults"]] == list(range(len(result["faults"])))
    assert all(fault["guaranteed"] for fault in result["faults"]), result["faults"]
    assert f"fault {len(result['faults'])}: killed " in err
    log = events.read(tmp_path / "out" / "events.jsonl")
    assert len([e for e in log if e.name == "fault"]) == len(result["faults"])


def test_a_poison_input_is_named_and_ends_the_trial_well(run: Run) -> None:
    poisoned = {"loggers": "poison", "r1": "poisoned"}
    code, result, err = run(CRASH | {"expect": ["poison"]}, poisoned)
    assert code == 0, err
    assert result is not None
    assert result["valid"] is True
    (check,) = [check for check in result["checks"] if check["name"] == "poison"]
    assert (check["verdict"], check["detail"]) == ("pass", "worker 1, input 17")


def test_a_stopped_process_does_not_outlive_its_trial(run: Run, tmp_path: Path) -> None:
    """The set-up of an unexpected end while something is stopped: nothing is left (see `run`)."""
    stop = {"do": "stop", "role": "backup", "at_s": 0, "for_s": None}
    code, _, err = run(SPEC | {"faults": [stop]}, {"loggers": "die-in-window"})
    assert code == 4
    assert "divergence" in one_line(err)
