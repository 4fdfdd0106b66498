"""Memory of a trial: sampled, summed up, and judged flat or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ftmb import checks, memory
from ftmb.memory import Sample

SECOND = 1_000_000_000


def run(seconds: int, **sizes: Any) -> list[Sample]:
    """A sample each second; a size is kilobytes, or a function of the second."""

    def at(t: int) -> dict[str, int]:
        return {name: size(t) if callable(size) else size for name, size in sizes.items()}

    return [Sample(t * SECOND, at(t), True) for t in range(seconds + 1)]


def judge(samples: list[Sample], seconds: int = 100) -> memory.Flatness | None:
    return memory.flatness(samples, 0, seconds * SECOND)


def test_constant_memory_is_flat() -> None:
    verdict = judge(run(100, il=50_000, r0=200_000, directory=9_000))
    assert verdict is not None
    assert verdict.flat
    assert verdict.detail == "directory 9 to 9 MB, il 49 to 49 MB, replicas 195 to 195 MB"
    (check,) = checks.memory_check(verdict)
    assert check.verdict == "pass"


@pytest.mark.parametrize("leaks", ["il", "r1", "directory"])
def test_a_leak_anywhere_is_seen(leaks: str) -> None:
    sizes = {"il": 50_000, "r0": 50_000, "r1": 50_000, "directory": 50_000}
    verdict = judge(run(100, **sizes | {leaks: lambda t: 50_000 + 400 * t}))
    assert verdict is not None
    assert not verdict.flat
    (check,) = checks.memory_check(verdict)
    assert check.verdict == "fail"
    assert check.figure and check.figure > 0


def test_what_is_touched_for_the_first_time_is_no_leak() -> None:
    verdict = judge(run(100, ol=lambda t: 100_000 + 9_000 * min(t, 20)))
    assert verdict is not None
    assert verdict.flat


def test_replicas_that_change_places_are_no_leak() -> None:
    samples = run(100, r0=lambda t: 100_000 if t < 60 else 300_000,
                  r1=lambda t: 300_000 if t < 60 else 100_000)  # fmt: skip
    verdict = judge(samples)
    assert verdict is not None
    assert verdict.flat


def test_recoveries_do_not_count() -> None:
    def size(t: int) -> int:
        return 100_000 if t % 2 else 100_000 + 9_000 * t

    samples = [Sample(t * SECOND, {"r0": size(t)}, bool(t % 2)) for t in range(101)]
    verdict = judge(samples)
    assert verdict is not None
    assert verdict.flat


def test_a_short_or_restless_run_has_no_verdict() -> None:
    assert judge(run(59, il=1), 59) is None
    assert judge([Sample(s.t_ns, s.kb, False) for s in run(100, il=1)]) is None
    assert checks.memory_check(None) == []


def test_summary_of_a_growing_process() -> None:
    found = memory.summary(run(10, il=lambda t: 100 + 7 * t, r0=5, r1=6))
    assert found is not None
    assert set(found.of) == {"il", "replicas"}
    il = found.of["il"]
    assert (il.first_kb, il.last_kb, il.peak_kb, il.slope_kb_per_s) == (100, 170, 170, 7)
    assert found.of["replicas"].peak_kb == 11
    assert memory.summary([]) is None


def test_samples_are_taken_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100_000)
    sampler = memory.Sampler(tmp_path)
    pids = {"il-2": os.getpid(), "r0-7": os.getpid(), "ol": 2**22 + 1}
    sampler.tick(5 * SECOND, pids, True)
    sampler.tick(5 * SECOND + 1, pids, True)
    (sample,) = sampler.samples
    assert sample.kb["il"] > 5_000
    assert sample.kb["r0"] > 5_000
    assert sample.kb["ol"] == 0
    assert 90 <= sample.kb["directory"] < 1_000
    memory.write(tmp_path / "memory.csv", sampler.samples, 4 * SECOND)
    lines = (tmp_path / "memory.csv").read_text().splitlines()
    assert lines[0] == "t_s,what,kb,calm"
    assert f"1.0,replicas,{sample.kb['r0']},1" in lines


def test_a_file_that_goes_away_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bytes(8192))
    whole = memory.directory_kb(tmp_path)
    scan = os.scandir

    def scan_and_remove(path: Path) -> list[os.DirEntry[str]]:
        entries = list(scan(path))
        (tmp_path / "b").unlink()
        return entries

    monkeypatch.setattr(os, "scandir", scan_and_remove)
    assert 0 < memory.directory_kb(tmp_path) < whole
