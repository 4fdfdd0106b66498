"""Makes a capture of real traffic: `python -m ftmb.traffic.capture OUT.pcap`.

Two network namespaces joined by a veth pair, real clients in one and real servers in the other
(`ftmb.traffic.talk`: HTTP, questions and answers over UDP, ping, bulk TCP). What passes is recorded
until the clients are done, at most 30 seconds and 1 MB. Needs root, and the command `ip`. Only
private addresses; offloads are off, so that frames and checksums are those of a wire.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ftmb import interface
from ftmb.errors import FtmbError, MachineError, SpecError, TrialError
from ftmb.traffic.talk import CLIENTS, SERVERS

MAX_BYTES = 1_000_000
MAX_FRAME = 1514
TIME_LIMIT_S = 30.0
ETH_P_IP = 0x0800
INSIDE_LINK, OUTSIDE_LINK = "inside", "outside"


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[:1] or ["no reason given"]
        raise MachineError(f"ip {' '.join(args)}: {reason[0]}")


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces of ours, connected; removed at the end, whatever happens."""
    inside, outside = (f"ftmb-{os.getpid()}-{side}" for side in (INSIDE_LINK, OUTSIDE_LINK))
    made: list[str] = []
    try:
        for name in (inside, outside):
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", inside, "link", "add", INSIDE_LINK, "type", "veth",
            "peer", "name", OUTSIDE_LINK, "netns", outside)  # fmt: skip
        ends = ((inside, INSIDE_LINK, CLIENTS, "172.16.0.0/12"),
                (outside, OUTSIDE_LINK, SERVERS, "10.0.0.0/8"))  # fmt: skip
        for name, link, addresses, there in ends:
            for address in addresses:
                _ip("-n", name, "address", "add", f"{address}/32", "dev", link)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", link, "up")
            _ip("-n", name, "route", "add", there, "dev", link, "src", addresses[0])
        yield inside, outside
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def record(path: Path, link: str) -> None:
    """Write the IPv4 frames of `link` to a pcap file until stdin ends. Prints `ready` first."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as wire,
        path.open("wb") as out,
    ):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        wire.bind((link, 0x0003))  # all protocols: this is how outgoing frames are seen too
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([wire, sys.stdin], [], [])
            if wire not in ready:
                return  # stdin has ended, and nothing is left to read
            frame = wire.recv(65536)
            if frame[12:14] != struct.pack("!H", ETH_P_IP):
                continue
            if len(frame) > MAX_FRAME:
                raise MachineError(f"a frame of {len(frame)} bytes on {link}: offload is still on")
            if out.tell() + 16 + len(frame) > MAX_BYTES:
                return
            now = time.time_ns()
            seconds, micros = now // 10**9, now % 10**9 // 1000
            out.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)


@contextlib.contextmanager
def _helper(namespace: str, module: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a namespace that says `ready` and runs until its stdin is closed."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", module, *args]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout and child.stderr
    try:
        if child.stdout.readline().strip() != "ready":
            lines = child.stderr.read().strip().splitlines() or ["ended at once"]
            raise TrialError(f"{module} {args[0]}: {lines[-1]}")
        yield child
        child.stdin.close()
        if child.wait(timeout=TIME_LIMIT_S):
            lines = child.stderr.read().strip().splitlines() or ["failed"]
            raise TrialError(f"{module} {args[0]}: {lines[-1]}")
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()


def _run_clients(namespace: str) -> None:
    talk = [sys.executable, "-m", "ftmb.traffic.talk", "talk"]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *talk],
        capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise TrialError(f"the clients failed: {lines[-1]}")


def capture(path: Path) -> int:
    """Make the capture file; returns its size in bytes. Raises FtmbError with one line."""
    if os.geteuid() != 0:
        raise MachineError("making a capture needs root: network namespaces and a raw socket")
    if shutil.which("ip") is None:
        raise MachineError("command ip is missing: apt-get install iproute2")
    path = path.absolute()
    if not path.parent.is_dir():
        raise SpecError(f"{path}: no such directory")
    part = path.with_name(path.name + ".part")
    try:
        with (
            namespaces() as (inside, outside),
            _helper(outside, "ftmb.traffic.capture", "--record", str(part), OUTSIDE_LINK),
            _helper(inside, "ftmb.traffic.capture", "--plain", INSIDE_LINK),
            _helper(outside, "ftmb.traffic.talk", "serve"),
        ):
            _run_clients(inside)
            time.sleep(0.3)  # the last connections close
        part.replace(path)
    except subprocess.TimeoutExpired:
        raise TrialError(f"not done after {TIME_LIMIT_S:g} s: given up") from None
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def main(args: list[str]) -> int:
    """The command; `--record` and `--plain` are its own helpers inside the namespaces."""
    try:
        if len(args) == 3 and args[0] == "--record":
            interface.plain(args[2])
            record(Path(args[1]), args[2])
        elif len(args) == 2 and args[0] == "--plain":
            interface.plain(args[1])
            print("ready", flush=True)
            sys.stdin.read()
        elif len(args) == 1 and not args[0].startswith("-"):
            size = capture(Path(args[0]))
            print(f"{args[0]}: {size} bytes")
        else:
            raise SpecError("usage: python -m ftmb.traffic.capture OUT.pcap")
    except FtmbError as error:
        print(f"ftmb: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
