"""The Promela models of the protocol: searched to their ends, and able to find broken variants."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MODEL = Path(__file__).resolve().parent.parent / "native" / "model"
sys.path.insert(0, str(MODEL))
import run  # noqa: E402
import suite  # noqa: E402


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_models_hold_and_broken_variants_are_found(tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    done = subprocess.run(
        [sys.executable, MODEL / "run.py", "--json", out],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["kind"] == "model"
    assert [m["name"] for m in found["models"] if m["errors"] or not m["exhaustive"]] == []
    assert [p["id"] for p in found["plants"] if not p["found"]] == []
    assert [r["name"] for r in found["reached"] if not r["found"]] == []
    counts = [len(found[key]) for key in ("models", "plants", "reached")]
    assert counts == [len(suite.MODELS), len(suite.PLANTS), len(suite.REACHES)]


def test_the_workflow_asks_for_checks_that_there_are(root: Path) -> None:
    text = (root / "config" / "config.yaml").read_text(encoding="utf-8")
    known = {check.name for check in (*suite.MODELS, *suite.PLANTS, *suite.REACHES)}
    for tier, names in yaml.safe_load(text)["model_checks"].items():
        assert set(names) <= known, tier


def test_checks_have_their_own_names() -> None:
    names = [check.name for check in (*suite.MODELS, *suite.PLANTS, *suite.REACHES)]
    assert len(names) == len(set(names))
    assert [plant.name for plant in suite.PLANTS] == [
        f"M{i:02}" for i in range(1, len(suite.PLANTS) + 1)
    ], "variants are numbered without gaps"


def of(name: str) -> suite.Check:
    return next(check for check in (*suite.MODELS, *suite.PLANTS) if check.name == name)


def test_runner_is_not_fooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a model, a variant that is not found and a search cut short each count."""
    broken = dataclasses.replace(of("M09"), must_fail=False)
    result = run.search(broken)
    assert "assertion violated" in result.what
    assert run.verdict(broken, result).startswith("ERROR: assertion violated")
    sound = dataclasses.replace(of("seq"), must_fail=True)
    result = run.search(sound)
    assert result.complete
    assert run.verdict(sound, result) == "NOT FOUND"
    assert run.verdict(of("seq"), result) == ""
    monkeypatch.setattr(run, "DEPTH", 20)
    result = run.search(of("seq"))
    assert result.errors == 0
    assert run.verdict(of("seq"), result) == "NOT EXHAUSTIVE"


def test_runner_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(run.ModelError, match="spin is not installed"):
        run.search(of("seq"))
