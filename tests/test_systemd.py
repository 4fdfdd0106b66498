"""The unit files, by systemd's own checker; and what a service tells its manager."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftmb.notify import Notifier


def complaints(checker: str, unit: Path) -> tuple[int, str]:
    """Of this unit: those it stands beside on this machine may have their own."""
    done = subprocess.run(
        [checker, "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
    )
    return done.returncode, "\n".join(x for x in done.stderr.splitlines() if unit.name in x)


def test_the_unit_is_sound(root: Path, tmp_path: Path) -> None:
    checker = shutil.which("systemd-analyze")
    if checker is None:
        pytest.skip("systemd-analyze is not here (Debian package systemd)")
    text = (root / "envs" / "systemd" / "ftmb@.service").read_text(encoding="utf-8")
    program = "/srv/ftmb/.venv/bin/ftmb"
    assert f"ExecStart={program} up /etc/ftmb/%i.yaml" in text
    unit = tmp_path / "ftmb@edge.service"
    unit.write_text(text.replace(program, sys.executable), encoding="utf-8")
    assert complaints(checker, unit) == (0, "")
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilegs"))
    assert "NoNewPrivilegs" in complaints(checker, unit)[1], "what is wrong is found"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What a service manager listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "n"))
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        yield listening


def test_the_manager_is_told(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notifier = Notifier()
    notifier.say("READY=1", "STATUS=all well")
    assert manager.recv(1000) == b"READY=1\nSTATUS=all well"
    notifier.alive()
    notifier.alive()  # not again so soon
    notifier.say("STOPPING=1")
    assert [manager.recv(1000), manager.recv(1000)] == [b"WATCHDOG=1", b"STOPPING=1"]


def test_a_watchdog_of_another_process_is_not_fed(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    notifier = Notifier()
    notifier.alive()
    notifier.say("STOPPING=1")
    assert manager.recv(1000) == b"STOPPING=1"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().say("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifier().say("READY=1")
