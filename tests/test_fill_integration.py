"""Trials with real processes whose function is filled with flows before they begin."""

from __future__ import annotations

import pytest
from conftest import RunFtmb
from test_integration import KILL, assert_exactly_once, sound, spec

pytestmark = pytest.mark.slow


def test_filled_then_killed(trial: RunFtmb) -> None:
    """The fill outruns logs of this size, and waits for them: no flow of it may be refused. All
    flows are known before the window, and after the crash too."""
    flows = 60_000
    record = sound(
        trial,
        spec(
            nf={"name": "nat", "capacity": 65_536},
            log={"outputs": 2048},
            traffic={"flows": flows, "fill": True, "zipf": 1.0, "new_flows_per_s": 0},
            faults=[KILL],
        ),
    )
    assert_exactly_once(record)
    assert record["fill"]["flows"] == record["fill"]["delivered"] == flows
    assert record["packets"]["offered"] == flows + 1.2 * 50_000
    assert record["latency_ns"]["count"] > 10_000
    assert record["nf"]["mappings_created"] == record["nf"]["mappings"] == flows
    assert record["recovery"][0]["view"] is not None
    assert record["state_bytes"] > 65_536 * 32


def test_filled_without_snapshots(trial: RunFtmb) -> None:
    """Engine `none` takes none by itself: the fill would end at the logs' bound. It asks for them,
    and the last may come a little late."""
    flows = 400_000
    record = sound(
        trial,
        spec(
            ft={"snapshot": {"engine": "none"}},
            nf={"name": "monitor", "flows": 250_000},
            log={"input_mb": 16},
            traffic={"flows": flows, "fill": True, "new_flows_per_s": 0, "reply_share": 0},
        ),
    )
    assert record["fill"]["delivered"] == flows == record["nf"]["flows"]
    assert record["packets"]["refused_before_log"] == 0
    assert record["snapshot"]["committed"] >= 2
    assert record["snapshot"]["taken"] <= 1
