"""A run of `ftmb endpoints`: when its figures count, and what ends in order, or is told."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from ftmb import site
from ftmb.endpoints import box, client, record, run, spec, workloads
from ftmb.errors import TrialError

BULK: dict[str, Any] = {"workloads": [{"kind": "iperf3", "mbps": 5}]}


def _killed(at_work: int) -> record.Crash:
    told = record.Connections(
        at_work=at_work, lost=0, longest_gap_ms=1, median_gap_ms=1, retransmitted=0, timeouts=0,
        collapsed=0, reduced=0, threshold_cut=0,
    )  # fmt: skip
    return record.Crash(
        t0_ns=0, at_s=0, ready_again_ms=1, counters={}, connections={"iperf3": told}
    )


@pytest.mark.parametrize(
    ("arm", "failovers", "at_work", "why"),
    [
        ("ftmb", 2, 1, None),
        ("ftmb", 0, 1, "0 takeovers, where 2 were to come"),
        ("ftmb", 3, 1, "3 takeovers, where 2 were to come"),
        ("ftmb", 2, 0, "iperf3: no connection was at work at a kill"),
        ("control", 1, 1, "1 takeovers, where 0 were to come"),
        ("control", 0, 1, None),
        ("cold", 0, 0, None),
    ],
)
def test_kills_that_caused_no_takeover_confirm_nothing(
    arm: str, failovers: int, at_work: int, why: str | None
) -> None:
    assert run.why_not(arm, failovers, [_killed(at_work)] * 2) == why


def test_a_middlebox_that_is_gone_counted_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(site, "sites", list)
    gone = box.Box(cast(Any, None), spec.EndpointsSpec.model_validate(BULK), tmp_path)
    with pytest.raises(TrialError, match="is gone"):
        _ = gone.failovers


def test_a_download_is_compared_and_ends_here(tmp_path: Path) -> None:
    """It ends in order while the server still sends; what differs, or is cut short, is told."""
    original = tmp_path / "file"
    original.write_bytes(random.Random(1).randbytes(1 << 20))

    async def told(sent: bytes, stays: bool) -> str:
        ended, taken = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + sent)
            if stays:
                ended.set()
                await taken.wait()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            outcome = await client._download("127.0.0.1", port, 1e9, "/file", str(original), ended)
            taken.set()
        return outcome

    whole = original.read_bytes()
    assert asyncio.run(told(whole, False)) == "ok"
    assert asyncio.run(told(whole[:5000], False)) == "ended after 5000 bytes"
    assert "other content" in asyncio.run(told(b"x" + whole[1:], False))
    assert asyncio.run(told(whole[:5000], True)) == "ok"


def test_what_sshd_wants_goes_again_if_we_made_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "sshd"
    monkeypatch.setattr(workloads, "SSH_RUN", place)
    with ExitStack() as undo:
        workloads._make_ssh_run(undo)
        assert place.is_dir()
        with ExitStack() as others:
            workloads._make_ssh_run(others)
        assert place.is_dir()
    assert not place.exists()
    with pytest.raises(TrialError, match="ssh: false: exit code 1"):
        workloads._keygen(["false"])
    with pytest.raises(TrialError, match="No such file"):
        workloads._keygen([str(tmp_path / "none")])


def test_a_sampler_that_does_not_begin_or_end_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "SAMPLER_S", 0.2)
    wanted = spec.EndpointsSpec.model_validate(BULK)
    one = run.Run(wanted, tmp_path, True)

    class Mute:
        def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
            return subprocess.Popen(["sleep", "60"], text=True, **options)

    with pytest.raises(TrialError, match="does not begin within"):
        one._sampler(cast(Any, Mute()), "client")
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert deaf.stdout is not None and deaf.stdout.readline() == "deaf\n"
    with pytest.raises(TrialError, match="did not end within"):
        run._end(deaf)
    assert deaf.returncode == -signal.SIGKILL
