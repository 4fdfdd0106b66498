"""The door at which a middlebox at work can be asked."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftmb import door, site
from ftmb.door import Door, Request
from ftmb.errors import MachineError


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")  # short: a socket's path has 107 bytes


def echo(request: Request) -> None:
    request.answer(what=request.what)
    request.end()


def test_a_question_is_answered(place: Path) -> None:
    opened = Door(place, echo)
    try:
        assert (place / door.NAME).stat().st_mode & 0o777 == 0o600
        assert list(door.ask(place, "metrics", 30)) == [{"what": "metrics"}]
        for odd in (b"", b"x" * door.LONGEST, b"x" * (door.LONGEST + 1), b"\xff\n", b"\n"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.settimeout(30)
                peer.connect(str(place / door.NAME))
                peer.sendall(odd)
                peer.shutdown(socket.SHUT_WR)
                with peer.makefile() as said:
                    assert json.loads(said.read())["what"] in ("", "\ufffd")
    finally:
        opened.close()
    with pytest.raises(MachineError, match="cannot ask there"):
        list(door.ask(place, "metrics", 30))


def test_who_says_nothing_stops_nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ASK_S", 0.2)
    opened = Door(place, echo)
    silent = []
    try:
        for _ in range(2 * door.MOST):
            silent.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            silent[-1].settimeout(30)
            silent[-1].connect(str(place / door.NAME))
        for each in silent:  # answered as no question, or sent away
            with each, each.makefile() as said:
                try:
                    assert said.read() in ("", '{"what": ""}\n')
                except ConnectionResetError:
                    pass
        monkeypatch.undo()
        assert list(door.ask(place, "metrics", 30)) == [{"what": "metrics"}]
    finally:
        opened.close()


def test_who_is_sent_away_by_a_site_is_told_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Door(place, Request.end)
    chosen = SimpleNamespace(name="edge", directory=str(place))
    monkeypatch.setattr(site, "_chosen", lambda name: chosen)
    try:
        with pytest.raises(MachineError, match="edge is asked by too many, or ending; ask again"):
            site.metrics(None)
        with pytest.raises(MachineError, match="cannot listen there"):
            Door(place, Request.end)
    finally:
        opened.close()


def test_another_user_is_sent_away(place: Path) -> None:
    """Even one who was let into the directory."""
    if os.getuid() != 0:
        pytest.skip("becoming another user needs root")
    opened = Door(place, echo)
    (place / door.NAME).chmod(0o666)
    shut = {each: each.stat().st_mode for each in (place, *place.parents)
            if each.stat().st_uid == os.getuid() and each.stat().st_mode & 0o001 == 0}  # fmt: skip
    try:
        for directory, mode in shut.items():
            directory.chmod(mode | 0o011)
        pid = os.fork()
        if pid == 0:
            try:
                os.setgid(65534)
                os.setuid(65534)
                os._exit(_sent_away(place))
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        opened.close()
        for directory, mode in shut.items():
            directory.chmod(mode)


def _sent_away(place: Path) -> int:
    """0: the door let in nobody; 1: it answered; 2: one did not even get to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            peer.settimeout(30)
            peer.connect(str(place / door.NAME))
            peer.sendall(b"switchover\n")
            return 1 if peer.recv(1) else 0
        except (BrokenPipeError, ConnectionResetError):
            return 0
        except OSError:
            return 2


def test_answers_are_json_lines(place: Path) -> None:
    def two(request: Request) -> None:
        request.answer(switched=True)
        request.answer(protected=True)
        request.end()

    opened = Door(place, two)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(30)
            peer.connect(str(place / door.NAME))
            peer.sendall(b"switchover\n")
            with peer.makefile() as lines:
                assert [json.loads(line) for line in lines] == [
                    {"switched": True}, {"protected": True},
                ]  # fmt: skip
    finally:
        opened.close()
