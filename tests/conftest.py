"""Shared fixtures: where the project is, how its command is run, what must not be left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftmb import cli, lock
from ftmb import trial as trials

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "results" / "build" / "release" / "ftmb-node"
FTMB = Path(sys.executable).parent / "ftmb"


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the project."""
    return ROOT


@pytest.fixture(scope="session")
def node() -> Path:
    """The data plane's program. Its absence is a failure: `make test` builds it."""
    if not NODE.is_file():
        pytest.fail(f"{NODE.relative_to(ROOT)} does not exist: run `make build`", pytrace=False)
    return NODE


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit code, both outputs, and the record where it wrote one."""

    code: int
    out: str
    err: str
    record: dict[str, Any] | None = None


RunFtmb = Callable[..., Ran]


def run_ftmb(*args: str | Path, timeout: float = 120, cwd: Path = ROOT) -> Ran:
    """Runs `ftmb ARGS` to its end, without a terminal and without input."""
    done = subprocess.run(
        [FTMB, *map(str, args)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def processes_naming(words: str) -> dict[int, str]:
    """Live processes whose command line holds `words`, by pid. Zombies have none."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended while we looked
            continue
        if words in line:
            found[int(entry.name)] = line
    return found


def gone(words: str, within_s: float = 5.0) -> dict[int, str]:
    """Waits until no process names `words`; returns those that still do when the time is over."""
    deadline = time.monotonic() + within_s
    while (left := processes_naming(words)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.fixture
def trial(node: Path, tmp_path: Path) -> Iterator[RunFtmb]:
    """A function that writes a spec, runs `ftmb trial` on it and reads the record.

    `trial(spec, "key=value", ..., out="name", timeout=s)` returns a `Ran`. After the test no
    process of the data plane may be left, whatever the test did.
    """

    def run(spec: dict[str, Any], *sets: str, out: str = "out", timeout: float = 120) -> Ran:
        path = tmp_path / f"{out}.yaml"
        path.write_text(yaml.safe_dump(spec), encoding="utf-8")
        words = [word for value in sets for word in ("--set", value)]
        directory = tmp_path / out
        ran = run_ftmb("trial", path, *words, "--out", directory, timeout=timeout)
        record = directory / "record.json"
        content = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        return Ran(ran.code, ran.out, ran.err, content)

    before = set(processes_naming(str(NODE)))
    yield run
    left = {pid: line for pid, line in processes_naming(str(NODE)).items() if pid not in before}
    assert not left, f"processes left running: {left}"


# -- trials against the stand-in for the data plane ---------------------------------------------

FAKE = Path(__file__).with_name("fake_node.py")
SPEC: dict[str, Any] = {
    "warmup_s": 0.02, "duration_s": 0.4, "drain_s": 0.05, "setup_timeout_s": 20,
    "idle": "yield",
}  # fmt: skip
CRASH = SPEC | {"faults": [{"do": "kill", "role": "master", "at_s": 0.1}]}
Run = Callable[..., tuple[int, dict[str, Any] | None, str]]


def one_line(err: str) -> str:
    assert err.startswith("ftmb: ")
    assert err.count("\n") == 1, err
    return err


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of its own for every test: lock, runtime directory, data plane."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    monkeypatch.setattr(lock, "LONGEST_DIR", 90)  # pytest's directories are deep
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(lock, "runtime_bases", lambda: [runtime])
    monkeypatch.setenv("FTMB_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("FTMB_NODE", str(FAKE))
    prepared = {"template": "t.pcap", "capture": "", "inside": "10.0.0.0/8"}
    monkeypatch.setattr(trials, "packets", lambda *_: prepared)
    yield
    assert not list(runtime.iterdir()), "a runtime directory was left behind"


@pytest.fixture
def run(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:  # fmt: skip
    """run(spec, misbehaviour) -> exit code, record, stderr; and nothing is left running."""

    def go(tree: dict[str, Any], misbehave: dict[str, str] | None = None, *words: str) -> Any:
        monkeypatch.setenv("FAKE_NODE", json.dumps(misbehave or {}))
        path = tmp_path / "spec.yaml"
        path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
        out = tmp_path / "out"
        code = cli.main(["trial", str(path), "--out", str(out), "--lock-wait", "0", *words])
        path = out / "record.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        assert not running(out), "processes were left running"
        return code, result, capsys.readouterr().err

    return go


def running(out: Path) -> list[int]:
    """Living processes whose command line names a node spec in `out`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(out).encode() + b"/" in line:
            found.append(int(entry.name))
    return found
