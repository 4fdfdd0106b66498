"""A whole trial of processes that were built with the address and undefined-behaviour sanitizers.

The C tests run under sanitizers by themselves (`make sanitize`); this adds what only the whole
program has: rings, buffers, threads and messages of a failover. DPDK is not instrumented, and leaks
are not looked for, since a process of the data plane ends without tidying up.
"""

from __future__ import annotations

import pytest
from conftest import ROOT, RunFtmb
from test_integration import KILL, assert_exactly_once, sound, spec

pytestmark = pytest.mark.slow

NODE = ROOT / "results" / "build" / "asan" / "ftmb-node"


@pytest.mark.parametrize(("nf", "release"), [("nat", "max"), ("monitor", "exact")])
def test_crash_under_sanitizers(
    trial: RunFtmb, monkeypatch: pytest.MonkeyPatch, nf: str, release: str
) -> None:
    assert NODE.is_file(), "run `make sanitize`, which builds it"
    monkeypatch.setenv("FTMB_NODE", str(NODE))
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1")
    monkeypatch.setenv("UBSAN_OPTIONS", "halt_on_error=1:abort_on_error=1")
    tree = spec(
        nf={"name": nf}, ft={"release": release}, traffic={"rate_pps": 20_000}, faults=[KILL]
    )
    record = sound(trial, tree)
    assert "b_sanitize=address,undefined" in record["versions"]["flags"]
    assert_exactly_once(record)
    assert record["recovery"][0]["packets_replayed"] > 0
