"""The doctor: what it finds, what it says mends it, and when it says no."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftmb import cli, doctor, environment, lock

FAKE = Path(__file__).with_name("fake_node.py")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything is there."""
    monkeypatch.setenv("FTMB_NODE", str(FAKE))
    monkeypatch.setenv("FTMB_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(lock, "runtime_bases", lambda: [tmp_path])
    monkeypatch.setattr(doctor, "PACKAGES", ("pydantic", "rich"))
    monkeypatch.setattr(environment, "memory_mb", lambda field="MemTotal": 32_000)


def finding(name: str) -> doctor.Finding:
    return next(f for f in doctor.examine() if f.name == name)


def test_every_missing_thing_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FTMB_NODE", str(tmp_path / "absent"))
    monkeypatch.setattr(doctor, "PACKAGES", ("pydantic", "no-such-package"))
    monkeypatch.setattr(environment, "memory_mb", lambda field="MemTotal": 100)
    missing = [f for f in doctor.examine() if f.status == "missing"]
    names = {f.name for f in missing}
    assert {"packages", "compiler", "libdpdk", "data plane", "memory"} <= names
    assert all(f.remedy for f in missing)


@pytest.mark.parametrize(
    ("policy", "status"), [("always", "ok"), ("madvise", "ok"), ("never", "note")]
)
def test_huge_pages(monkeypatch: pytest.MonkeyPatch, policy: str, status: str) -> None:
    monkeypatch.setattr(environment, "thp", lambda: policy)
    assert finding("huge pages").status == status


def test_a_missing_package_names_it_and_make_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("pydantic", "no-such-package"))
    found = finding("packages")
    assert found.status == "missing"
    assert "no-such-package" in found.found
    assert found.remedy == "make setup"


def test_an_optional_tool_does_not_stop_the_quick_tier(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = doctor.Finding("TRex", "note", "not installed", "unpack it")
    monkeypatch.setattr(doctor, "examine", lambda: [note])
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "mend with: unpack it" in out
    assert "the quick tier can run" in out


def test_a_missing_need_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack = doctor.Finding("libdpdk", "missing", "not installed", "sudo apt-get install libdpdk-dev")
    monkeypatch.setattr(doctor, "examine", lambda: [lack])
    assert cli.main(["doctor"]) == 1
    assert "cannot run: libdpdk" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 1
    tree = json.loads(capsys.readouterr().out)
    assert tree["quick"] is False
    assert tree["findings"][0]["remedy"] == "sudo apt-get install libdpdk-dev"


def test_the_data_plane_is_asked_what_it_is() -> None:
    found = finding("data plane")
    assert found.status == "ok"
    assert "monitor, nat" in found.found


def test_an_engine_that_the_machine_lacks_is_told_with_its_reason() -> None:
    found = finding("engine page")
    assert found.status == "note"
    assert "no PAGEMAP_SCAN" in found.found
    assert found.remedy
    assert not any(f.name == "engine stop-copy" for f in doctor.examine())


def test_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trial", "--defaults"]) == 0
    out = capsys.readouterr().out
    assert "ft.snapshot.period_ms" in out
    assert "nat.addresses" in out
    assert cli.main(["schema", "record"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Record"
    with pytest.raises(SystemExit) as caught:
        cli.main(["trial", "x.yaml"])
    assert caught.value.code == 2


def test_the_runtime_directory_is_told_with_its_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = finding("runtime directory")
    assert str(tmp_path) in found.found
    assert found.status == ("ok" if lock.on_tmpfs(tmp_path) else "note")
    monkeypatch.setattr(doctor, "NEEDED_DIR_MB", 1 << 40)
    found = finding("runtime directory")
    assert found.status == "missing"
    assert "needed" in found.found
    assert found.remedy


def test_runtime_directories_lie_in_memory_where_they_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if lock.on_tmpfs(Path("/dev/shm")):
        assert lock.runtime_bases() == [Path("/dev/shm"), Path("/tmp")]
    assert not lock.on_tmpfs(Path("/proc"))
    assert not lock.on_tmpfs(tmp_path / "absent")
    monkeypatch.setattr(lock, "SHARED_MEMORY", tmp_path / "absent")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    assert lock.runtime_bases()[-1] == Path("/tmp")
    assert Path("/dev/shm") not in lock.runtime_bases()
